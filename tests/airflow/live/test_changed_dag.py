"""A DAG file, or a module, is corrected and tasks cleared, in Airflow's real processes: what runs again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from dag_edits import CHANGES, FILE, FIX, POLICIES, REFUSED, Edit, edited
from dag_test import connection
from live_airflow import LiveAirflow

from airflow_provider_rayworkflow.workflow.local_ray.overview import list_local_rays
from airflow_provider_rayworkflow.workflow.model.code_variables import (
    CODE_VARIABLE,
    PATH_VARIABLE,
    base_code,
)

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.live,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(1_800),
]

#: A module that the workers import in which the tasks of another DAG run.
MODULE = "measures.py"


class Changing:
    """The DAGs of the file, and the traces of their workflows."""

    def __init__(self, live: LiveAirflow, folder: Path, witness: Path) -> None:
        self.live = live
        self._folder = folder
        self._witness = witness

    def edit(self, *edits: Edit, name: str = FILE.name) -> None:
        file = self._folder / name
        written_at = file.stat().st_mtime
        file.write_text(edited(file.read_text(), edits))
        # Python takes compiled code for that of a file of the same size and second.
        os.utime(file, (written_at + 2, written_at + 2))

    def clear(self, *policies: str) -> None:
        for policy in policies:
            self.live.wait_for_run(policy, "r")
            (self._witness / policy).unlink(missing_ok=True)
            self.live.clear(policy, "r", *(["plan"] if policy == "reuse" else []), "flights")

    def ends(self, policy: str, *, try_number: int, run_id: str = "r") -> str:
        return self.live.wait_for_end(policy, run_id, "flights", try_number=try_number)

    def planned(self) -> dict[str, str]:
        plan = self.live.xcom("reuse", "r", "plan")
        return {task["task_id"]: task["action"] for task in plan["tasks"]}

    def output(self, policy: str, run_id: str = "r") -> object:
        return self.live.xcom(policy, run_id, "flights")

    def log(self, policy: str, *, try_number: int) -> str:
        return self.live.log(policy, "r", "flights", try_number=try_number)

    def variables_of_ray(self) -> dict[str, str]:
        """The environment of the processes of the local Ray."""
        (local_ray,) = list_local_rays(self.live.local_ray_root)
        assert local_ray.state is not None
        return psutil.Process(local_ray.state.process.pid).environ()

    def ran(self, policy: str) -> list[str]:
        """What has run since the last clear, sorted."""
        ran = self._witness / policy
        return sorted(ran.read_text().splitlines()) if ran.exists() else []


@pytest.fixture(scope="module")
def changing(airflow_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Changing]:
    """Each policy's workflow has failed in its last task, the report, by a bug."""
    folder, witness = tmp_path_factory.mktemp("dags"), tmp_path_factory.mktemp("witness")
    for name in (FILE.name, "importing.py", "imported.py", MODULE):
        shutil.copy(FILE.with_name(name), folder)
    live = LiveAirflow(
        tmp_path_factory.mktemp("live"),
        {
            "WITNESS": str(witness),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
            # As the command `airflow` has it: no folder of the caller's comes before Python's modules.
            "PYTHONSAFEPATH": "1",
            "AIRFLOW_CONN_LIVE": connection(storage=str(witness / "storage")),
        },
    )
    with live.started(airflow_home / "airflow.db"):
        for policy in POLICIES:
            live.unpause(policy)
            live.trigger(policy, "r")
        changing = Changing(live, folder, witness)
        for policy in POLICIES:
            assert changing.ends(policy, try_number=1) == "failed"
        yield changing


@pytest.fixture(scope="module")
def changed(changing: Changing) -> Changing:
    """The bug is fixed, much else is changed, and all is cleared."""
    changing.edit(FIX, *CHANGES)
    changing.clear(*POLICIES)
    return changing


@pytest.fixture(scope="module")
def changed_back(changed: Changing) -> Changing:
    """Only the fix stays; what is refused, and what went on with the changes, is cleared."""
    for policy in POLICIES:
        changed.ends(policy, try_number=2)
    changed.edit(*((new, old) for old, new in CHANGES))
    changed.clear("reuse", "refuse")
    return changed


def test_a_module_that_has_changed_is_what_the_next_try_runs_from_its_first_task_on(
    changing: Changing,
):
    """Workers of the local Ray that have imported it as it was are not used again, nor are those that came with it.

    The first of this file: what it finds is the state with which the local Ray was started.
    """
    live, task = changing.live, ("importing", "r", "t")
    live.unpause("importing")
    live.trigger(*task[:2])
    assert live.wait_for_end(*task, try_number=1) == "success"
    assert live.xcom(*task) == [1, 1]
    assert base_code(changing.variables_of_ray()).keys() == {CODE_VARIABLE, PATH_VARIABLE}
    for try_number, (old, new) in enumerate([(1, 2), (2, 3)], start=2):
        changing.edit((f"VALUE = {old}", f"VALUE = {new}"), name=MODULE)
        live.wait_for_run(*task[:2])
        live.clear(*task)
        assert live.wait_for_end(*task, try_number=try_number) == "success"
        assert live.xcom(*task) == [new, new]


def test_the_first_tries_run_all_and_fail(changing: Changing):
    names = ["clean", "constant", "extra 1", "extra 2", "lambda", "load", "part 1", "part 2"]
    for policy in POLICIES:
        assert changing.ran(policy) == [*names, "report", "shift", "split"]
    assert set(changing.planned().values()) == {"run"}


def test_by_default_code_that_is_committed_stays_and_what_is_made_of_other_values_runs_again(
    changed: Changing,
):
    assert changed.ends("reuse", try_number=2) == "success"
    assert changed.ran("reuse") == ["clean", "extra 1", "extra 3", "load", "report"]
    assert changed.output("reuse") == 24 + 1000 + 100 + 10 + 3 + 1 + 3


def test_what_a_clear_reuses_is_in_the_tasks_log(changed: Changing):
    assert changed.ends("reuse", try_number=2) == "success"
    line = (
        '"event":"Workflow reuse goes on: 6 tasks reused, 1 changed, 2 new, 2 dropped, 1 run again '
        'only if what they take changes, 1 not finished before"'
    )
    assert changed.log("reuse", try_number=2).count(line) == 1


def test_the_plan_says_it_before(changed: Changing):
    assert changed.ends("reuse", try_number=2) == "success"
    assert changed.planned() == {
        "load": "run",
        "clean": "check",
        "constant": "reuse",
        "shift": "reuse",
        "lambda": "reuse",
        "split": "reuse",
        "renamed again": "run",
        "added": "run",
        "report": "run",
        "first": "reuse",
        "second": "reuse",
    }
    log = changed.live.log("reuse", "r", "plan", try_number=2)
    assert "constant       reuse   its inputs are the same, its code has changed" in log
    assert "renamed        drop    it is not in the graph any more" in log


def test_rerun_changed_runs_all_that_is_not_the_same(changed: Changing):
    assert changed.ends("rerun_changed", try_number=2) == "success"
    ran = ["clean", "constant", "extra 1", "extra 3", "lambda", "load", "part 3"]
    # The first task of the continuation is the same as before.
    assert changed.ran("rerun_changed") == [*ran, "report", "shift", "split"]
    assert changed.output("rerun_changed") == 24 + 2000 + 200 + 15 + 4 + 1 + 3


def test_refuse_fails_the_task_and_lists_what_has_changed(changed: Changing):
    assert changed.ends("refuse", try_number=2) == "failed"
    assert changed.ran("refuse") == []
    log = changed.log("refuse", try_number=2)
    assert "RayWorkflowInputError" in log
    for line in REFUSED:
        assert f"  {line}" in log


def test_a_refused_workflow_goes_on_when_only_the_fix_is_left(changed_back: Changing):
    assert changed_back.ends("refuse", try_number=3) == "success"
    assert changed_back.ran("refuse") == ["report"]
    assert changed_back.output("refuse") == 22 + 1000 + 100 + 10 + 3 + 1 + 2


def test_a_changed_argument_runs_what_depends_on_it_though_the_workflow_was_successful(
    changed_back: Changing,
):
    assert changed_back.ends("reuse", try_number=3) == "success"
    # The tasks that are back in the graph have their checkpoints.
    assert changed_back.ran("reuse") == ["clean", "load", "report"]
    assert changed_back.output("reuse") == 22 + 1000 + 100 + 10 + 3 + 1 + 2


def test_a_clear_without_a_change_returns_the_stored_output(changed_back: Changing):
    assert changed_back.ends("refuse", try_number=3) == "success"
    changed_back.clear("refuse")
    assert changed_back.ends("refuse", try_number=4) == "success"
    assert changed_back.ran("refuse") == []
    assert changed_back.output("refuse") == 22 + 1000 + 100 + 10 + 3 + 1 + 2
    assert "Workflow refuse has nothing to run" in changed_back.log("refuse", try_number=4)


def test_a_run_that_is_triggered_with_a_task_restarts_from_it(changed_back: Changing):
    assert changed_back.ends("reuse", try_number=3) == "success"
    before = changed_back.ran("reuse")
    changed_back.live.trigger("reuse", "again", from_task={"flights": "clean"})
    assert changed_back.ends("reuse", try_number=1, run_id="again") == "success"
    assert changed_back.ran("reuse") == sorted([*before, "clean", "report"])
    assert changed_back.output("reuse", "again") == changed_back.output("reuse")
