"""What a connection of type ``ray_workflow`` may say."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import Connection
from airflow.sdk.log import mask_secret

from airflow_provider_rayworkflow.exceptions import RayWorkflowConnectionError
from airflow_provider_rayworkflow.workflow.model.retention import PRUNABLE, check_retention
from airflow_provider_rayworkflow.workflow.storage import shown

Json = dict[str, Any]

_LEAST_OBJECT_STORE_MB = 80  # Ray takes no less
_DEFAULT_TIMEOUT_S = 30.0
#: How long the local Ray stays when nothing is left to do.
DEFAULT_LOCAL_IDLE_S = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """How a remote Ray cluster is reached.

    :ivar address: URL of its dashboard, where the Jobs API is.
    :ivar token: the password, Ray's authentication token; ``""`` for what :mod:`.tokens` finds.
    :ivar verify: check the server's TLS certificate.
    :ivar ca: path of a bundle of trusted certificates, None for the machine's own.
    :ivar headers: sent with every request, beside the token.
    :ivar timeout_s: of one request.
    """

    address: str
    token: str = field(default="", repr=False)
    verify: bool = True
    ca: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = _DEFAULT_TIMEOUT_S

    @property
    def all_headers(self) -> dict[str, str]:
        """The headers of a request that the connection itself gives, with its token."""
        token = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {**self.headers, **token}


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionSettings:
    """What a connection says; None where it says nothing.

    :ivar cluster: the Ray cluster to run workflows on; None for the local Ray of the machine.
    :ivar storage: absolute path or URI where workflows are stored.
    :ivar storage_conn_id: another connection, with whose credentials Airflow's side reaches it.
    :ivar namespace: stands before the ids of workflows that are made from task instances.
    :ivar retention: for how many days managers keep ended workflows, by status; empty for ever.
    :ivar num_cpus: how many CPUs the local Ray may use.
    :ivar num_gpus: how many GPUs the local Ray may use.
    :ivar object_store_memory_mb: shared memory of the local Ray for values that pass between
        workflow tasks.
    :ivar local_idle_s: how long the local Ray stays when nothing is left to do.
    :ivar signing_secret: see :data:`SIGNING_KEY_VARIABLE`.
    """

    cluster: Cluster | None = None
    storage: str | None = field(default=None, repr=False)
    storage_conn_id: str | None = None
    namespace: str | None = None
    retention: Mapping[str, float] = field(default_factory=dict)
    num_cpus: int | None = None
    num_gpus: int | None = None
    object_store_memory_mb: int | None = None
    local_idle_s: float = DEFAULT_LOCAL_IDLE_S
    signing_secret: str | None = field(default=None, repr=False)

    @classmethod
    def from_connection(cls, connection: Connection) -> ConnectionSettings:
        """Read a connection.

        :raises RayWorkflowConnectionError: for a host that is no URL, for extras that are
            unknown, of a wrong type or without effect, for what can't be sent in a header, and
            where a cluster lacks a storage of its own.
        """
        conn_id = connection.conn_id
        extras = _read_extras(conn_id, _extra_of(connection))
        _check_used(connection, extras)
        cluster = _read_cluster(connection, extras) if connection.host else None
        storage = extras.get("storage")
        if cluster is not None:
            _check_remote_storage(conn_id, storage)
        if storage is None and "storage_conn_id" in extras:
            raise RayWorkflowConnectionError(
                f"The connection {conn_id!r} has a storage_conn_id and no storage. Give the extra "
                "'storage', for example s3://bucket/prefix."
            )
        if secret := extras.get("signing_secret"):
            mask_secret(secret)
        # Each other extra is a field of its name.
        own = {name: value for name, value in extras.items() if name not in _OF_CLUSTER}
        return cls(cluster=cluster, **own)


def _extra_of(connection: Connection) -> Json:
    """The extra, which Airflow takes for empty if it can't read it."""
    try:
        extra = json.loads(connection.extra or "{}") or {}
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise RayWorkflowConnectionError(
            f"The connection {connection.conn_id!r} has an extra that is no JSON object. Give its "
            'settings as one, for example {"storage": "s3://bucket/prefix"}.'
        )
    mask_secret(extra)
    return extra


def _check_used(connection: Connection, extras: Json) -> None:
    """Return if each setting has an effect."""
    fields = {name: getattr(connection, name) for name in ("login", "schema", "port", "password")}
    if connection.host:
        unused: list[str] = [
            name for name, value in _OF_LOCAL_RAY.items() if extras.get(name, value) != value
        ]
        if fields["login"]:
            unused.insert(0, "login")
        why = "a host, so that Ray runs on that cluster"
        remedy = "Leave it out; the cluster's token is the password"
    else:
        unused = [name for name, value in fields.items() if value]
        unused += [name for name, value in _OF_CLUSTER.items() if extras.get(name, value) != value]
        why = "no host, so that workflows run on the local Ray of the machine"
        remedy = "Leave it out, or give the host, for example http://ray-head:8265"
    if unused:
        raise RayWorkflowConnectionError(
            f"The connection {connection.conn_id!r} has {why}, and there it has no use for "
            f"{' and '.join(unused)}. {remedy}."
        )


def _read_extras(conn_id: str, given: Json) -> Json:
    values: Json = {}
    for name, value in given.items():
        if name not in EXTRAS:
            raise RayWorkflowConnectionError(
                f"The connection {conn_id!r} has the unknown extra {name!r}. "
                f"Known ones are {list(EXTRAS)}."
            )
        if value not in (None, ""):
            expected, read = EXTRAS[name]
            try:
                values[name] = read(value)
            except (TypeError, ValueError):
                is_shown = name == "retention" or (
                    name not in _SECRET and isinstance(value, (str, int, float))
                )
                raise RayWorkflowConnectionError(
                    f"The connection {conn_id!r} has the extra "
                    f"{name}={f'{value!r:.200}' if is_shown else '***'}; it must be {expected}."
                ) from None
    return values


def _read_cluster(connection: Connection, extras: Json) -> Cluster:
    conn_id, ca = connection.conn_id, extras.get("ca")
    if ca is not None:
        _check_ca(conn_id, ca)
    headers, token = extras.get("headers", {}), _token(conn_id, connection.password or "")
    for secret in headers.values():
        mask_secret(secret)
    if token and any(name.lower() == "authorization" for name in headers):
        raise RayWorkflowConnectionError(
            f"The connection {conn_id!r} has a password and a header Authorization, of which only "
            "one can be sent. Leave one of them out."
        )
    address = _address(conn_id, connection.host or "", connection.port, connection.schema or "")
    given = {name: value for name, value in extras.items() if name in _OF_CLUSTER}
    return Cluster(address=address, token=token, **given)


def _token(conn_id: str, password: str) -> str:
    """The password as a token: an end of line behind it is of the file that it was kept in."""
    token = password.strip()
    if not all("!" <= character <= "~" for character in token):
        raise RayWorkflowConnectionError(
            f"The connection {conn_id!r} has a password that can't be the cluster's token: it has "
            "a space, a line break or a character that is not ASCII. Give the token alone, "
            'without "Bearer" before it.'
        )
    mask_secret(token)
    return token


def _address(conn_id: str, host: str, port: int | None, path: str) -> str:
    try:
        parts = urlsplit(host)
        own_port = parts.port
    except ValueError:
        raise _wrong_host(conn_id, "it is no URL") from None
    if parts.username or parts.password:
        raise _wrong_host(conn_id, "it has a user or password; put the token into the password")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown_host = "it" if "@" in host else repr(host)  # what stands before that may be a secret
        raise _wrong_host(conn_id, f"{shown_host} does not begin with http:// or https://")
    if parts.query or parts.fragment:
        raise _wrong_host(conn_id, "it has a query")
    if "?" in path or "#" in path:
        raise _wrong_host(conn_id, "the path behind it (the connection's schema) has a query")
    if port and own_port and port != own_port:
        raise _wrong_host(conn_id, f"it has the port {own_port}, and the port field {port}")
    netloc = parts.netloc if own_port or not port else f"{parts.netloc}:{port}"
    # In a connection that is a URI, what stands behind the port is its schema.
    folders = [folder.strip("/") for folder in (parts.path, path) if folder.strip("/")]
    return "/".join([f"{parts.scheme}://{netloc}", *folders])


def _check_ca(conn_id: str, ca: str) -> None:
    try:
        ssl.create_default_context(cafile=ca)
    except OSError as exc:  # ssl.SSLError is one
        raise RayWorkflowConnectionError(
            f"The connection {conn_id!r} has the extra ca={ca!r}, which can't be used: {exc}."
        ) from exc


def _check_remote_storage(conn_id: str, storage: str | None) -> None:
    if storage is None:
        raise RayWorkflowConnectionError(
            f"The connection {conn_id!r} has a host and no storage. Give the extra 'storage': a "
            "URI such as s3://bucket/prefix, or the path of a shared folder, which Airflow's "
            "machines and the cluster both see."
        )
    if shown(storage) != storage:
        raise RayWorkflowConnectionError(
            f"The connection {conn_id!r} has credentials in its storage {shown(storage)!r}. The "
            "cluster's dashboard would show them. Leave them out of the URI; give them to both "
            "sides by their environments (roles, or variables such as AWS_ACCESS_KEY_ID)."
        )


def _wrong_host(conn_id: str, problem: str) -> RayWorkflowConnectionError:
    return RayWorkflowConnectionError(
        f"The connection {conn_id!r} has a host that can't be used: {problem}. Give the URL of "
        "the cluster's dashboard, for example http://ray-head:8265, or leave the host empty to "
        "run workflows on the local Ray of the machine."
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _flag(value: Any) -> bool:
    if isinstance(value, str):  # a connection that was given as a URI
        value = {"true": True, "false": False}.get(value.lower())
    if type(value) is not bool:
        raise TypeError
    return value


def _whole_number(least: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, str) and value.isdecimal():  # a connection that was given as a URI
            value = int(value)
        if type(value) is not int or value < least:
            raise ValueError
        return value

    return read


def _seconds(value: Any) -> float:
    if not (seconds := _seconds_from_zero(value)):
        raise ValueError
    return seconds


def _seconds_from_zero(value: Any) -> float:
    """Seconds; 0 for no time at all."""
    if isinstance(value, bool):
        raise TypeError
    seconds = float(value)
    if not 0 <= seconds < float("inf"):
        raise ValueError
    return seconds


def _retention(value: Any) -> dict[str, float]:
    return check_retention(json.loads(value) if isinstance(value, str) else value)


def _headers(value: Any) -> dict[str, str]:
    headers = json.loads(value) if isinstance(value, str) else value
    if not isinstance(headers, dict):
        raise TypeError
    for name, text in headers.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_TEXT.fullmatch(text.strip()):
            raise ValueError
    return {name: text.strip() for name, text in headers.items()}


_HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_HEADER_TEXT = re.compile(r"[\t -~]*")


#: Each extra, what it must be, and how it is read.
EXTRAS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "storage": ("a path or URI", _text),
    "storage_conn_id": ("the name of a connection", _text),
    "namespace": ("text", _text),
    "signing_secret": ("text", _text),
    "retention": (
        f"a JSON object of days above 0 by status ({', '.join(PRUNABLE)}), such as "
        '{"SUCCESSFUL": 30, "FAILED": 90}',
        _retention,
    ),
    "num_cpus": ("a whole number of at least 1", _whole_number(1)),
    "num_gpus": ("a whole number of at least 0", _whole_number(0)),
    "object_store_memory_mb": (
        f"a whole number of at least {_LEAST_OBJECT_STORE_MB}",
        _whole_number(_LEAST_OBJECT_STORE_MB),
    ),
    "local_idle_s": ("a number of seconds of at least 0", _seconds_from_zero),
    "verify": ("true or false", _flag),
    "ca": ("the path of a file with certificates", _text),
    "headers": ("a JSON object of texts that are ASCII and have no line breaks", _headers),
    "timeout_s": ("a number of seconds of more than 0", _seconds),
}

_SECRET = frozenset({"headers", "signing_secret"})
# What is of one of the two only, with the value that the form gives it: that says nothing.
_OF_CLUSTER = {"verify": True, "ca": None, "headers": None, "timeout_s": _DEFAULT_TIMEOUT_S}
_OF_LOCAL_RAY = {
    "num_cpus": None,
    "num_gpus": None,
    "object_store_memory_mb": None,
    "local_idle_s": DEFAULT_LOCAL_IDLE_S,
}
