"""An Airflow task that runs a workflow, in a process that can be killed: embedded Ray, no scheduler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shapes import Plan

HERE = Path(__file__).parent


class AirflowTask:
    """One task instance; each process is a try of it.

    :param folder: for Airflow's database and logs.
    """

    def __init__(self, storage: str, plan: Plan, ledger: Path, folder: Path) -> None:
        self._home = folder / "airflow"
        self._log = folder / f"{plan.workflow_id}.log"
        small = {"num_cpus": 2, "object_store_memory_mb": 150}
        extra = json.dumps({"conn_type": "ray_workflow", "extra": small | {"storage": storage}})
        self._environment = os.environ | {
            "AIRFLOW_HOME": str(self._home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
            "AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT": extra,
            "PYTHONPATH": str(HERE),
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
        if not (self._home / "airflow.db").exists():
            subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env=self._environment,
                check=True,
                timeout=600,
                stdout=subprocess.DEVNULL,
            )
