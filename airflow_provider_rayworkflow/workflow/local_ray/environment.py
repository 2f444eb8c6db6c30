"""Which local Ray is meant: that of this machine, this user and this Python environment."""

from __future__ import annotations

import hashlib
import hmac
import importlib.metadata
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import airflow_provider_rayworkflow
from airflow_provider_rayworkflow import __version__
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys, or_environment
from airflow_provider_rayworkflow.workflow.local_ray.errors import LocalRayError
from airflow_provider_rayworkflow.workflow.storage.leases import Process

#: The folder of the states, in place of the default one.
FOLDER_VARIABLE = "RAY_WORKFLOW_LOCAL_FOLDER"

_SHOWN_CHARACTERS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class PythonEnvironment:
    """What two processes of a user must have in common to share a local Ray.

    :ivar prefix: ``sys.prefix``, the folder of the environment.
    :ivar code: the folder of this package: checkouts of one version may share an environment.
    :ivar namespaces: those of processes and of time: a container has a local Ray of its own.
    :ivar keys: a digest of the signing keys, ``""`` without any. They are in the environment of all
        processes of a Ray, so one Ray has one set of them.
    """

    prefix: str
    python: str
    ray: str
    package: str
    code: str
    namespaces: str
    keys: str

    @classmethod
    def current(cls, signing: SigningKeys | None = None) -> PythonEnvironment:
        """That of this process.

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
        machine = Process.current().machine
        return cls(
            prefix=os.path.realpath(sys.prefix),
            python=platform.python_version(),
            ray=ray,
            package=__version__,
            code=str(Path(airflow_provider_rayworkflow.__file__).resolve().parent),
            namespaces=machine.partition("/")[2],  # without the boot: its end has to be noticed
            keys=hmac.digest(b"\0".join(keys), b"local Ray", "sha256").hex() if keys else "",
        )

    @property
    def name(self) -> str:
        """The name of its folder: ``"py3.11.9-ray2.60.0-<12 hexadecimal digits>"``."""
        content = json.dumps(asdict(self), sort_keys=True).encode()
        digest = hashlib.sha256(content).hexdigest()[:_SHOWN_CHARACTERS]
        return f"py{self.python}-ray{self.ray}-{digest}"


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
