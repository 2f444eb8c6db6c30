"""From a pyarrow file system, which knows URIs and options, to a store of ours.

pyarrow reads the URI, so that everything that it takes works here. For S3, Azure and Google its
options are then handed to obstore, which can write conditionally.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

from airflow_provider_rayworkflow.workflow.storage import shown
from airflow_provider_rayworkflow.workflow.storage.backends.arrow import ArrowStore
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.backends.objects import ObjectStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store
    from pyarrow.fs import FileSystem

Options = dict[str, Any]

_CONNECT_S = 5
#: How long one request may take in all: of a large value, it is the download.
_REQUEST_S = 3600


def store_on(
    filesystem: FileSystem, root: str, *, location: str, silence_s: float = 30.0
) -> ByteStore:
    """The best store for a pyarrow file system.

    :param location: what opens the same storage elsewhere.
    :param silence_s: how long a server may say nothing.
    :raises ValueError: for an object store without a bucket or container.
    """
    while filesystem.type_name == "subtree":
        root = f"{filesystem.base_path.rstrip('/')}/{root.strip('/')}".rstrip("/")
        filesystem = filesystem.base_fs
    if (folder := _local_folder(filesystem, root)) is not None:
        return LocalStore(folder, location=location)
    bucket, _, prefix = root.strip("/").partition("/")
    if filesystem.type_name in _MAKERS and not bucket:
        # Else the first folder of our own keys would be taken for the bucket: another owner's.
        raise ValueError(
            f"The workflow storage {shown(location)!r} can't be used: it names no bucket or container."
        )
    # A cluster may lack obstore; pyarrow reads and writes the same objects.
    make = _MAKERS.get(filesystem.type_name) if find_spec("obstore") else None
    options = {**_options(filesystem), **_azure_secrets(location)} if make else {}
    options["silence_s"] = silence_s
    connect = make(bucket, options) if make and bucket else None
    if connect is None:
        return ArrowStore(filesystem, root, location=location)
    return ObjectStore(connect, prefix, location=location)


def _local_folder(filesystem: FileSystem, root: str) -> str | None:
    """The path of what is a folder of this machine, None for anything else.

    :raises ValueError: when it is the whole machine, or depends on the working directory.
    """
    if filesystem.type_name != "local":
        inner: Any = getattr(getattr(filesystem, "handler", None), "fs", None)
        while hasattr(inner, "fs"):  # fsspec's folder of another one
            root = f"{str(inner.path).rstrip('/')}/{root}".rstrip("/")
            inner = inner.fs
        if "file" not in getattr(inner, "protocol", ()):
            return None
    if not os.path.isabs(root):
        raise ValueError(
            f"The local file system that was given names no folder, but {root!r}. Give an absolute "
            "path, or a SubTreeFileSystem or DirFileSystem of one."
        )
    return root


def _options(filesystem: FileSystem) -> Options:
    """What the file system was made with: what it would be pickled with."""
    (options,) = filesystem.__reduce__()[1]
    return dict(options)


def _s3(bucket: str, options: Options) -> Callable[[bool], S3Store] | None:
    if options["role_arn"]:
        return None  # obstore assumes roles by web identity only
    endpoint, scheme = options["endpoint_override"], options["scheme"] or "https"
    if "://" in endpoint:
        scheme = endpoint.partition("://")[0]
    elif endpoint:
        endpoint = f"{scheme}://{endpoint}"
    config: Options = {
        "access_key_id": options["access_key"],
        "secret_access_key": options["secret_key"],
        "session_token": options["session_token"],
        "region": options["region"],
        "skip_signature": options["anonymous"] or None,
    }
    if options["force_virtual_addressing"]:
        config["virtual_hosted_style_request"] = True
        endpoint = endpoint and endpoint.replace("://", f"://{bucket}.", 1)
    config["endpoint"] = endpoint
    given = {name: value for name, value in config.items() if value}
    if not options["access_key"] and not options["anonymous"]:
        given = {**_aws_profile(), **given}

    def connect(deletes_many: bool) -> S3Store:
        from obstore.store import S3Store

        given["disable_bulk_delete"] = not deletes_many
        return S3Store(bucket, config=cast(Any, given), **_how(scheme, options))

    return connect


def _azure(container: str, options: Options) -> Callable[[bool], AzureStore] | None:
    account, authority = options["account_name"], options["blob_storage_authority"]
    scheme = options["blob_storage_scheme"] or "https"
    host = f"{account}{authority}" if authority.startswith(".") else f"{authority}/{account}"
    config = {
        "account_name": account,
        "account_key": options["account_key"],
        "sas_key": options["sas_token"],
        "client_id": options["client_id"],
        "client_secret": options["client_secret"],
        "tenant_id": options["tenant_id"],
        "endpoint": f"{scheme}://{host}",
    }
    given = {name: value for name, value in config.items() if value}

    def connect(deletes_many: bool) -> AzureStore:
        from obstore.store import AzureStore

        return AzureStore(container, config=cast(Any, given), **_how(scheme, options))

    return connect


def _azure_secrets(location: str) -> Options:
    """What a URI says and pyarrow keeps to itself."""
    if not location.startswith("abfs"):
        return {}
    parts = urlsplit(location)
    said = parse_qs(parts.query)
    secrets: Options = {
        name: said[name][-1] for name in ("client_id", "client_secret", "tenant_id") if name in said
    }
    return {**secrets, "account_key": unquote(parts.password)} if parts.password else secrets


def _google(bucket: str, options: Options) -> Callable[[bool], GCSStore] | None:
    special = ("anonymous", "access_token", "target_service_account", "endpoint_override")
    if any(options[name] for name in special):
        return None  # emulators serve pyarrow's protocol, not obstore's

    def connect(deletes_many: bool) -> GCSStore:
        from obstore.store import GCSStore

        return GCSStore(bucket, **_how("https", options))

    return connect


_MAKERS: dict[str, Callable[[str, Options], Callable[[bool], Any] | None]] = {
    "s3": _s3,
    "abfs": _azure,
    "gcs": _google,
}


def _how(scheme: str, options: Options) -> Options:
    """Time limits, certificate and proxy of a client, without retries: ``RetryingStore`` makes those."""
    client: Options = {
        "allow_http": scheme == "http",
        "connect_timeout": timedelta(seconds=_CONNECT_S),
        "read_timeout": timedelta(seconds=options["silence_s"]),
        "timeout": timedelta(seconds=_REQUEST_S),
    }
    if ca := options.get("tls_ca_file_path"):
        client["root_certificate"] = Path(ca).read_bytes()
    proxy = options.get("proxy_options") or {}
    if proxy.get("host"):
        user = f"{proxy['username']}:{proxy['password']}@" if proxy["username"] else ""
        client["proxy_url"] = f"{proxy['scheme']}://{user}{proxy['host']}:{proxy['port']}"
    return {"client_options": client, "retry_config": {"max_retries": 0}}


def _aws_profile() -> dict[str, str]:
    """Keys from the user's AWS files, which obstore does not read; the environment goes before."""
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return {}
    name = os.environ.get("AWS_PROFILE") or "default"
    path = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws/credentials"
    files = configparser.RawConfigParser()
    with suppress(OSError, configparser.Error):
        files.read(path)
    if not files.has_option(name, "aws_access_key_id"):
        return {}
    names = ("access_key_id", "secret_access_key", "session_token")
    found = {short: files.get(name, f"aws_{short}", fallback="") for short in names}
    return {short: value for short, value in found.items() if value}
