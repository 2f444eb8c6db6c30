"""A DAG file is corrected and its task cleared, in Airflow's real processes: what runs again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from dag_test import connection
from live_airflow import LiveAirflow

pytestmark = [pytest.mark.airflow, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

FILE = Path(__file__).parent / "changing" / "changing.py"


class Changing:
    """The DAG of the file, and the traces of its workflow."""

    def __init__(self, live: LiveAirflow, folder: Path, witness: Path) -> None:
        self.live = live
        self._file = folder / FILE.name
        self._ran = witness / "ran"
        self._witness = witness

    def edit(self, old: str, new: str) -> None:
        source = self._file.read_text()
        assert source.count(old) == 1
        written_at = self._file.stat().st_mtime
        self._file.write_text(source.replace(old, new))
        # Python takes compiled code for that of a file of the same size and second.
        os.utime(self._file, (written_at + 2, written_at + 2))

    def clear(self) -> None:
        self._ran.unlink(missing_ok=True)
        self.live.wait_for_run("changing", "r")
        self.live.clear("changing", "r", "plan", "flights")

    def ends(self, *, try_number: int, run_id: str = "r") -> str:
        return self.live.wait_for_end("changing", run_id, "flights", try_number=try_number)

    def planned(self, run_id: str = "r") -> dict[str, str]:
        plan = self.live.xcom("changing", run_id, "plan")
        return {task["task_id"]: task["action"] for task in plan["tasks"]}

    def output(self, run_id: str = "r") -> object:
        return self.live.xcom("changing", run_id, "flights")

    def ran(self) -> list[str]:
        return self._ran.read_text().split() if self._ran.exists() else []


@pytest.fixture(scope="module")
def changing(airflow_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Changing]:
    folder, witness = tmp_path_factory.mktemp("dags"), tmp_path_factory.mktemp("witness")
    shutil.copy(FILE, folder)
    live = LiveAirflow(
        tmp_path_factory.mktemp("live"),
        {
            "WITNESS": str(witness),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
            "AIRFLOW_CONN_LIVE": connection(storage=str(witness / "storage")),
        },
    )
    try:
        live.start(airflow_home / "airflow.db")
        live.unpause("changing")
        live.trigger("changing", "r")
        yield Changing(live, folder, witness)
    finally:
        live.stop()


def test_a_corrected_function_of_a_continuation_runs_and_nothing_else(changing: Changing):
    assert changing.ends(try_number=1) == "failed"
    assert changing.ran() == ["load", "clean", "split", "report"]
    assert changing.planned() == {"load": "run", "clean": "run", "split": "run"}
    changing.edit('raise ValueError("a bug")', "return sum(rows)")
    changing.edit("return [day, day]", "return [day, day, day]")  # committed: it stays
    changing.clear()
    assert changing.ends(try_number=2) == "success"
    assert changing.ran() == ["report"]
    assert changing.output() == 22
    assert changing.planned() == {
        "load": "reuse",
        "clean": "reuse",
        "split": "reuse",
        "report": "run",
    }
    log = changing.live.log("changing", "r", "plan", try_number=2)
    assert "load    reuse   its inputs are the same, its code has changed" in log


def test_a_changed_argument_runs_what_depends_on_it_though_the_workflow_was_successful(
    changing: Changing,
):
    changing.edit("DAY = 1", "DAY = 2")
    changing.clear()
    assert changing.ends(try_number=3) == "success"
    assert changing.ran() == ["load", "clean", "split", "report"]
    assert changing.output() == 36


def test_a_clear_without_a_change_returns_the_stored_output(changing: Changing):
    changing.clear()
    assert changing.ends(try_number=4) == "success"
    assert changing.ran() == []
    assert changing.output() == 36


def test_a_run_that_is_triggered_with_a_task_restarts_from_it(changing: Changing):
    changing.live.trigger("changing", "again", workflow_id="r", from_task={"flights": "clean"})
    assert changing.ends(try_number=1, run_id="again") == "success"
    assert changing.ran() == ["clean", "split", "report"]
    assert changing.output("again") == 36
