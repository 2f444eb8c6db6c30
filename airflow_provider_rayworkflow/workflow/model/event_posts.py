"""What an HTTP event must be, and how a refused one is answered. Pure: no server, no storage."""

from __future__ import annotations

import hmac
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from airflow_provider_rayworkflow.workflow.format.nesting import is_nested_deeper
from airflow_provider_rayworkflow.workflow.model.ids import check_workflow_id

#: The secret that posters send; without it, one is generated and kept in the storage.
TOKEN_VARIABLE = "RAY_WORKFLOW_EVENT_TOKEN"
#: ``disabled``: posters need no token. By default ``token``.
AUTH_VARIABLE = "RAY_WORKFLOW_EVENT_AUTH_MODE"
#: How many bytes the body of a POST may have.
MAX_BYTES_VARIABLE = "RAY_WORKFLOW_MAX_EVENT_BYTES"
#: How many events of one key, and of one workflow, may wait for their acknowledgement.
MAX_PER_KEY_VARIABLE = "RAY_WORKFLOW_MAX_EVENTS_PER_KEY"
MAX_PER_WORKFLOW_VARIABLE = "RAY_WORKFLOW_MAX_EVENTS_PER_WORKFLOW"
#: How many seconds an event is kept whose workflow does not exist yet; 0: it is refused.
EARLY_VARIABLE = "RAY_WORKFLOW_EARLY_EVENTS_S"

#: How many characters an event key may have.
MAX_KEY_LENGTH = 1024

_PATH = "/send_event/"
_MAX_DEPTH = 100
_FORM = 'The body must be JSON: {"event_key": "…", "event_payload": …}.'


@dataclass(frozen=True, kw_only=True, slots=True)
class EventSettings:
    """How events are taken.

    :ivar token: what posters have to send; ``""`` where they need none; None: the manager
        generates one. A secret.
    :ivar max_bytes: of the body of a POST.
    :ivar max_per_key: how many events of one key may wait for their acknowledgement.
    :ivar max_per_workflow: how many events of all keys of one workflow may wait so.
    :ivar early_s: how many seconds an event of an unknown workflow is kept; 0: it is refused.
    """

    token: str | None = field(default=None, repr=False)
    max_bytes: int = 1024 * 1024
    max_per_key: int = 1_000
    max_per_workflow: int = 10_000
    early_s: int = 0


def read_settings(environment: Mapping[str, str]) -> EventSettings:
    """The settings that environment variables make.

    :raises ValueError: for a value that can't be used. The token is not in the message.
    """
    variables = {
        "max_bytes": MAX_BYTES_VARIABLE,
        "max_per_key": MAX_PER_KEY_VARIABLE,
        "max_per_workflow": MAX_PER_WORKFLOW_VARIABLE,
        "early_s": EARLY_VARIABLE,
    }
    numbers = {
        name: _number(variable, environment[variable], least=0 if name == "early_s" else 1)
        for name, variable in variables.items()
        if environment.get(variable)
    }
    return EventSettings(token=_token(environment), **numbers)


def _token(environment: Mapping[str, str]) -> str | None:
    mode = environment.get(AUTH_VARIABLE) or "token"
    if mode not in ("token", "disabled"):
        raise ValueError(f"{AUTH_VARIABLE} must be 'token' or 'disabled', not {mode!r}.")
    if mode == "disabled":
        return ""
    if TOKEN_VARIABLE not in environment:
        return None
    token = environment[TOKEN_VARIABLE].strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(
            f"{TOKEN_VARIABLE} must have printable ASCII characters without spaces, and at least "
            f"one. Unset it to have a token generated, or set {AUTH_VARIABLE}=disabled."
        )
    return token


def _number(variable: str, text: str, *, least: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 15 and int(text) >= least):
        raise ValueError(f"{variable} must be a whole number from {least} on, not {text!r:.80}.")
    return int(text)


class RefusedPostError(Exception):
    """A POST that can't be taken.

    :ivar status: of the HTTP answer.
    :ivar message: what the poster is told.
    :ivar headers: of the HTTP answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        super().__init__(status, message, self.headers)  # as it is pickled


def read_target(method: str, path: str) -> str:
    """The id of the workflow that a request is for.

    :param path: decoded, below the application's prefix.
    :raises RefusedPostError: 404 for another path, 405 for another method, 400 for what can't be
        an id.
    """
    workflow_id = path.removeprefix(_PATH)
    if workflow_id == path or not workflow_id:
        raise RefusedPostError(404, "POST to /event/send_event/{workflow_id}.")
    if method != "POST":
        raise RefusedPostError(405, "Events are sent by POST.", {"allow": "POST"})
    try:
        return check_workflow_id(workflow_id)
    except ValueError as exc:
        raise RefusedPostError(400, str(exc)) from None


def check_headers(headers: Mapping[str, str], settings: EventSettings) -> None:
    """Check what can be checked before the body is read.

    :param headers: their names in small letters.
    :raises RefusedPostError: 401 without the token, 415 for what is not JSON, 413 for what says
        that it is too large.
    """
    _check_token(headers.get("authorization", ""), settings)
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise RefusedPostError(415, "The content type must be application/json.")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise RefusedPostError(400, "The content length must be a number.")
    if len(length) > 15 or int(length) > settings.max_bytes:
        raise _too_large(settings)


def _check_token(authorization: str, settings: EventSettings) -> None:
    if settings.token == "":
        return
    scheme, _, given = authorization.partition(" ")
    expected = (settings.token or "").encode()
    is_right = hmac.compare_digest(given.strip().encode(errors="replace"), expected)
    if not (expected and is_right and scheme.lower() == "bearer"):
        raise RefusedPostError(
            401,
            f"Send the header 'Authorization: Bearer <token>'. The token is {TOKEN_VARIABLE} of the "
            "cluster's nodes, or what 'rayworkflow event-token' prints.",
            {"www-authenticate": "Bearer"},
        )


def _too_large(settings: EventSettings) -> RefusedPostError:
    message = f"An event may have {settings.max_bytes} bytes ({MAX_BYTES_VARIABLE})."
    # The rest of the body is not read, so the connection can't be used again.
    return RefusedPostError(413, message, {"connection": "close"})


class Body:
    """The body of a POST, piece by piece; holds no more than its limit."""

    def __init__(self, settings: EventSettings) -> None:
        self._settings = settings
        self._content = bytearray()

    def add(self, piece: bytes) -> None:
        """Take the next piece.

        :raises RefusedPostError: 413 when the body has become too large.
        """
        if len(self._content) + len(piece) > self._settings.max_bytes:
            raise _too_large(self._settings)
        self._content += piece

    def read_event(self) -> tuple[str, Any]:
        """The event's key and payload.

        :raises RefusedPostError: 400 when it is no event.
        """
        try:
            body = json.loads(self._content.decode(), parse_constant=_refuse_constant)
            key, payload = body["event_key"], body["event_payload"]
            json.dumps(payload, allow_nan=False)  # 1e999 is read as infinity
        except (ValueError, KeyError, TypeError):
            raise RefusedPostError(400, _FORM) from None
        except RecursionError:
            raise _too_deep() from None
        if is_nested_deeper(payload, _MAX_DEPTH):
            raise _too_deep()
        try:
            return check_event_key(key), payload
        except (TypeError, ValueError) as exc:
            raise RefusedPostError(400, str(exc)) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _too_deep() -> RefusedPostError:
    return RefusedPostError(400, f"The payload has more than {_MAX_DEPTH} levels.")


def check_event_key(key: Any) -> str:
    """Return the key if an event can have it.

    :raises TypeError: when it is not a string.
    :raises ValueError: when it is empty, too long, or has a control character or a lone surrogate.
    """
    if not isinstance(key, str):
        raise TypeError(f"event_key must be text, not {key!r:.80}.")
    if not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise ValueError(f"event_key must have 1 to {MAX_KEY_LENGTH} characters, not {len(key)}.")
    bad = next((char for char in key if unicodedata.category(char) in ("Cc", "Cs")), None)
    if bad is not None:
        raise ValueError(f"event_key must have printable characters only, not {bad!r}.")
    return key
