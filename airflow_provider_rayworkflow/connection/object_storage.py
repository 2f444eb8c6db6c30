"""Workflow storage with the credentials of another Airflow connection."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_rayworkflow.exceptions import RayWorkflowConnectionError
from airflow_provider_rayworkflow.workflow.storage import ByteStore, open_filesystem, shown
from airflow_provider_rayworkflow.workflow.storage.backends.retrying import RETRY_FOR_S


def filesystem_of(uri: str, storage_conn_id: str) -> Any:
    """The folder that a URI names, as an fsspec file system by Airflow's object storage.

    What stands behind ``?`` in the URI is for the other side: here the connection says it.

    :raises RayWorkflowConnectionError: when Airflow has no such storage or no such connection.
    """
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException
    from airflow.sdk.io import get_fs
    from fsspec.implementations.dirfs import DirFileSystem

    plain = urlsplit(uri)._replace(query="").geturl()
    # pyarrow's form has the account in front of the container; fsspec takes that for the container.
    plain = re.sub(r"^(abfss?://)[^@/]+@([^@/.]+)(?=/|$)", r"\1\2", plain)
    if "://" not in plain:
        raise RayWorkflowConnectionError(
            f"storage_conn_id goes with a URI such as s3://bucket/prefix, not {shown(uri)!r}."
        )
    try:
        BaseHook.get_connection(storage_conn_id)
    except AirflowNotFoundException as exc:
        # Other providers go on with the environment's credentials, or with none.
        raise RayWorkflowConnectionError(
            f"storage_conn_id names the connection {storage_conn_id!r}, which does not exist."
        ) from exc
    try:
        # A new one: what has been used can't be pickled for Ray, and has the connection of that time.
        filesystem = get_fs(urlsplit(plain).scheme, storage_conn_id)
    except Exception as exc:  # the other provider may raise anything
        raise RayWorkflowConnectionError(
            f"The storage {shown(uri)!r} can't be opened with the connection {storage_conn_id!r}: "
            f"{type(exc).__name__}: {exc}. It is opened by Airflow's object storage, for which the "
            "provider of that storage must be installed, for example "
            "apache-airflow-providers-amazon[s3fs]."
        ) from exc
    # Others write here, too: a listing that is remembered would be an old one.
    filesystem.dircache.use_listings_cache = False
    filesystem.dircache.clear()
    return DirFileSystem(path=filesystem._strip_protocol(plain), fs=filesystem)


def filesystem_for_ray(uri: str, storage_conn_id: str) -> Any:
    """The same for Ray's processes: each of its tasks is told of it, so it has to be small.

    :raises RayWorkflowConnectionError: see :func:`filesystem_of`.
    """
    filesystem = filesystem_of(uri, storage_conn_id)
    session: Any = getattr(filesystem.fs, "session", None)
    if hasattr(session, "register_component"):
        from botocore.loaders import Loader

        # Amazon's provider gives all sessions of a process one loader, with the megabytes that it
        # has read of AWS's services.
        session.register_component("data_loader", Loader())
    return filesystem


def open_through_airflow(
    uri: str, storage_conn_id: str, *, retry_for_s: float = RETRY_FOR_S
) -> ByteStore:
    """Open a storage with the credentials of a connection. Nothing is written.

    :param retry_for_s: how long a call is tried again that may work a moment later.
    :raises RayWorkflowConnectionError: see :func:`filesystem_of`.
    """
    filesystem = filesystem_of(uri, storage_conn_id)
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    handler = PyFileSystem(FSSpecHandler(filesystem))
    return open_filesystem(handler, "", location=uri, retry_for_s=retry_for_s)
