"""Airflow's own processes (scheduler, triggerer, API server) and what a person does through the REST API."""

import base64
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import processes
from dag_test import DAGS
from own_local_ray import OwnLocalRay

from airflow_provider_rayworkflow.workflow.local_ray.environment import FOLDER_VARIABLE

T = TypeVar("T")

PATIENCE_S = 600  # a machine that runs other tests as well starts Ray in a minute


def wait_for(what: str, look: Callable[[], T], *, patience_s: float = PATIENCE_S) -> T:
    """Look again and again until there is something."""
    deadline = time.monotonic() + patience_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience_s} s in vain for {what}")
        time.sleep(0.3)  # an answer costs the API server some 20 ms
    return found


class LiveAirflow:
    """A deployment with the LocalExecutor, by default on SQLite. DAGs are read at the start.

    :param has_scheduler: without one, no task runs.
    :param user: name and password; by default all are admins.
    """

    def __init__(
        self,
        home: Path,
        environment: dict[str, str],
        *,
        has_triggerer: bool = False,
        has_scheduler: bool = True,
        user: tuple[str, str] | None = None,
    ) -> None:
        self.home = home
        self._has_triggerer = has_triggerer
        self._has_scheduler = has_scheduler
        self._user = user
        port = free_port()
        self._local_ray = OwnLocalRay()
        self._environment = (
            os.environ | self._local_ray.environment | _settings(home, port) | environment
        )
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=400, trust_env=False
        )
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, database: Path | None) -> None:
        """Start all; ready when this returns.

        :param database: an initialised SQLite database to copy; None if the environment names
            another one, which is initialised here.
        """
        if database is None:
            self._run("db", "migrate")
        else:
            shutil.copy(database, self.home / "airflow.db")
        self._spawn("api-server", "--workers", "1")
        if self._has_scheduler:
            self._spawn("scheduler")
        if self._has_triggerer:
            self._spawn("triggerer")
        self.read_dags()
        wait_for("the API server", self._is_healthy)
        self._client.headers["Authorization"] = f"Bearer {self.token(self._user)}"

    @contextmanager
    def started(self, database: Path | None) -> Iterator[Self]:
        """While this lasts, all is up; see :meth:`start`."""
        try:
            self.start(database)
            yield self
        finally:
            self.stop()

    def read_dags(self) -> None:
        """Read the DAG files, as the DAG processor does all the time."""
        self._run("dags", "reserialize")

    @property
    def local_ray_root(self) -> str:
        """The folder with the state of its tasks' local Ray."""
        return self._local_ray.environment[FOLDER_VARIABLE]

    @property
    def url(self) -> str:
        """Of the API server and its pages."""
        return str(self._client.base_url).rstrip("/")

    def token(self, user: tuple[str, str] | None) -> str:
        """The header that tells the API server which user asks."""
        if user is None:
            answer = self._client.get("/auth/token")
        else:
            credentials = dict(zip(("username", "password"), user, strict=True))
            answer = self._client.post("/auth/token", json=credentials)
        token: str = answer.json()["access_token"]
        return token

    def stop(self) -> None:
        """Stop all, with the tasks that still run and their Ray."""
        self._end(*self._processes)
        self._local_ray.end()
        self._client.close()

    @property
    def api_server(self) -> int:
        """The process of the API server."""
        return self._processes["api-server"].pid

    def stop_one(self, name: str) -> None:
        """End ``"scheduler"`` or ``"triggerer"`` as an operator of Airflow does."""
        self._end(name)

    def start_one(self, name: str, **settings: str) -> None:
        """Start it again.

        :param settings: variables of the environment for it alone.
        """
        self._spawn(name, **settings)

    # ---- what a person does

    def unpause(self, dag_id: str) -> None:
        self._call("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def trigger(self, dag_id: str, run_id: str, **conf: object) -> None:
        """Make a run.

        :param conf: of it, as the form of the UI has it.
        """
        self._call(
            "POST",
            f"/dags/{dag_id}/dagRuns",
            {"dag_run_id": run_id, "logical_date": None, "conf": conf},
        )

    def delete_run(self, dag_id: str, run_id: str) -> None:
        self._call("DELETE", f"/dags/{dag_id}/dagRuns/{run_id}")

    def clear(self, dag_id: str, run_id: str, *task_ids: str) -> None:
        self._call(
            "POST",
            f"/dags/{dag_id}/clearTaskInstances",
            {
                "dry_run": False,
                "dag_run_id": run_id,
                "task_ids": list(task_ids),
                "only_failed": False,
                "reset_dag_runs": True,
            },
        )

    def add_connection(self, conn_id: str, conn_type: str, extra: dict[str, Any]) -> None:
        """Add a connection to Airflow's database."""
        body = {"connection_id": conn_id, "conn_type": conn_type, "extra": json.dumps(extra)}
        self._call("POST", "/connections", body)

    def push_xcom(self, dag_id: str, run_id: str, task_id: str, key: str, value: Any) -> None:
        """Leave an XCom, as a task does."""
        path = f"{_task_instance(dag_id, run_id, task_id)}/xcomEntries"
        self._call("POST", path, {"key": key, "value": value})

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        self._call("PATCH", _task_instance(dag_id, run_id, task_id), {"new_state": state})

    # ---- what a person sees

    def wait_for_run(self, dag_id: str, run_id: str, *, patience_s: float = PATIENCE_S) -> None:
        """Wait until the DAG run has ended."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}"
        wait_for(
            f"the end of run {run_id} of {dag_id}",
            lambda: self._call("GET", path)["state"] in ("success", "failed"),
            patience_s=patience_s,
        )

    def run_seconds(self, dag_id: str, run_id: str) -> float:
        """How long a run took that was successful, from when it was asked for."""
        run = self._call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")
        if run["state"] != "success":
            raise RuntimeError(f"run {run_id} of {dag_id} is {run['state']}")
        begun_at, ended_at = (
            datetime.fromisoformat(run[name]) for name in ("queued_at", "end_date")
        )
        return (ended_at - begun_at).total_seconds()

    def run_ids(self, dag_id: str) -> list[str]:
        """Of the DAG's runs."""
        runs = self._call("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"]
        return [run["dag_run_id"] for run in runs]

    def state(self, dag_id: str, run_id: str, task_id: str) -> tuple[str | None, int]:
        """The state of the latest try, and its number."""
        ti = self._call("GET", _task_instance(dag_id, run_id, task_id))
        return ti["state"], ti["try_number"]

    def process(self, dag_id: str, run_id: str, task_id: str) -> int:
        """The process of the task that runs."""
        pid: int = self._call("GET", _task_instance(dag_id, run_id, task_id))["pid"]
        return pid

    def wait_until_reported(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> None:
        """Wait until the scheduler has heard from the executor of a try's end.

        It knows whose end that is by these names alone: after the run has been deleted and made
        again, it would be taken for the new one's.
        """
        key = f"TaskInstanceKey(dag_id='{dag_id}', task_id='{task_id}', run_id='{run_id}', try_number={try_number}, "
        report = re.compile(
            rf"Received executor event with state (success|failed) for .*{re.escape(key)}"
        )
        log = self.home / "scheduler.log"
        wait_for(f"the executor's report of {key}", lambda: report.search(log.read_text()))

    def wait_for_state(
        self, dag_id: str, run_id: str, task_id: str, state: str, *, try_number: int
    ) -> None:
        wait_for(
            f"{dag_id}.{task_id} to be {state} in try {try_number}",
            lambda: self.state(dag_id, run_id, task_id) == (state, try_number),
        )

    def wait_for_end(self, dag_id: str, run_id: str, task_id: str, *, try_number: int) -> str:
        """Wait until this try has ended, and return its state."""

        def look() -> str | None:
            state, number = self.state(dag_id, run_id, task_id)
            return state if number == try_number and state in ("success", "failed") else None

        return wait_for(f"the end of try {try_number} of {dag_id}.{task_id}", look)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        entry = f"{_task_instance(dag_id, run_id, task_id)}/xcomEntries/{key}"
        return self._call("GET", f"{entry}?deserialize=true")["value"]

    def links(self, dag_id: str, run_id: str, task_id: str) -> dict[str, str | None]:
        """Where the links of a task instance lead, by their names."""
        links = self._call("GET", f"{_task_instance(dag_id, run_id, task_id)}/links")
        found: dict[str, str | None] = links["extra_links"]
        return found

    def mapped_xcoms(
        self, dag_id: str, run_id: str, task_id: str, key: str = "return_value"
    ) -> list[Any]:
        """Of both instances of a task that is mapped over two items."""
        entry = f"{_task_instance(dag_id, run_id, task_id)}/xcomEntries/{key}?deserialize=true"
        return [self._call("GET", f"{entry}&map_index={index}")["value"] for index in (0, 1)]

    def log(self, dag_id: str, run_id: str, task_id: str, *, try_number: int) -> str:
        """The task log as it is written, the triggerer's part after the worker's."""
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}"
        parts = sorted((folder / f"task_id={task_id}").glob(f"attempt={try_number}.log*"))
        text = "".join(part.read_text() for part in parts)
        return text.replace(r"\"", '"')  # its lines are JSON

    # ---- plumbing

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self._client.request(method, f"/api/v2{path}", json=body)
        for _ in range(4):
            if answer.status_code != 500 or "Database error" not in answer.text:
                break
            # Airflow's own requests to SQLite wait for each other; a person would try again.
            answer = self._client.request(method, f"/api/v2{path}", json=body)
        if answer.is_error:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    def _is_healthy(self) -> bool:
        for process in self._processes.values():
            if process.poll() is not None:
                raise RuntimeError(f"{process.args} ended: see {self.home}")
        try:
            health = self._client.get("/api/v2/monitor/health").json()
        except (httpx.HTTPError, json.JSONDecodeError):
            return False
        part = "scheduler" if self._has_scheduler else "metadatabase"
        return health[part]["status"] == "healthy"

    def _spawn(self, *command: str, **settings: str) -> None:
        with (self.home / f"{command[0]}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", *command],
                env=self._environment | settings,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes[command[0]] = process

    def _end(self, *names: str) -> None:
        processes.end([self._processes.pop(name) for name in names])

    def _run(self, *command: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "airflow", *command],
            env=self._environment,
            check=True,
            timeout=PATIENCE_S,
            stdout=subprocess.DEVNULL,
        )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _settings(home: Path, port: int) -> dict[str, str]:
    url = f"http://127.0.0.1:{port}"
    return {
        "AIRFLOW_HOME": str(home),
        # Each process waits its turn to write. Where many tests sync files, 5 s may not be enough.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        # Else each process that finds no airflow.cfg makes a key of its own.
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "3",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        # Several deployments start at once here: their servers answer late, by default too late.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        # A scheduler that has not run for the first takes itself for dead, and one that has not
        # heard of a task for the second takes that for dead: both start tasks again that run.
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "600",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "600",
        "PYTHONUNBUFFERED": "1",
    }


def _task_instance(dag_id: str, run_id: str, task_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
