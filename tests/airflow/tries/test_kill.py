"""Only a person's word stops a workflow; everything is done within Airflow's time."""

import logging
import threading

import pytest

from airflow_provider_rayworkflow.tries import kill
from airflow_provider_rayworkflow.tries.kill import KillTimes, how_to_stop, stop_if_asked


class Run:
    """Stands for a running workflow: it takes its time to stop."""

    def __init__(self, takes_s: float = 0) -> None:
        self.stopped: list[str] = []
        self._takes_s = takes_s

    def stop(self, how: str) -> None:
        threading.Event().wait(self._takes_s)
        self.stopped.append(how)


class TaskInstance:
    """A task instance of which Airflow has a state, or does not say it."""

    dag_id, task_id, run_id, map_index = "d", "t", "r", -1

    def __init__(self, state: str | Exception | None, takes_s: float = 0) -> None:
        self._state = state
        self._takes_s = takes_s

    def get_task_states(self, **_):
        threading.Event().wait(self._takes_s)
        if isinstance(self._state, Exception):
            raise self._state
        return {self.run_id: {self.task_id: self._state}}


@pytest.mark.invariant(6)
@pytest.mark.parametrize("policy", ["suspend", "cancel", "leave"])
@pytest.mark.parametrize("state", ["failed", "success", "skipped", "removed", "upstream_failed"])
def test_a_persons_end_of_the_task_follows_the_policy(state: str, policy: str):
    assert how_to_stop(state, policy) == policy


@pytest.mark.invariant(6)
@pytest.mark.parametrize("policy", ["suspend", "cancel", "leave"])
@pytest.mark.parametrize("state", ["running", None])
def test_the_end_of_a_worker_leaves_the_workflow_alone(state: str | None, policy: str):
    assert how_to_stop(state, policy) == "leave"


@pytest.mark.invariant(6)
@pytest.mark.parametrize("policy", ["suspend", "cancel", "leave"])
def test_a_clear_of_a_running_task_never_cancels(policy: str):
    assert how_to_stop("restarting", policy) == "suspend"


@pytest.mark.parametrize(
    ("state", "stopped"), [("failed", ["cancel"]), ("running", []), (OSError("no answer"), [])]
)
def test_the_workflow_is_stopped_by_what_airflow_says(state, stopped: list[str]):
    run = Run()
    stop_if_asked(run, TaskInstance(state), "cancel")
    assert run.stopped == stopped


@pytest.mark.timeout(60)
def test_a_silent_airflow_and_a_slow_workflow_are_not_waited_for():
    stop_if_asked(Run(takes_s=3_600), TaskInstance("failed"), "suspend")
    stop_if_asked(Run(), TaskInstance("failed", takes_s=3_600), "suspend")


def test_all_that_is_waited_for_is_within_the_time_to_the_kill():
    """Airflow kills the process 5 s after it asked."""
    times = KillTimes()
    assert times.ask_timeout_s + times.stop_timeout_s < 5


@pytest.mark.timeout(60)
def test_an_error_that_comes_after_the_time_is_in_the_log(caplog):
    late, logged = threading.Event(), threading.Event()

    class LateRun(Run):
        def stop(self, how: str) -> None:
            late.wait()
            raise OSError("the storage refuses")

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info:
                logged.set()

    handler = Seen()
    kill.log.addHandler(handler)
    try:
        times = KillTimes(stop_timeout_s=0.01)
        stop_if_asked(LateRun(), TaskInstance("failed"), "suspend", times=times)
        assert not logged.is_set()
        late.set()
        assert logged.wait(30)
    finally:
        kill.log.removeHandler(handler)
