"""Which local Ray is meant: that of this machine, this user and this Python environment."""

from __future__ import annotations

import hashlib
import hmac
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path

import airflow_provider_rayworkflow
from airflow_provider_rayworkflow import __version__
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys, or_environment
from airflow_provider_rayworkflow.workflow.local_ray.errors import LocalRayError
from airflow_provider_rayworkflow.workflow.storage.leases import Process

#: The folder of the states, in place of the default one.
FOLDER_VARIABLE = "RAY_WORKFLOW_LOCAL_FOLDER"

_SHOWN_CHARACTERS = 12


def environment_name(signing: SigningKeys | None = None) -> str:
    """The name of the folder of this process's local Ray: ``"py3.11.9-ray2.60.0-<12 hexadecimal digits>"``.

    Two processes of a user share one if they have the same Python environment and versions, namespaces of
    processes and of time (a container has a local Ray of its own), and signing keys: these are in the
    environment of all processes of a Ray.

    :param signing: None for the keys of the environment.
    :raises LocalRayError: when Ray is not installed.
    """
    try:
        ray = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        raise LocalRayError(
            f"Ray is not installed in {sys.prefix!r}: pip install 'ray[default]'."
        ) from None
    keys = or_environment(signing).keys
    common = {
        "prefix": os.path.realpath(sys.prefix),
        "package": __version__,
        # Checkouts of one version may share an environment.
        "code": str(Path(airflow_provider_rayworkflow.__file__).resolve().parent),
        # Without the boot: its end has to be noticed.
        "namespaces": Process.current().machine.partition("/")[2],
        "keys": hmac.digest(b"\0".join(keys), b"local Ray", "sha256").hex() if keys else "",
    }
    digest = hashlib.sha256(json.dumps(common, sort_keys=True).encode()).hexdigest()
    return f"py{platform.python_version()}-ray{ray}-{digest[:_SHOWN_CHARACTERS]}"


def state_root() -> str:
    """The folder in which this user's states lie, a folder for each environment.

    ``/tmp/rayworkflow-<uid>``, unless :data:`FOLDER_VARIABLE` names another one. It must be on a
    file system of this machine alone, and the same for all processes that shall share a Ray.

    :raises LocalRayError: for a relative path.
    """
    given = os.environ.get(FOLDER_VARIABLE)
    if given and not os.path.isabs(given):
        raise LocalRayError(f"{FOLDER_VARIABLE} is {given!r}. Give an absolute path.")
    return os.path.normpath(given) if given else f"/tmp/rayworkflow-{os.geteuid()}"
