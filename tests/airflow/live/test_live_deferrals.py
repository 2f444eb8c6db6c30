"""A task instance comes back from its deferral so late that Airflow can't take that for a kill."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from live_airflow import LiveAirflow
from postgres import postgres

from airflow_provider_rayworkflow.workflow.testing import in_process

pytestmark = [pytest.mark.airflow, pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(1_800)]

#: How long each workflow takes from the moment at which its task instance begins to wait. The
#: shorter ones end in the worker, the longer ones in the seconds after the deferral.
SECONDS = {f"w{number}": 1 + 0.4 * number for number in range(30)}


@ray.remote
def last(begun: str, seconds: float) -> float:
    while not Path(begun).exists():
        time.sleep(0.05)
    time.sleep(seconds)
    return seconds


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    with postgres() as address:
        yield address


@pytest.fixture
def live(database: str, tmp_path: Path) -> Iterator[LiveAirflow]:
    """Airflow as it is installed to be used: the LocalExecutor, Postgres, and Airflow's intervals."""
    storage = {"storage": str(tmp_path / "storage")}
    home = tmp_path / "home"
    home.mkdir()
    airflow = LiveAirflow(
        home,
        {
            "WITNESS": str(tmp_path),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
            "AIRFLOW__CORE__PARALLELISM": "16",
            # For sixteen tasks at once on a machine that answers late.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_MAX_OVERFLOW": "80",
            # Nothing answers there: what runs already is attached to through the storage.
            "AIRFLOW_CONN_DEFERRED": json.dumps(
                {"conn_type": "ray_workflow", "host": "http://127.0.0.1:9", "extra": storage}
            ),
        },
        has_triggerer=True,
    )
    with airflow.started(None):
        yield airflow


def test_no_task_instance_fails_whenever_its_workflow_ends(live: LiveAirflow, tmp_path: Path):
    with in_process(str(tmp_path / "storage")) as workflows:
        for name, seconds in SECONDS.items():
            workflows.run_async(last.bind(str(tmp_path / name), seconds), workflow_id=name)
        live.unpause("deferred")
        live.trigger("deferred", "r")
        live.wait_for_run("deferred", "r", patience_s=800)
    assert {name: live.state("deferred", "r", name) for name in SECONDS} == {
        name: ("success", 1) for name in SECONDS
    }
    # How many depends on how busy the machine is.
    logs = [live.log("deferred", "r", name, try_number=1) for name in SECONDS]
    assert any("trigger" in log for log in logs), "some have been deferred"
