"""What becomes of a submission whose try ends before its workflow begins."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from dag_test import connection
from sample_records import claim_epoch, status_record

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.clusters.engine import RayEngine
from airflow_provider_rayworkflow.clusters.hosts import engine_for
from airflow_provider_rayworkflow.connection.settings import Cluster
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowError,
    RayWorkflowInputError,
    RayWorkflowManagerError,
    RayWorkflowStorageError,
    RayWorkflowUnreachableError,
)
from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.operators import RayWorkflowResumeAllOperator
from airflow_provider_rayworkflow.tries.backoff import Backoff
from airflow_provider_rayworkflow.tries.definition import WorkflowDefinition
from airflow_provider_rayworkflow.tries.run_spec import RunSpec
from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError, DataSaveError
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.records import StartOptions, StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.claims import claim_put, next_claim
from airflow_provider_rayworkflow.workflow.storage.mailbox import (
    ANYBODY,
    Mailbox,
    Submission,
    SubmissionAnswer,
)


class Host:
    """A cluster that answers so many times, and then never again."""

    def __init__(self, error: RayWorkflowError, *, answers: int = 1) -> None:
        self._error = error
        self._answers = answers

    def ensure(self) -> str:
        self._answers -= 1
        if self._answers < 0:
            raise self._error
        return "the cluster"

    def close(self) -> None:
        pass


FAILED = RayWorkflowManagerError("s3://b/x", "job-1", "has failed. No space left on device")
UNREACHABLE = RayWorkflowUnreachableError("The cluster can't be reached")


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RayWorkflowHook:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT", connection(storage=str(tmp_path)))
    return RayWorkflowHook()


@pytest.mark.parametrize("wrong", ["text", {"env_vars": ["A=1"]}])
def test_a_wrong_environment_is_refused_by_name_with_a_cluster_and_without(
    hook: RayWorkflowHook, monkeypatch: pytest.MonkeyPatch, wrong: Any
):
    definition = WorkflowDefinition.load(lambda: workflow.sleep(1), {})
    spec = RunSpec(workflow_id="w", definition=definition, runtime_env=wrong)
    for settings in (hook.settings, replace(hook.settings, cluster=Cluster(address="http://h"))):
        monkeypatch.setattr(hook, "settings", settings)
        with pytest.raises(RayWorkflowInputError, match="runtime_env"):
            engine_for(
                hook, spec, token="t", unreachable_timeout_s=0.0, host=Host(FAILED)
            ).prepare()


@pytest.mark.parametrize("error", [FAILED, UNREACHABLE], ids=["failed", "unreachable"])
def test_a_try_whose_manager_can_not_be_started_takes_back_what_it_has_submitted(
    hook: RayWorkflowHook, error: RayWorkflowError
):
    """A manager that is started days later would run it."""
    engine = engine_of(hook, "t", Host(error))
    engine.submit(StartOptions())
    assert len(hook.mailbox.list_submissions()) == 1
    with pytest.raises(type(error)):
        engine.has_begun()
    assert hook.mailbox.list_submissions() == []


AWAY = RayWorkflowStorageError("The storage is down.", is_transient=True)
LASTING = RayWorkflowStorageError("No such bucket.")


class Outage:
    """A cluster whose storage fails at these calls, and works at the others; it fails at the last for ever."""

    def __init__(self, *calls: Exception | None) -> None:
        self._calls = list(calls)

    def ensure(self) -> str:
        error = self._calls.pop(0) if len(self._calls) > 1 else self._calls[0]
        if error is not None:
            raise error
        return "the cluster"

    def close(self) -> None:
        pass


def patient(hook: RayWorkflowHook, host: Outage, *, patience_s: float = 60) -> RayEngine:
    """A try without a cluster on its connection: what keeps Ray from starting is not asked again."""
    return RayEngine(
        hook,
        RunSpec(workflow_id="w"),
        host,
        token="t",
        backoff=Backoff(0),
        storage_backoff=Backoff(patience_s, first_wait_s=0.001),
        ensure_interval_s=0.0,
    )


@pytest.mark.parametrize("retention", [{}, {"SUCCESSFUL": 30, "FAILED": 0.5}])
def test_a_submission_brings_the_retention_of_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retention: dict[str, float]
) -> None:
    extra = {"storage": str(tmp_path), "retention": retention}
    connection = {"conn_type": "ray_workflow", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT", json.dumps(connection))
    hook = RayWorkflowHook()
    patient(hook, Outage(None)).submit(StartOptions())
    [key] = hook.mailbox.list_submissions()
    submission = hook.mailbox.read_submission(key)
    assert submission.retention == retention
    assert submission.connection == "ray_workflow_default"


def test_a_storage_that_is_down_when_a_try_submits_is_asked_again(hook: RayWorkflowHook):
    patient(hook, Outage(AWAY, AWAY, None)).submit(StartOptions())
    assert len(hook.mailbox.list_submissions()) == 1


@pytest.mark.parametrize(("error", "patience_s"), [(AWAY, 0), (LASTING, 60)])
def test_a_storage_that_stays_down_or_can_not_be_used_fails_a_try_that_submits(
    hook: RayWorkflowHook, error: RayWorkflowError, patience_s: float
):
    with pytest.raises(RayWorkflowStorageError, match=str(error)):
        patient(hook, Outage(error), patience_s=patience_s).submit(StartOptions())
    assert hook.mailbox.list_submissions() == []


class MoodyHook(RayWorkflowHook):
    """Its mailbox raises these errors: after writing a submission, or instead of reading an answer."""

    def __init__(self, *, after_writes: Iterable[Exception] = ()) -> None:
        super().__init__()
        self.after_writes = iter(after_writes)
        self.at_reads: Iterator[Exception] = iter(())
        self.writes = 0

    @property
    def mailbox(self) -> Mailbox:
        return MoodyMailbox(self)


class MoodyMailbox(Mailbox):
    def __init__(self, hook: MoodyHook) -> None:
        super().__init__(hook.store.bytes, signing=hook.store.signing)
        self._hook = hook

    def write_submission(self, submission: Submission) -> None:
        super().write_submission(submission)
        self._hook.writes += 1
        if error := next(self._hook.after_writes, None):
            raise error

    def read_answer(self, workflow_id: str, submission_id: str) -> SubmissionAnswer | None:
        if error := next(self._hook.at_reads, None):
            raise error
        return super().read_answer(workflow_id, submission_id)


@pytest.mark.usefixtures("hook")
def test_a_submission_whose_write_fails_is_written_again_and_once():
    lost = DataSaveError("No answer.", is_transient=True)
    hook = MoodyHook(after_writes=[lost, lost])
    patient(hook, Outage(None)).submit(StartOptions())
    assert hook.writes == 3
    (key,) = hook.mailbox.list_submissions()
    owner = hook.mailbox.read_owner("w")
    assert owner is not None
    assert hook.mailbox.read_submission(key).submission_id == owner.submission_id


@pytest.mark.usefixtures("hook")
def test_a_submission_whose_write_fails_for_good_leaves_nothing_to_run():
    hook = MoodyHook(after_writes=repeat(DataSaveError("The disk is full.")))
    with pytest.raises(RayWorkflowStorageError, match="The disk is full"):
        patient(hook, Outage(None)).submit(StartOptions())
    assert hook.mailbox.list_submissions() == []


@pytest.mark.usefixtures("hook")
@pytest.mark.parametrize("error", [AWAY, LASTING], ids=["transient", "lasting"])
def test_a_storage_that_fails_while_a_try_waits_for_the_begin_is_asked_again(
    error: RayWorkflowStorageError,
):
    """As after the begin: what a try has waited for so far is not given up for an outage."""
    hook = MoodyHook()
    engine = patient(hook, Outage(None, error, None))
    engine.submit(StartOptions())
    (key,) = hook.mailbox.list_submissions()
    assert not engine.has_begun()  # the manager can't be looked at
    lost = DataLoadError("No answer.", is_transient=error.is_transient)
    hook.at_reads = iter([lost, lost])
    assert not engine.has_begun()
    assert not engine.has_begun()
    assert list(hook.at_reads) == []
    submission = hook.mailbox.read_submission(key)
    hook.mailbox.write_answer(
        SubmissionAnswer(
            workflow_id="w",
            submission_id=submission.submission_id,
            outcome="accepted",
            message="",
            answered_at=1.0,
        )
    )
    assert engine.has_begun()


def test_a_storage_that_fails_for_longer_ends_the_try_and_takes_back_what_it_submitted(
    hook: RayWorkflowHook,
):
    engine = patient(hook, Outage(None, AWAY), patience_s=0)
    engine.submit(StartOptions())
    with pytest.raises(RayWorkflowStorageError, match="The storage is down"):
        engine.has_begun()
    assert hook.mailbox.list_submissions() == []


def test_a_try_whose_time_is_over_before_its_workflow_begins_leaves_nothing_to_run(
    hook: RayWorkflowHook,
):
    engine = engine_of(hook, "t")
    engine.submit(StartOptions())
    engine.close(suspend=True)
    assert hook.mailbox.list_submissions() == []
    request = hook.mailbox.read_request("w", "t")
    assert request is not None
    assert request.how == "suspend"


def engine_of(hook: RayWorkflowHook, token: str, host: Host | None = None) -> RayEngine:
    return RayEngine(
        hook,
        RunSpec(workflow_id="w"),
        host or Host(UNREACHABLE, answers=9),
        token=token,
        backoff=Backoff(0),
        ensure_interval_s=0.0,
    )


def test_the_archives_of_a_submission_are_stored_and_in_use_before_a_manager_finds_it(
    hook: RayWorkflowHook, tmp_path: Path
):
    code = tmp_path / "code"
    code.mkdir()
    (code / "module.py").write_text("A = 1")
    spec = RunSpec(workflow_id="w", runtime_env={"working_dir": str(code)})
    host = Host(UNREACHABLE, answers=9)
    RayEngine(hook, spec, host, token="t", backoff=Backoff(0)).submit(StartOptions())
    (key,) = hook.mailbox.list_submissions()
    (sha256,) = hook.store.archives.used_by("w")
    assert sha256 in json.dumps(hook.mailbox.read_submission(key).runtime_env)
    assert hook.store.bytes.get(keys.archive_key(sha256))


def test_two_task_instances_that_submit_one_id_at_the_same_moment_wait_for_one_run(
    hook: RayWorkflowHook,
):
    """The later one owns it; what the other one has submitted is not run."""
    first, second = engine_of(hook, "first"), engine_of(hook, "second")
    first.submit(StartOptions())
    second.submit(StartOptions())
    assert not first.has_begun()
    (key,) = hook.mailbox.list_submissions()
    assert hook.mailbox.read_submission(key).token == "second"
    running = status_record(WorkflowStatus.RUNNING)
    hook.store.write_status(running)
    assert first.has_begun()


def test_what_the_later_one_could_not_start_the_other_one_submits_again(hook: RayWorkflowHook):
    first, second = engine_of(hook, "first"), engine_of(hook, "second")
    first.submit(StartOptions())
    second.submit(StartOptions())
    second.withdraw()
    assert not first.has_begun()
    (key,) = hook.mailbox.list_submissions()
    assert hook.mailbox.read_submission(key).token == "first"


def test_what_is_deleted_before_it_begins_is_submitted_again(hook: RayWorkflowHook):
    """A user deletes the workflow of an earlier try just then; this one would wait for ever."""
    engine = engine_of(hook, "t")
    engine.submit(StartOptions())
    (first,) = hook.mailbox.list_submissions()
    assert not engine.has_begun()
    assert hook.mailbox.list_submissions() == [first]
    hook.store.delete("w")
    assert not engine.has_begun()
    (second,) = hook.mailbox.list_submissions()
    assert second != first


GRAPH = Graph(tasks=[Task(name="load", function=0, arguments=0)], blobs=[b""])


class Replaced:
    """A cluster that is another one at each look, as a local Ray that is killed and started again."""

    def __init__(self) -> None:
        self._names = iter(["one", "two", "three", "four"])

    def ensure(self) -> str:
        return next(self._names)

    def close(self) -> None:
        pass


@pytest.mark.invariant(1)
@pytest.mark.parametrize("has_begun", [True, False])
@pytest.mark.parametrize(
    "asked", [StartOptions(on_existing="restart"), StartOptions(from_task="load")]
)
def test_a_start_over_that_has_begun_on_a_cluster_that_died_is_not_done_again(
    hook: RayWorkflowHook, asked: StartOptions, has_begun: bool
):
    """The manager was killed after it had begun the run, and before it said so."""
    engine = engine_of(hook, "t", Replaced())
    engine.submit(asked)
    (key,) = hook.mailbox.list_submissions()
    submission_id = hook.mailbox.read_submission(key).submission_id if has_begun else "an earlier"
    claim = next_claim(
        "w",
        after=0,
        manager_id="m",
        now=1.0,
        user_metadata={},
        has_graph=True,
        submission_id=submission_id,
    )
    put = claim_put(claim, GRAPH)
    hook.store.bytes.put_if_absent(put.key, put.data)
    hook.store.write_status(
        StatusRecord(
            workflow_id="w",
            status=WorkflowStatus.RUNNING,
            epoch=1,
            number=0,
            manager_id="m",
            created_at=0.0,
        )
    )
    assert not engine.has_begun()
    (again,) = hook.mailbox.list_submissions()
    submission = hook.mailbox.read_submission(again)
    assert submission.cluster == "two"
    options = (submission.on_existing, submission.from_task)
    assert options == (
        ("resume", "") if has_begun else (asked.on_existing or "resume", asked.from_task)
    )


def test_a_resume_that_no_try_owns_says_of_which_run_it_was_asked_for(hook: RayWorkflowHook):
    """Also when it is submitted again: another resume may have begun meanwhile."""
    engine = engine_of(hook, ANYBODY)
    engine.submit(StartOptions())
    (key,) = hook.mailbox.list_submissions()
    first = hook.mailbox.read_submission(key)
    assert first.epoch == 0
    claim_epoch(hook.store)
    hook.mailbox.delete_submission("w", first.submission_id)
    assert not engine.has_begun()
    (again,) = hook.mailbox.list_submissions()
    assert hook.mailbox.read_submission(again).epoch == 0
    engine_of(hook, "t").submit(StartOptions())
    owned = {hook.mailbox.read_submission(one).epoch for one in hook.mailbox.list_submissions()}
    assert owned == {0, 1}


def test_a_resume_of_many_that_is_given_up_takes_back_all_that_have_not_begun(
    hook: RayWorkflowHook,
):
    """A user may have suspended one of them by the time when a manager is up."""
    operator = RayWorkflowResumeAllOperator(
        task_id="t", unreachable_timeout_s=0, poll_interval_s=0.05
    )
    with pytest.raises(RayWorkflowManagerError):
        operator._resume(hook, ["a", "b", "c"], Host(FAILED, answers=3))
    assert hook.mailbox.list_submissions() == []


def test_what_can_not_be_taken_back_keeps_nothing_else_and_hides_no_error(
    hook: RayWorkflowHook, monkeypatch: pytest.MonkeyPatch
):
    delete = Mailbox.delete_submission

    def moody(mailbox: Mailbox, workflow_id: str, submission_id: str) -> None:
        if workflow_id == "a":
            raise DataSaveError("The disk is full.")
        delete(mailbox, workflow_id, submission_id)

    monkeypatch.setattr(Mailbox, "delete_submission", moody)
    operator = RayWorkflowResumeAllOperator(task_id="t", unreachable_timeout_s=0)
    with pytest.raises(RayWorkflowManagerError):
        operator._resume(hook, ["b", "a", "c"], Host(FAILED, answers=3))
    (left,) = hook.mailbox.list_submissions()
    assert hook.mailbox.read_submission(left).workflow_id == "a"
