"""What an HTTP event must be, and how a refused one is answered."""

import json
import pickle

import pytest

from airflow_provider_rayworkflow.workflow.model.event_posts import (
    Body,
    EventSettings,
    RefusedPostError,
    check_headers,
    read_settings,
    read_target,
)

SETTINGS = EventSettings(token="right", max_bytes=100)
HEADERS = {"authorization": "Bearer right", "content-type": "application/json"}


def status_of(function, *args):
    with pytest.raises(RefusedPostError) as caught:
        function(*args)
    return caught.value.status


def read(body, settings=SETTINGS):
    received = Body(settings)
    received.add(body if isinstance(body, bytes) else json.dumps(body).encode())
    return received.read_event()


def event(key="key", payload=None):
    return {"event_key": key, "event_payload": payload}


@pytest.mark.parametrize("workflow_id", ["w", "a/b", "ü", "a?b#c", "send_event/"])
def test_the_target_is_the_workflow(workflow_id):
    assert read_target("POST", f"/send_event/{workflow_id}") == workflow_id


@pytest.mark.parametrize("path", ["", "/", "/send_event", "/send_event/", "/other/w", "w"])
def test_another_path_is_not_found(path):
    assert status_of(read_target, "POST", path) == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "post"])
def test_another_method_is_not_allowed(method):
    assert status_of(read_target, method, "/send_event/w") == 405


@pytest.mark.parametrize("workflow_id", ["..", "a/../b", "a\nb", "\ud800", "x" * 256])
def test_a_value_that_is_no_workflow_id_is_refused(workflow_id):
    assert status_of(read_target, "POST", f"/send_event/{workflow_id}") == 400


@pytest.mark.parametrize(
    "authorization",
    ["", "right", "Bearer", "Bearer ", "Bearer wrong", "Basic right", "Bearer rightly", "\ud800"],
)
def test_without_the_token_nothing_is_taken(authorization):
    headers = HEADERS | {"authorization": authorization}
    assert status_of(check_headers, headers, SETTINGS) == 401
    del headers["authorization"]
    assert status_of(check_headers, headers, SETTINGS) == 401


def test_where_the_token_is_not_known_yet_nothing_is_taken():
    for token in ("", "None"):
        headers = HEADERS | {"authorization": f"Bearer {token}"}
        assert status_of(check_headers, headers, EventSettings()) == 401


def test_with_the_token_and_where_none_is_needed_it_is_taken():
    check_headers(HEADERS, SETTINGS)
    check_headers(HEADERS | {"authorization": "bearer right"}, SETTINGS)
    check_headers({"content-type": "application/json"}, EventSettings(token=""))


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "json", "a/json+b"]
)
def test_another_content_type_is_refused(content_type):
    headers = HEADERS | {"content-type": content_type}
    assert status_of(check_headers, headers, SETTINGS) == 415


def test_the_content_type_may_say_more():
    check_headers(HEADERS | {"content-type": "Application/JSON; charset=utf-8"}, SETTINGS)


@pytest.mark.parametrize(
    ("length", "status"), [("101", 413), ("9" * 5000, 413), ("-1", 400), ("ten", 400), ("", 400)]
)
def test_a_length_that_is_too_large_or_none_is_refused_before_the_body(length, status):
    assert status_of(check_headers, HEADERS | {"content-length": length}, SETTINGS) == status
    check_headers(HEADERS | {"content-length": "100"}, SETTINGS)


def test_a_body_that_does_not_say_its_length_is_held_up_to_the_limit_only():
    body = Body(SETTINGS)
    body.add(b"x" * 60)
    assert status_of(body.add, b"x" * 41) == 413
    body.add(b"x" * 40)


@pytest.mark.parametrize(
    "payload", ["text", 5, None, [1, {"a": None}], {"key": "value"}, 1.5, True, "\ud800"]
)
def test_any_json_is_a_payload(payload):
    assert read(event("key", payload)) == ("key", payload)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"text"',
        b'{"event_key": "key"}',
        b'{"event_payload": 1}',
        b'{"event_key": "key", "event_payload": NaN}',
        b'{"event_key": "key", "event_payload": -Infinity}',
        b'{"event_key": "key", "event_payload": 1e999}',
        b'{"event_key": "key", "event_payload": %b}' % (b"9" * 5000),
    ],
)
def test_a_body_that_is_no_event_is_refused(body):
    assert status_of(read, body, EventSettings()) == 400


@pytest.mark.parametrize("depth", [101, 1_000, 100_000])
def test_a_payload_that_is_nested_too_deep_is_refused(depth):
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        nested = opening * depth + b"1" + closing * depth
        body = b'{"event_key": "key", "event_payload": %b}' % nested
        assert status_of(read, body, EventSettings()) == 400


def test_a_payload_of_a_hundred_levels_is_taken():
    nested = b"[" * 100 + b"]" * 100
    key, _ = read(b'{"event_key": "key", "event_payload": %b}' % nested, EventSettings())
    assert key == "key"


@pytest.mark.parametrize(
    "key", ["", "\ud800", "\udfff x", "\0", "a\nb", "\x1b[0m", "\x85", "k" * 1025]
)
def test_a_key_that_can_not_be_shown_or_is_too_long_is_refused(key):
    assert status_of(read, event(key), EventSettings()) == 400


@pytest.mark.parametrize("key", [None, 5, ["key"], {"key": 1}, True])
def test_a_key_that_is_no_text_is_refused(key):
    assert status_of(read, event(key)) == 400


@pytest.mark.parametrize("key", ["k" * 1024, "a/b", "..", ".", " ", "ü", "🌻"])
def test_other_keys_are_taken(key):
    assert read(event(key), EventSettings()) == (key, None)


def test_a_refusal_survives_pickling():
    error = pickle.loads(pickle.dumps(RefusedPostError(429, "too many", {"retry-after": "1"})))
    assert (error.status, error.message, error.headers) == (429, "too many", {"retry-after": "1"})


# ---- settings


def test_without_settings_a_token_is_generated():
    assert read_settings({}) == EventSettings(token=None)
    assert read_settings({"RAY_WORKFLOW_EVENT_AUTH_MODE": ""}).token is None


def test_a_token_is_stripped_and_not_shown():
    settings = read_settings({"RAY_WORKFLOW_EVENT_TOKEN": " secret\n"})
    assert settings.token == "secret"
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("token", ["", " \n", "two words", "sécret", "a\nb", "\x1b"])
def test_a_token_that_can_not_be_sent_is_refused_without_being_shown(token):
    with pytest.raises(ValueError, match="RAY_WORKFLOW_EVENT_TOKEN must") as caught:
        read_settings({"RAY_WORKFLOW_EVENT_TOKEN": token})
    if token.strip():
        assert token not in str(caught.value)


def test_no_token_is_needed_only_where_that_is_said():
    assert read_settings({"RAY_WORKFLOW_EVENT_AUTH_MODE": "disabled"}).token == ""
    for mode in ("none", "off", "Disabled", "0"):
        with pytest.raises(ValueError, match="must be 'token' or 'disabled'"):
            read_settings({"RAY_WORKFLOW_EVENT_AUTH_MODE": mode})


def test_limits_are_numbers():
    settings = read_settings(
        {
            "RAY_WORKFLOW_MAX_EVENT_BYTES": "5",
            "RAY_WORKFLOW_MAX_EVENTS_PER_KEY": "6",
            "RAY_WORKFLOW_MAX_EVENTS_PER_WORKFLOW": "7",
            "RAY_WORKFLOW_EARLY_EVENTS_S": "0",
        }
    )
    assert settings == EventSettings(max_bytes=5, max_per_key=6, max_per_workflow=7, early_s=0)


@pytest.mark.parametrize("number", ["-1", "0", "1.5", "many", "1e3", "٣", "9" * 20, "inf"])
def test_a_limit_that_is_no_number_is_refused(number):
    with pytest.raises(ValueError, match="RAY_WORKFLOW_MAX_EVENT_BYTES must be a whole number"):
        read_settings({"RAY_WORKFLOW_MAX_EVENT_BYTES": number})
