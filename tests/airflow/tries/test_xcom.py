"""What a workflow's end becomes in Airflow: an XCom, a reason for a missing one, a skip, an error."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from ray.exceptions import RayTaskError

from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowFailedError,
    RayWorkflowFailedForGoodError,
    RayWorkflowInputError,
    RayWorkflowInterruptedError,
    RayWorkflowManagerError,
    RayWorkflowOutputError,
    RayWorkflowStartError,
)
from airflow_provider_rayworkflow.hooks import StoredWorkflow
from airflow_provider_rayworkflow.operators import RayWorkflowResumeOperator, RayWorkflowRunOperator
from airflow_provider_rayworkflow.operators.base import RayWorkflowBaseOperator
from airflow_provider_rayworkflow.operators.output import output_of
from airflow_provider_rayworkflow.tries.xcom import why_not_in_xcom
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowExecutionError
from airflow_provider_rayworkflow.workflow.model.records import (
    JsonOutput,
    StatusRecord,
    TaskFailure,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.runtime.worker.task import describe
from airflow_provider_rayworkflow.workflow.testing import InProcessWorkflows, in_process

BAD_TEXT = os.fsdecode(b"caf\xe9.csv")


def operator(**changes: object) -> RayWorkflowRunOperator:
    return RayWorkflowRunOperator(task_id="t", workflow="pipelines.flights:daily", **changes)


def output(task: RayWorkflowBaseOperator, found: StoredWorkflow) -> object:
    return output_of(found, log=task.log, multiple_outputs=task.multiple_outputs)


def ended(status: WorkflowStatus, **changes: object) -> StoredWorkflow:
    record = StatusRecord(
        workflow_id="w", status=status, epoch=1, number=1, manager_id="m", created_at=0.0, **changes
    )
    record = StatusRecord.from_json(json.loads(json.dumps(record.to_json())))
    return StoredWorkflow(record=record, status=status)


def successful(value: object, problem: str = "") -> StoredWorkflow:
    return ended(WorkflowStatus.SUCCESSFUL, output=JsonOutput(value=value, problem=problem))


def failed(exc: BaseException) -> StoredWorkflow:
    return ended(WorkflowStatus.FAILED, failure=describe("load", exc))


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth - 1):
        value = [value]
    return value


# ---- what is JSON for Python, and not for Airflow


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (BAD_TEXT, "'caf\\udce9.csv' is no Unicode text"),
        ([{"files": {BAD_TEXT: 1}}], "'caf\\udce9.csv' is no Unicode text"),
        ("\ud83d", "is no Unicode text"),
        ({"a": ["b\0"]}, "NUL"),
        ([2**64], "a number of 65 bits is too large"),
        ({"a": -(2**63) - 1}, "a number of 64 bits is too large"),
        ([{"__classname__": "builtins.set", "__data__": [1]}], "a dict with '__classname__'"),
        ({"a": {"__type": "dict", "__var": {}}}, "a dict with '__type' and '__var'"),
        (nested(400), "it is nested too deep"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_output_that_is_json_for_python_alone_stays_in_the_storage(
    value: object, problem: str, capsys: pytest.CaptureFixture[str]
):
    assert output(operator(), successful(value)) is None
    said = capsys.readouterr().out
    assert "Workflow w was successful, and its output is not in XCom: " in said
    assert problem in said


@pytest.mark.parametrize(
    "value",
    [None, "é \U0001f600", {"a": [1, 2.5, True, None]}, 2**64 - 1, -(2**63), nested(100), {"": ""}],
    ids=lambda value: type(value).__name__,
)
def test_any_other_json_is_an_xcom(value: object):
    assert output(operator(), successful(value)) == value
    # As Airflow passes it on: to its supervisor, and from there to the API server.
    from airflow.sdk.execution_time.comms import SetXCom, _new_encoder
    from airflow.sdk.serde import serialize
    from pydantic import JsonValue, TypeAdapter

    message = SetXCom(
        key="k", value=serialize(value), dag_id="d", task_id="t", run_id="r", map_index=-1
    )
    _new_encoder().encode(message)
    TypeAdapter(JsonValue).validate_json(json.dumps(value, ensure_ascii=False).encode())


def test_an_output_is_refused_because_airflow_can_not_pass_it_on():
    from airflow.sdk.serde import serialize

    with pytest.raises(AttributeError):
        serialize({"__id__": 1})
    assert why_not_in_xcom({"__id__": 1})


# ---- multiple outputs


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (
            successful(None, "the output of type dict is not JSON (Object of type int64 is not"),
            "int64",
        ),
        (successful([1]), "the output is a list"),
        (successful(None), "the output is a NoneType"),
        (successful({"a": 2**70}), "a number of 71 bits is too large"),
        (ended(WorkflowStatus.SUCCESSFUL), "it was not stored as JSON"),
    ],
)
@pytest.mark.parametrize("kind", [RayWorkflowRunOperator, RayWorkflowResumeOperator])
def test_an_output_without_keys_fails_the_task_that_asks_for_keys(kind, found, problem: str):
    named = {"workflow": "m:f"} if kind is RayWorkflowRunOperator else {"workflow_id": "w"}
    asking = kind(task_id="t", multiple_outputs=True, **named)
    with pytest.raises(
        RayWorkflowOutputError, match="Correct what the last workflow task"
    ) as error:
        output(asking, found)
    assert problem in str(error.value)
    assert isinstance(error.value, AirflowFailException)  # the next try would find the same


def test_an_output_with_keys_is_what_multiple_outputs_take():
    assert output(operator(multiple_outputs=True), successful({"a": 1})) == {"a": 1}


def test_multiple_outputs_of_a_task_that_does_not_wait_are_refused_when_the_dag_is_parsed():
    with pytest.raises(RayWorkflowInputError, match="multiple_outputs"):
        operator(multiple_outputs=True, wait=False)


# ---- Airflow's exceptions in a workflow task


class NothingNew(AirflowSkipException):
    pass


class Hopeless(AirflowFailException):
    pass


def of_ray(exc: Exception) -> RayTaskError:
    """As `ray.get` raises it in a task that has called another one."""
    return RayTaskError("f", "traceback", exc).as_instanceof_cause()


def of_workflow(exc: Exception) -> WorkflowExecutionError:
    """As `workflow.run` raises it in a task that has run another workflow."""
    error = WorkflowExecutionError("inner", task_id="t")
    error.__cause__ = exc
    return error


def wrapped_twice(exc: Exception) -> Exception:
    return of_ray(of_workflow(of_ray(exc)))


WRAPPINGS = [lambda exc: exc, of_ray, of_workflow, wrapped_twice]


@pytest.mark.parametrize("kind", [AirflowSkipException, NothingNew])
@pytest.mark.parametrize("wrap", WRAPPINGS)
def test_a_workflow_task_that_skips_skips_the_airflow_task(kind, wrap):
    with pytest.raises(AirflowSkipException, match=r"Task 'load' .* asks to skip: "):
        output(operator(), failed(wrap(kind("no data"))))


@pytest.mark.parametrize("kind", [AirflowFailException, Hopeless])
@pytest.mark.parametrize("wrap", WRAPPINGS)
def test_a_workflow_task_that_fails_for_good_fails_the_airflow_task_for_good(kind, wrap):
    with pytest.raises(RayWorkflowFailedForGoodError, match="Task 'load'") as error:
        output(operator(), failed(wrap(kind("no such table"))))
    assert isinstance(error.value, AirflowFailException)
    assert isinstance(error.value, RayWorkflowFailedError)


@pytest.mark.parametrize(
    "exc",
    [
        AirflowException("plain"),
        ValueError("AirflowSkipException"),
        type("AirflowSkipException", (Exception,), {"__module__": "theirs"})("no data"),
    ],
)
def test_any_other_exception_fails_the_try(exc: Exception):
    with pytest.raises(RayWorkflowFailedError) as error:
        output(operator(), failed(exc))
    assert not isinstance(error.value, AirflowFailException)


def test_an_error_raised_because_of_a_skip_is_an_error():
    try:
        raise ValueError("bad") from AirflowSkipException("no data")
    except ValueError as exc:
        with pytest.raises(RayWorkflowFailedError):
            output(operator(), failed(exc))


@pytest.fixture
def workflows() -> Iterator[InProcessWorkflows]:
    with in_process() as workflows:
        yield workflows


@pytest.mark.parametrize("kind", [NothingNew, Hopeless])
def test_neither_is_tried_again_by_the_workflow(kind, workflows, tmp_path: Path):
    ledger = tmp_path / "calls"

    @ray.remote(max_retries=3, retry_exceptions=True)
    def load():
        with ledger.open("a") as file:
            file.write("call\n")
        raise kind("no data")

    with pytest.raises(WorkflowExecutionError):
        workflows.run(load.bind(), workflow_id="w")
    assert ledger.read_text() == "call\n"


# ---- texts


def test_what_a_log_or_an_error_says_of_a_failure_can_be_written_anywhere(
    capsys: pytest.CaptureFixture[str],
):
    failure = TaskFailure(
        task_id=f"load {BAD_TEXT}",
        type="ValueError",
        message=f"\x1b[31mno {BAD_TEXT}\x1b]0;title\x07\0" + "x" * 1_000_000,
        traceback=f"Traceback\n  {BAD_TEXT}\x1b[2J\r" + "y" * 1_000_000,
    )
    with pytest.raises(RayWorkflowFailedError) as error:
        output(operator(), ended(WorkflowStatus.FAILED, failure=failure))
    for text in (str(error.value), capsys.readouterr().out):
        assert text.encode().decode().replace("\n", "").isprintable()
        assert 60_000 < len(text) < 70_000
        assert "x1b" not in text
        assert "characters are left out]" in text


def test_an_error_says_nothing_that_a_terminal_would_obey():
    for error in (
        RayWorkflowInterruptedError("w", f"\x1b[31mRay failed{BAD_TEXT}\x1b[0m"),
        RayWorkflowStartError("w", f"\x1b[31mRay failed{BAD_TEXT}\x1b[0m"),
        RayWorkflowManagerError("/data", "j", f"\x1b[31mRay failed{BAD_TEXT}\x1b[0m"),
    ):
        assert "Ray failedcaf\\udce9.csv" in str(error)
        assert str(error).isprintable()
