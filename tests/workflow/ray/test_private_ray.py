"""The parts of Ray that are not public do what we need them for; a docstring says what breaks if not."""

import threading
import uuid

import pytest
import ray
from witness import wait_until

from airflow_provider_rayworkflow.workflow.runtime import private_ray


@ray.remote
def give(value):
    if isinstance(value, Exception):
        raise value
    return value


def test_ray_takes_an_option_that_was_registered():
    """Without it ``workflow.options`` raises ValueError: no task can have an id, retries or a time limit."""
    name = f"_of_a_test_{uuid.uuid4().hex}"
    with pytest.raises(ValueError, match=f"Invalid option keyword {name}"):
        give.options(**{name: 1})
    private_ray.accept_option(name)
    assert give.options(**{name: 1}).bind(2).get_options()[name] == 1


def test_ray_refuses_options_of_a_task():
    """Without it ``@workflow.task(num_cpus=-1)`` fails when the task is submitted, and not where it is written."""
    private_ray.check_task_options({"num_cpus": 2, "memory": 10_000, "max_calls": 1})
    with pytest.raises(ValueError, match="num_cpus cannot be negative"):
        private_ray.check_task_options({"num_cpus": -1})


def test_default_options_are_those_of_later_calls():
    """Without it the decorator ``@workflow.options`` has no effect."""
    private_ray.accept_option("_of_a_test")

    @ray.remote
    def decorated():
        return None

    private_ray.set_default_options(decorated, {"_of_a_test": 1, "num_cpus": 2})
    assert decorated.bind().get_options() == decorated.options(num_cpus=2).bind().get_options()
    assert decorated.bind().get_options()["_of_a_test"] == 1


@pytest.mark.parametrize("value", [7, KeyError("k")], ids=["a value", "an error"])
def test_the_end_of_a_task_is_told_by_a_callback(ray_cluster, value):
    """Without it the manager never learns that a task ended: every workflow stays RUNNING."""
    told, got = threading.Event(), []

    def take(result):
        got.append(result)
        told.set()

    ref = give.remote(value)
    private_ray.when_completed(ref, take)
    assert told.wait(60)
    if value == 7:
        assert got == [7]
    else:
        assert isinstance(got[0], ray.exceptions.RayTaskError)
        assert isinstance(got[0].cause, KeyError)


def test_lines_of_other_jobs_can_be_printed_too(ray_cluster, monkeypatch):
    """Without it a driver prints nothing of its workflows if another one started the manager."""
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher
    from ray._private.worker import global_worker

    monkeypatch.setattr(global_worker, "_filter_logs_by_job", True)  # another test may have set it
    printed = []
    own = ray.get_runtime_context().get_job_id()
    dispatcher.add_handler("ray_print_logs", printed.append)
    try:
        private_ray.print_logs_of_other_jobs(lambda data: [ln for ln in data["lines"] if ln != "b"])
        dispatcher.emit({"job": own, "lines": ["a", "b"]})
        dispatcher.emit({"job": "ff000000", "lines": ["a", "b"]})
        dispatcher.emit({"job": "ff000000", "lines": ["b"]})
        assert not global_worker._filter_logs_by_job
    finally:
        dispatcher.remove_handler("ray_print_logs")
    assert [data["lines"] for data in printed] == [["a", "b"], ["a"]]
    assert global_worker._filter_logs_by_job is True


def test_a_worker_tells_the_log_monitor_its_label():
    """Without it a driver can't tell the lines of its workflows from those of others."""
    assert private_ray.LOG_PREFIX_TASK_NAME == ":task_name:"


def test_a_node_that_stays_is_not_drained(ray_cluster):
    """Without it no task hears that its node is preempted; one that is, is in ``test_loss_causes``."""
    assert not private_ray.is_node_drained()


def test_a_cluster_without_an_autoscaler_is_known_to_have_none(ray_cluster):
    """Without it tasks wait for ever that no node can run."""
    wait_until(lambda: not private_ray.may_autoscale())  # Ray's monitor reports every few seconds
