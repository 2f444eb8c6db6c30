"""An Airflow task that runs a workflow on the local Ray, in a process that can be killed: no scheduler."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from clusters import HERE, PATHS
from shapes import Plan


class AirflowTask:
    """One task instance; each process is a try of it.

    :param folder: for Airflow's databases and logs.
    :param environment: of the local Ray that is used.
    """

    def __init__(
        self,
        storage: str,
        plan: Plan,
        ledger: Path,
        folder: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.plan = plan
        self._folder = folder
        # Tasks run at the same time, each with a database of its own.
        self._home = folder / f"airflow-{plan.workflow_id}"
        self._log = folder / f"{plan.workflow_id}.log"
        small = {"num_cpus": 2, "object_store_memory_mb": 150}
        extra = json.dumps({"conn_type": "ray_workflow", "extra": small | {"storage": storage}})
        self._environment = os.environ | environment
        self._environment |= {
            "AIRFLOW_HOME": str(self._home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
            "AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT": extra,
            "PYTHONPATH": os.pathsep.join(PATHS),
            "FAULTS_PLAN": json.dumps(plan.to_json()),
            "FAULTS_LEDGER": str(ledger),
        }

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """A process that makes a try; killed at the end, if it has not ended."""
        self._migrate()
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(HERE / "dags" / "faults_dag.py")],
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def _migrate(self) -> None:
        """Copy the database of another task; the first one makes it."""
        if self._home.exists():
            return
        migrated = self._folder / "airflow"
        if not (migrated / "airflow.db").exists():
            subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env=self._environment | {"AIRFLOW_HOME": str(migrated)},
                check=True,
                timeout=600,
                stdout=subprocess.DEVNULL,
            )
        self._home.mkdir()
        shutil.copy(migrated / "airflow.db", self._home)
