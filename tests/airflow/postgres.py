"""A PostgreSQL server of Debian's package, as an ordinary user, for one Airflow."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import processes
import psycopg2
import pytest
from live_airflow import free_port, wait_for

# The server keeps nothing that has to survive a loss of power.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}


@contextmanager
def postgres() -> Iterator[str]:
    """A server with one empty database; gives its address for Airflow.

    The test is skipped where PostgreSQL is not installed.
    """
    programs = _programs()
    if programs is None:
        pytest.skip("postgresql is not installed: `make postgres` does it, on Debian")
    user = _ordinary_user()
    # Not below pytest's folder, which is root's alone where root runs the tests.
    folder = Path(tempfile.mkdtemp(prefix="rayworkflow-postgres-"))
    try:
        password = secrets.token_hex(16)
        (folder / "password").write_text(password)
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, user=user["user"], group=user["group"])
        data, port = folder / "data", free_port()
        subprocess.run(
            [
                *(programs / "initdb", "--pgdata", data, "--username", "airflow", "--no-sync"),
                *("--auth", "scram-sha-256", "--pwfile", folder / "password"),
                *("--encoding", "UTF8", "--locale", "C"),
            ],
            check=True,
            timeout=300,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            **user,
        )
        flags = [f"-c{name}={value}" for name, value in _SETTINGS.items()]
        flags += [f"-cport={port}", f"-cunix_socket_directories={folder}"]
        with (folder / "server.log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, *flags],
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                **user,
            )
        try:
            address = f"airflow:{password}@127.0.0.1:{port}/postgres"
            wait_for("PostgreSQL", lambda: _answers(f"postgresql://{address}", server, folder))
            yield f"postgresql+psycopg2://{address}"
        finally:
            processes.end([server])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    """The folder of the server's programs, which Debian puts into none of the PATH."""
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    found = shutil.which("initdb")
    folders += [Path(found).parent] if found else []
    return max(folders, default=None)


def _ordinary_user() -> dict[str, Any]:
    """As whom to start it: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name: entry.pw_gid for entry in pwd.getpwall()}
    user = "postgres" if "postgres" in names else "nobody"
    return {"user": user, "group": names[user], "extra_groups": []}


def _answers(address: str, server: subprocess.Popen[bytes], folder: Path) -> bool:
    if server.poll() is not None:
        raise RuntimeError((folder / "server.log").read_text())
    try:
        psycopg2.connect(address).close()
    except psycopg2.OperationalError:
        return False
    return True
