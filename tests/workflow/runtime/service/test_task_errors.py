"""Errors of the manager are Ray's task errors too."""

import pickle
import queue

import pytest
import ray
from ray.exceptions import RayTaskError

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import (
    FailedOutputError,
    KeyNotFoundError,
    WorkflowAlreadyExistsError,
    WorkflowExecutionError,
    WorkflowNotFoundError,
    WorkflowTaskTimeoutError,
)
from airflow_provider_rayworkflow.workflow.runtime.service.task_errors import as_task_error

ERRORS = [
    WorkflowExecutionError("w", task_id="t", reason="boom", task_traceback="trace"),
    FailedOutputError("w", task_id="t"),
    WorkflowNotFoundError("w"),
    WorkflowAlreadyExistsError("w", "RUNNING"),
    WorkflowTaskTimeoutError("t", 1.5),
    KeyNotFoundError("k"),
    ValueError("No such workflow_id 'w'"),
    TypeError("wrong"),
    queue.Full("Workflow queue has been full"),
    OSError(2, "no file"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_it_is_of_both_classes_and_says_the_same(error):
    raised = as_task_error(error)
    assert isinstance(raised, RayTaskError)
    assert isinstance(raised, type(error))
    assert str(raised) == str(error)
    assert type(raised).__name__ == type(error).__name__
    assert vars(raised).items() >= vars(error).items()
    assert raised.cause is error


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_it_survives_pickling(error):
    again = pickle.loads(pickle.dumps(as_task_error(error)))
    assert isinstance(again, RayTaskError)
    assert isinstance(again, type(error))
    assert str(again) == str(error)


def test_it_keeps_its_causes_when_it_is_pickled():
    error = WorkflowExecutionError("w", task_id="t", reason="boom")
    error.__cause__ = RuntimeError("second")
    error.__cause__.__cause__ = KeyError("first")
    for _ in range(2):
        error = pickle.loads(pickle.dumps(as_task_error(error)))
        assert repr(error.__cause__) == "RuntimeError('second')"
        assert repr(error.__cause__.__cause__) == "KeyError('first')"
        assert error.__cause__.__cause__.__cause__ is None


def test_a_class_that_can_not_be_combined_is_raised_as_it_is():
    group = ExceptionGroup("several", [ValueError(1)])
    assert as_task_error(group) is group


@ray.remote
def fail():
    raise OSError("boom")


def test_programs_that_expect_rays_error_catch_ours_and_see_why():
    with testing.in_process() as workflows:
        with pytest.raises(RayTaskError, match="boom") as caught:
            workflows.run(fail.bind(), workflow_id="w")
        assert isinstance(caught.value, workflow.WorkflowExecutionError)
        assert repr(caught.value.__cause__) == "OSError('boom')"
        with pytest.raises(RayTaskError, match="No such workflow_id 'other'"):
            workflows.get_output("other")
