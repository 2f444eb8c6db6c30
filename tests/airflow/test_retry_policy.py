"""What the ready-made policy does with each member of the exception family."""

from datetime import timedelta

import pytest

from airflow_provider_rayworkflow import exceptions as errors
from airflow_provider_rayworkflow.retry_policy import RayWorkflowRetryPolicy
from airflow_provider_rayworkflow.workflow.model.records import TaskFailure

POLICY = RayWorkflowRetryPolicy(
    fail_on=["ValueError", "pipelines.errors.BadInput"], fail_on_causes=["out_of_memory"]
)


def failed(error_type: str) -> errors.RayWorkflowFailedError:
    failure = TaskFailure(task_id="t", type=error_type, message="no", traceback="")
    return errors.RayWorkflowFailedError("w", failure)


@pytest.mark.parametrize(
    ("error", "action", "delay_s"),
    [
        (failed("ValueError"), "fail", None),
        (failed("pipelines.errors.BadInput"), "fail", None),
        (failed("OSError"), "default", None),
        (errors.RayWorkflowInterruptedError("w", "x"), "retry", 10),
        (errors.RayWorkflowInterruptedError("w", "x", cause="node_lost"), "retry", 10),
        (errors.RayWorkflowInterruptedError("w", "x", cause="out_of_memory"), "fail", None),
        (errors.RayWorkflowUnreachableError("x"), "retry", 300),
        (errors.RayWorkflowStorageError("x"), "retry", 300),
        (errors.RayWorkflowQueueFullError("w"), "retry", 300),
        (errors.RayWorkflowStillActiveError("w", "runs"), "retry", 300),
        (errors.RayWorkflowConnectionError("x"), "fail", None),
        (errors.RayWorkflowNotFoundError("w", "x"), "fail", None),
        (errors.RayWorkflowTimeoutError("w", "x"), "default", None),
        (errors.RayWorkflowStartError("w", "x"), "default", None),
        (errors.RayWorkflowManagerError("s3://bucket", "j", "x"), "default", None),
        (KeyError("x"), "default", None),
    ],
)
def test_each_error_has_its_own_way(error: Exception, action: str, delay_s: float | None):
    decision = POLICY.evaluate(error, try_number=1, max_tries=3)
    delay = decision.retry_delay.total_seconds() if decision.retry_delay else None
    assert (decision.action.value, delay) == (action, delay_s)


def test_it_survives_airflows_serialisation():
    policy = RayWorkflowRetryPolicy(
        fail_on=["b", "a"],
        fail_on_causes=["system"],
        resume_delay=timedelta(seconds=1),
        outage_delay=timedelta(hours=1),
    )
    assert policy.serialize() == {
        "fail_on": ["a", "b"],
        "fail_on_causes": ["system"],
        "resume_delay": 1,
        "outage_delay": 3600,
    }
    again = RayWorkflowRetryPolicy.deserialize(policy.serialize())
    assert again.serialize() == policy.serialize()


def test_a_single_name_is_refused():
    with pytest.raises(ValueError, match="fail_on must be a list of names, not 'ValueError'"):
        RayWorkflowRetryPolicy(fail_on="ValueError")


@pytest.mark.parametrize("causes", ["crashed", ["oom"], ["application"]], ids=repr)
def test_what_is_no_cause_of_an_interruption_is_refused(causes: object):
    with pytest.raises(ValueError, match="fail_on_causes must be a list of"):
        RayWorkflowRetryPolicy(fail_on_causes=causes)
