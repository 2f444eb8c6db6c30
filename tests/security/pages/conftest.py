"""A real API server of Airflow, and storages of every bad kind behind its connections."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

_AIRFLOW = Path(__file__).parents[2] / "airflow"
_UI = _AIRFLOW / "ui"
sys.path += [str(folder) for folder in (_AIRFLOW, _UI) if str(folder) not in sys.path]

from dag_test import connection  # noqa: E402
from live_airflow import LiveAirflow  # noqa: E402
from server import USERS  # noqa: E402

#: What a service inside the network says, that no user of Airflow may read.
INTERNAL = "the-internal-answer"


class Silent:
    """Accepts connections, and stays silent."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.port: int = self._socket.getsockname()[1]
        self.accepted: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self.accepted.append(self._socket.accept()[0])
            except OSError:
                return  # closed

    def close(self) -> None:
        self._socket.close()
        for one in list(self.accepted):
            one.close()


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"<Error><Code>{INTERNAL}</Code><Message>{INTERNAL}</Message></Error>".encode()
        self.send_response(int(self.path.split("/")[1][-3:]))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_PUT = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def silent() -> Iterator[Silent]:
    with closing(Silent()) as silent:
        yield silent


@pytest.fixture(scope="session")
def answering() -> Iterator[int]:
    """The port of a server that answers each request with the status that ends its bucket's name."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a good storage."""
    return tmp_path_factory.mktemp("stored") / "storage"


@pytest.fixture(scope="session")
def airflow(
    root: Path, silent: Silent, answering: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveAirflow]:
    home = tmp_path_factory.mktemp("airflow")
    database = _database(tmp_path_factory.mktemp("database"))
    passwords = home / "simple_auth_manager_passwords.json.generated"
    passwords.write_text(json.dumps({name: name for name in USERS}))
    (no_folder := home / "a-file").write_text("no folder")
    storages = {
        "RAY": str(root),
        "NO_FOLDER": f"{no_folder}/below",
        "SILENT": _s3("bucket", silent.port),
        "BUSY": _s3("bucket-503", answering),
        "INTERNAL": _s3("bucket-403", answering),
        "INTERNAL_HTML": _s3("bucket-200", answering),
    }
    airflow = LiveAirflow(
        home,
        {
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__AUTH_MANAGER": "dag_rights.DagRights",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
                f"{name}:{role}" for name, role in USERS.items()
            ),
            "PYTHONPATH": os.pathsep.join([str(_UI), os.environ.get("PYTHONPATH", "")]),
            "no_proxy": "localhost,127.0.0.1",
        }
        | {f"AIRFLOW_CONN_{name}": connection(storage=uri) for name, uri in storages.items()},
        has_scheduler=False,
        user=("admin", "admin"),
    )
    with airflow.started(database):
        yield airflow


def _s3(bucket: str, port: int) -> str:
    options = f"endpoint_override=http%3A%2F%2F127.0.0.1%3A{port}&region=us-east-1"
    return f"s3://key:s3cr3t-of-storage@{bucket}/x?{options}"


def _database(home: Path) -> Path:
    """An Airflow database with its tables."""
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        env=os.environ
        | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        },
        check=True,
        timeout=300,
        stdout=subprocess.DEVNULL,
    )
    return Path(shutil.copy(home / "airflow.db", home / "made.db"))
