"""Ray's token is found where Ray finds it, and a message says from where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_provider_rayworkflow.connection.tokens import find_token, token_for
from airflow_provider_rayworkflow.exceptions import RayWorkflowConnectionError

SECRET = "secret-of-the-cluster"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and an environment that says nothing of tokens."""
    for name in [name for name in os.environ if name.startswith("RAY_AUTH")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def default_file(home: Path, text: str = f"{SECRET}\n") -> str:
    return write(home / ".ray" / "auth_token", text)


def rays(monkeypatch: pytest.MonkeyPatch) -> str:
    """What Ray itself finds."""
    from ray._raylet import AuthenticationTokenLoader

    loader = AuthenticationTokenLoader.instance()
    loader.reset_cache()
    try:
        return loader.get_raw_token(ignore_auth_mode=True)
    finally:
        loader.reset_cache()


@pytest.mark.parametrize("text", [SECRET, f"  {SECRET} \n", f"{SECRET}\nmore\n"])
@pytest.mark.parametrize("place", ["variable", "named file", "default file"])
def test_a_token_is_what_ray_takes_for_one(
    home: Path, monkeypatch: pytest.MonkeyPatch, place: str, text: str
):
    default_file(home, text if place == "default file" else "not this")
    if place == "named file":
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", write(home / "token", text))
        source = f"the file '{home}/token' that RAY_AUTH_TOKEN_PATH names"
    elif place == "variable":
        text = text.replace("\nmore\n", "")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", write(home / "token", "nor this"))
        monkeypatch.setenv("RAY_AUTH_TOKEN", text)
        source = "the environment variable RAY_AUTH_TOKEN"
    else:
        source = f"the file '{home}/.ray/auth_token'"
    found = find_token()
    assert (found.value, found.source) == (SECRET, source)
    assert rays(monkeypatch) == SECRET
    assert SECRET not in repr(found)


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_an_empty_variable_says_nothing(home: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    default_file(home)
    monkeypatch.setenv(name, "")
    assert find_token().value == rays(monkeypatch) == SECRET


def test_without_a_token_the_places_are_named():
    found = find_token()
    assert found.value == ""
    for place in ("password", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token"):
        assert place in found.source


def test_no_token_is_looked_up_where_authentication_is_switched_off(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    default_file(home)
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    monkeypatch.setenv("RAY_AUTH_MODE", "Disabled")
    found = find_token()
    assert (found.value, found.source) == ("", "RAY_AUTH_MODE=disabled")
    assert token_for("of the connection", {}).value == "of the connection"


def test_the_password_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    found = token_for(SECRET, {"Authorization": "x"})
    assert (found.value, found.source) == (SECRET, "the connection's password")


@pytest.mark.parametrize("name", ["authorization", "X-Ray-Authorization"])
def test_a_header_of_the_connection_goes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    found = token_for("", {name: "x"})
    assert (found.value, found.source) == ("", f"the connection's header {name!r}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file or directory"),
        ("", "is empty"),
        (" \nx", "is empty"),
        ("schlüssel-geheim", "characters that no token has"),
        ("a\x1b[31mgeheim", "characters that no token has"),
    ],
)
def test_a_named_token_that_can_not_be_used_is_refused_without_showing_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, reason: str
):
    default_file(home)
    path = home / "token"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    with pytest.raises(RayWorkflowConnectionError, match=reason) as refused:
        find_token()
    assert "geheim" not in str(refused.value)
