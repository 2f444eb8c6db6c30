"""Ordinary users of one machine, who share its ``/tmp``."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import airflow_provider_rayworkflow

ATTACKER, VICTIM = 60_001, 60_002

# What a user runs sees our folder as its /tmp, and Python where every user may read it.
_ENTER = """
mount --bind "$1" /tmp
mkdir -p /tmp/python
mount --bind "$2" /tmp/python
user="$3"
shift 3
exec setpriv --reuid "$user" --regid "$user" --clear-groups "$@"
"""


@dataclass(frozen=True)
class Users:
    """Runs programs as one user or another, each in a process of its own.

    :ivar tmp: their ``/tmp``, seen from here.
    """

    tmp: Path

    def run(
        self, user: int, code: str, *arguments: str, timeout_s: float = 120, umask: int = 0o022
    ) -> subprocess.CompletedProcess[str]:
        """Run Python code."""
        return self._enter(user, ["-c", code, *arguments], timeout_s, umask)

    def command(
        self, user: int, *arguments: str, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run ``rayworkflow``."""
        module = "airflow_provider_rayworkflow.workflow.cli"
        return self._enter(user, ["-m", module, *arguments], timeout_s, 0o022)

    def _enter(
        self, user: int, arguments: list[str], timeout_s: float, umask: int
    ) -> subprocess.CompletedProcess[str]:
        python = f"/tmp/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
        unshare = ["unshare", "--mount", "--propagation", "private"]
        enter = ["sh", "-ec", _ENTER, "sh", str(self.tmp), sys.base_prefix, str(user)]
        return subprocess.run(
            [*unshare, *enter, python, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            umask=umask,
            cwd="/",
            env={
                "PATH": os.environ["PATH"],
                "HOME": f"/tmp/home-{user}",
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONPATH": os.pathsep.join(_PYTHON_PATH),
            },
        )


_PYTHON_PATH = (
    sysconfig.get_path("purelib"),
    str(Path(airflow_provider_rayworkflow.__path__[0]).parent),
)


def why_not(users: Users) -> str:
    """Why there can be no users here, ``""`` if there can."""
    if os.geteuid() != 0:
        return "only root can become two users"
    if missing := [name for name in ("unshare", "setpriv", "mount") if which(name) is None]:
        return f"{', '.join(missing)} is missing"
    for user in (ATTACKER, VICTIM):
        tried = users.run(user, "import airflow_provider_rayworkflow.workflow.cli")
        if tried.returncode:
            return f"a user can't run Python here: {tried.stderr[-300:]}"
    return ""
