"""One try waits for what it submitted, retries a storage in trouble, and takes over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sample_records import status_record

from airflow_provider_rayworkflow.exceptions import RayWorkflowStorageError
from airflow_provider_rayworkflow.hooks import StoredWorkflow
from airflow_provider_rayworkflow.tries.backoff import Backoff
from airflow_provider_rayworkflow.tries.decision import Action
from airflow_provider_rayworkflow.tries.run_spec import RunSpec
from airflow_provider_rayworkflow.tries.workflow_log import WorkflowLog
from airflow_provider_rayworkflow.tries.workflow_try import WorkflowTry
from airflow_provider_rayworkflow.workflow.model.records import OnFailure, ReuseCounts, StartOptions
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore

RECORD = status_record(WorkflowStatus.RUNNING)


def found(status: WorkflowStatus, **changes: object) -> StoredWorkflow:
    record = replace(RECORD, status=status, **changes)
    return StoredWorkflow(record=record, status=status)


RUNNING = found(WorkflowStatus.RUNNING)
SUCCESSFUL = found(WorkflowStatus.SUCCESSFUL, epoch=2)
LOST = StoredWorkflow(record=RECORD, status=WorkflowStatus.RESUMABLE)
BAD_STORAGE = RayWorkflowStorageError("The storage is down.")


class Stored:
    """A hook that finds one thing after the other; the last one for ever."""

    def __init__(self, *findings: StoredWorkflow | Exception | None) -> None:
        self._findings = list(findings)
        self.store = WorkflowStore(MemoryStore())

    def change(self, *findings: StoredWorkflow) -> None:
        """From here on, something else is found."""
        self._findings = list(findings)

    def find(self, workflow_id: str) -> StoredWorkflow | None:
        finding = self._findings.pop(0) if len(self._findings) > 1 else self._findings[0]
        if isinstance(finding, Exception):
            raise finding
        return finding


class Engine:
    """Notes what it is asked for. What is submitted has begun when it is asked for that often enough.

    :param on_begin: called just then.
    """

    def __init__(self, *, asks: int = 1, on_begin: Callable[[], None] = lambda: None) -> None:
        self.calls: list[str] = []
        self._asks = asks
        self._on_begin = on_begin

    def prepare(self) -> None:
        self.calls.append("prepare")

    def submit(self, options: StartOptions) -> None:
        start = f" from {options.from_task}" if options.from_task else ""
        self.policy = options.on_failure
        self.calls.append(f"submit {options.on_existing}{start}")

    def attach(self) -> None:
        self.calls.append("attach")

    def rejoin(self) -> None:
        self.calls.append("rejoin")

    def has_begun(self) -> bool:
        self._asks -= 1
        if self._asks > 0:
            return False
        self._on_begin()
        return True

    def was_stopped_by_other(self, found: StoredWorkflow) -> bool:
        return found.record.stopped_by == "other"


def new_run(
    stored: Stored,
    engine: Engine,
    *,
    patience_s: float = 0,
    on_failure: OnFailure | None = None,
) -> WorkflowTry:
    return WorkflowTry(
        hook=stored,
        engine=engine,
        spec=RunSpec(workflow_id="w", on_failure=on_failure),
        poll_interval_s=0.001,
        backoff=Backoff(patience_s, first_wait_s=0.001),
        log=WorkflowLog("w"),
    )


def run(stored: Stored, engine: Engine, action: Action, *, patience_s: float = 0) -> StoredWorkflow:
    attempt = new_run(stored, engine, patience_s=patience_s)
    return attempt.wait(attempt.start(action, before=None))


@pytest.mark.parametrize("policy", ["finish", None])
def test_each_submission_of_a_try_says_what_becomes_of_other_tasks_after_a_failure(policy):
    engine = Engine()
    attempt = new_run(Stored(RUNNING, SUCCESSFUL), engine, on_failure=policy)
    attempt.wait(attempt.start(Action.RUN, before=None))
    assert engine.policy == policy


def test_a_workflow_is_restarted_from_a_task_once():
    engine = Engine()
    attempt = new_run(Stored(LOST, RUNNING, SUCCESSFUL), engine)
    assert attempt.wait(attempt.start(Action.RESUME, before=LOST, from_task="clean")) is SUCCESSFUL
    assert engine.calls == ["submit resume from clean", "prepare", "submit resume"]


@pytest.mark.parametrize(("at_most_s", "ended"), [(3600, SUCCESSFUL), (0, RUNNING)])
def test_a_workflow_is_waited_for_no_longer_than_is_asked(at_most_s: float, ended: StoredWorkflow):
    attempt = new_run(Stored(RUNNING, RUNNING, SUCCESSFUL), Engine())
    assert attempt.wait(attempt.start(Action.ATTACH, before=None), at_most_s=at_most_s) is ended


@pytest.mark.invariant(4)
def test_the_status_of_an_earlier_run_is_not_taken_for_that_of_the_submitted_one():
    """A manager may begin the run at any moment, also between two looks at the storage."""
    stored = Stored(found(WorkflowStatus.FAILED))
    engine = Engine(asks=3, on_begin=lambda: stored.change(SUCCESSFUL))
    assert run(stored, engine, Action.RESUME) is SUCCESSFUL
    assert engine.calls == ["submit resume"]


def test_a_workflow_that_lost_its_owner_is_resumed():
    engine = Engine()
    assert run(Stored(RUNNING, LOST, RUNNING, SUCCESSFUL), engine, Action.ATTACH) is SUCCESSFUL
    assert engine.calls == ["attach", "prepare", "submit resume"]


def test_a_workflow_that_the_end_of_an_earlier_try_suspended_is_resumed():
    stopped = found(WorkflowStatus.RESUMABLE, stopped_by="other")
    engine = Engine()
    assert run(Stored(RUNNING, stopped, SUCCESSFUL), engine, Action.ATTACH) is SUCCESSFUL
    assert engine.calls == ["attach", "prepare", "submit resume"]


def test_a_workflow_that_a_person_suspended_stays_so():
    stopped = found(WorkflowStatus.RESUMABLE)
    engine = Engine()
    assert run(Stored(RUNNING, stopped), engine, Action.RUN) is stopped
    assert engine.calls == ["submit resume"]


def test_a_workflow_is_not_taken_over_without_end():
    engine = Engine()
    assert run(Stored(LOST), engine, Action.ATTACH) is LOST
    assert engine.calls.count("submit resume") == 3


def test_a_storage_that_fails_for_a_moment_is_asked_again():
    stored = Stored(RUNNING, BAD_STORAGE, BAD_STORAGE, SUCCESSFUL)
    assert run(stored, Engine(), Action.RUN, patience_s=60) is SUCCESSFUL


def test_a_storage_that_fails_for_longer_fails_the_try():
    with pytest.raises(RayWorkflowStorageError, match="The storage is down"):
        run(Stored(RUNNING, BAD_STORAGE), Engine(), Action.RUN)


def test_a_workflow_that_was_deleted_meanwhile_is_an_error():
    with pytest.raises(RayWorkflowStorageError, match="it was deleted while a task waited"):
        run(Stored(RUNNING, None), Engine(), Action.ATTACH)


REUSE = ReuseCounts(reused=2, changed=1)


def goes_on(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if " goes on: " in line]


def told(
    caplog: pytest.LogCaptureFixture, *findings: StoredWorkflow, action: Action, **given
) -> list[str]:
    """What one try says of what the runs found that it saw."""
    attempt = new_run(Stored(*findings), Engine())
    with caplog.at_level("INFO"):
        attempt.wait(attempt.start(action, **given))
    return goes_on(caplog)


def test_what_a_resume_reuses_is_in_the_log_once(caplog):
    line = "Workflow w goes on: 2 tasks reused, 1 changed, 0 new, 0 dropped"
    running = found(WorkflowStatus.RUNNING, epoch=2)
    seen = found(WorkflowStatus.RUNNING, epoch=2, reuse=REUSE)
    ended = found(WorkflowStatus.SUCCESSFUL, epoch=2, reuse=REUSE)
    before = found(WorkflowStatus.FAILED)
    assert told(caplog, running, seen, seen, ended, action=Action.RESUME, before=before) == [line]


def test_what_each_of_two_resumes_reuses_is_in_the_log(caplog):
    lost = StoredWorkflow(
        record=replace(RECORD, epoch=2, reuse=REUSE), status=WorkflowStatus.RESUMABLE
    )
    ended = found(WorkflowStatus.SUCCESSFUL, epoch=3, reuse=ReuseCounts(reused=3))
    assert told(caplog, lost, ended, action=Action.RESUME, before=None) == [
        "Workflow w goes on: 2 tasks reused, 1 changed, 0 new, 0 dropped",
        "Workflow w goes on: 3 tasks reused, 0 changed, 0 new, 0 dropped",
    ]


def test_what_a_run_that_was_over_has_reused_is_not_told_again(caplog):
    over = found(WorkflowStatus.SUCCESSFUL, reuse=REUSE)
    assert told(caplog, over, action=Action.TAKE, before=over) == []
    assert told(caplog, over, action=Action.RESUME, before=over) == []
    assert "Workflow w has nothing to run: its output stays" in caplog.messages


def test_what_a_run_that_is_joined_has_reused_is_told(caplog):
    running = found(WorkflowStatus.RUNNING, reuse=REUSE)
    assert len(told(caplog, running, SUCCESSFUL, action=Action.ATTACH, before=running)) == 1


def test_what_was_told_before_a_deferral_is_not_told_after_it(caplog):
    running = found(WorkflowStatus.RUNNING, epoch=2, reuse=REUSE)
    ended = found(WorkflowStatus.SUCCESSFUL, epoch=2, reuse=REUSE)
    first = new_run(Stored(running), Engine())
    with caplog.at_level("INFO"):
        first.wait(first.start(Action.RESUME, before=found(WorkflowStatus.FAILED)), at_most_s=0)
        assert len(goes_on(caplog)) == 1
        second = new_run(Stored(ended), Engine())
        second.wait(second.rejoin(first.carried))
    assert len(goes_on(caplog)) == 1
