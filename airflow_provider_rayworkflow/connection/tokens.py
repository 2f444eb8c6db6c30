"""Ray's authentication token, found where Ray finds it.

Ray 2.60 authenticates by default. Its own rules, in ``AuthenticationTokenLoader`` (C++) and
``ray._private.authentication``: the variable ``RAY_AUTH_TOKEN``, else the first line of the file that
``RAY_AUTH_TOKEN_PATH`` names, else that of ``~/.ray/auth_token``; with ``RAY_AUTH_MODE=disabled`` no
client sends one. They are repeated here, as reading a file needs no import of Ray.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from airflow.sdk.log import mask_secret

from airflow_provider_rayworkflow.exceptions import RayWorkflowConnectionError

MODE_VARIABLE = "RAY_AUTH_MODE"
TOKEN_VARIABLE = "RAY_AUTH_TOKEN"
PATH_VARIABLE = "RAY_AUTH_TOKEN_PATH"

#: What a message says about the places where a token can be.
PLACES = (
    f"the connection's password, the environment variable {TOKEN_VARIABLE}, a file that "
    f"{PATH_VARIABLE} names, or ~/.ray/auth_token"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A token, ``""`` for none.

    :ivar source: where it was found, for messages; of no token, why it is missing.
    """

    value: str = field(repr=False)
    source: str


def token_for(password: str, headers: Mapping[str, str]) -> Token:
    """The token that a connection sends.

    :param password: the connection's, which goes before all else.
    :param headers: the connection's; it may have an authorization of its own among them.
    :raises RayWorkflowConnectionError: when the environment names a token that can't be used.
    """
    if password:
        return Token(value=password, source="the connection's password")
    for name in headers:
        if name.lower() in ("authorization", "x-ray-authorization"):
            return Token(value="", source=f"the connection's header {name!r}")
    return find_token()


def find_token() -> Token:
    """The token of this process's environment.

    :raises RayWorkflowConnectionError: when it names a token that can't be used.
    """
    if os.environ.get(MODE_VARIABLE, "").lower() == "disabled":
        return Token(value="", source=f"{MODE_VARIABLE}=disabled")
    if given := os.environ.get(TOKEN_VARIABLE):
        return _checked(given, f"the environment variable {TOKEN_VARIABLE}")
    if path := os.environ.get(PATH_VARIABLE):
        source = f"the file {path!r} that {PATH_VARIABLE} names"
        token = _checked(_first_line(Path(path), source), source)
        if not token.value:
            raise RayWorkflowConnectionError(f"Ray's token can't be read: {source} is empty.")
        return token
    default = Path(os.path.expanduser("~"), ".ray", "auth_token")
    if os.path.isfile(default) and os.access(default, os.R_OK):
        source = f"the file {str(default)!r}"
        return _checked(_first_line(default, source), source)
    return Token(value="", source=f"none is in {PLACES}")


def _first_line(path: Path, source: str) -> str:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            return file.readline()
    except OSError as exc:
        raise RayWorkflowConnectionError(
            f"Ray's token can't be read from {source}: {exc.strerror or exc}."
        ) from exc


def _checked(given: str, source: str) -> Token:
    value = given.strip()
    if not value.isascii() or not value.isprintable():
        raise RayWorkflowConnectionError(
            f"Ray's token from {source} has characters that no token has. Write it anew, as plain "
            "ASCII text in one line."
        )
    if value:
        mask_secret(value)
    return Token(value=value, source=source)
