"""Errors of tasks: what callers see, retries, and catch_exceptions."""

import pickle

import pytest
import ray
from ray.exceptions import RayTaskError

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.exceptions import FailedOutputError


class TripError(Exception):
    """With a constructor that plain pickling of exceptions can't serve."""

    def __init__(self, city, *, code):
        super().__init__(f"no flight to {city}")
        self.city = city
        self.code = code

    def __reduce__(self):
        return _trip_error, (self.city, self.code)


def _trip_error(city, code):
    return TripError(city, code=code)


class UnpicklableError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


@ray.remote
def raise_error(error):
    raise error


@ray.remote
def add(a, b=1):
    return a + b


# ---- what callers see


@pytest.fixture
def failed(manager, new_id):
    with pytest.raises(workflow.WorkflowExecutionError) as caught:
        workflow.run(
            add.bind(
                raise_error.options(**workflow.options(task_id="book")).bind(
                    TripError("Oslo", code=7)
                )
            ),
            workflow_id=new_id,
        )
    return caught.value


def test_a_failure_names_the_task_and_has_its_traceback(failed, new_id):
    assert failed.workflow_id == new_id
    assert failed.task_id == "book"
    assert "raise error" in failed.task_traceback
    assert "worker.py" not in failed.task_traceback
    text = str(failed)
    assert f"Workflow[id={new_id}] failed during execution." in text
    assert "no flight to Oslo" in text
    assert failed.message == text


def test_a_failure_has_the_exception_as_its_cause(failed):
    assert type(failed.__cause__) is TripError
    assert (failed.__cause__.city, failed.__cause__.code) == ("Oslo", 7)


def test_a_failure_is_a_task_error_of_ray_too(failed, new_id):
    assert isinstance(failed, RayTaskError)
    assert failed.cause.workflow_id == new_id
    with pytest.raises(RayTaskError, match="doesn't exist"):
        workflow.get_status("nothing")


def test_a_failure_survives_pickling(failed):
    again = pickle.loads(pickle.dumps(failed))
    assert type(again) is type(failed)
    assert str(again) == str(failed)
    assert (again.workflow_id, again.task_id) == (failed.workflow_id, "book")
    assert again.task_traceback == failed.task_traceback
    assert again.__cause__.city == "Oslo"


def test_the_output_of_a_failed_workflow_raises_its_error_again(failed, new_id):
    assert workflow.get_status(new_id) is workflow.FAILED
    for _ in range(2):
        with pytest.raises(FailedOutputError, match="no flight to Oslo") as caught:
            workflow.get_output(new_id)
        assert isinstance(caught.value, ValueError)  # the old library's type
        assert caught.value.__cause__.code == 7
        assert caught.value.task_id == "book"


def test_the_references_of_a_failed_workflow_raise_its_error(failed, new_id):
    with pytest.raises(ValueError, match="no flight to Oslo"):
        ray.get(workflow.get_output_async(new_id))
    ref = workflow.resume_async(new_id)
    with pytest.raises(workflow.WorkflowExecutionError, match="no flight to Oslo") as caught:
        ray.get(ref)
    assert caught.value.task_id == "book"
    assert caught.value.cause.__cause__.city == "Oslo"  # Ray's error for ours


def test_an_exception_keeps_its_own_cause(manager):
    @ray.remote
    def fail():
        try:
            raise KeyError("first")
        except KeyError as exc:
            raise RuntimeError("second") from exc

    with pytest.raises(workflow.WorkflowExecutionError) as caught:
        workflow.run(fail.bind())
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert isinstance(caught.value.__cause__.__cause__, KeyError)
    assert "direct cause" in caught.value.task_traceback


def test_an_exception_that_cannot_be_unpickled_arrives_as_its_text(manager):
    @ray.remote
    def fail():
        raise UnpicklableError("one", "two")

    with pytest.raises(workflow.WorkflowExecutionError, match="one and two") as caught:
        workflow.run(fail.bind())
    assert "UnpicklableError: one and two" in str(caught.value.__cause__)


def test_sys_exit_in_a_task_is_a_failure_of_the_task(manager, new_id):
    @ray.remote(max_retries=0)
    def leave():
        raise SystemExit(3)

    with pytest.raises(workflow.WorkflowExecutionError, match="SystemExit"):
        workflow.run(leave.bind(), workflow_id=new_id)
    assert workflow.get_status(new_id) is workflow.FAILED


def test_a_value_that_cannot_be_pickled_is_a_failure_of_the_task(manager, new_id):
    @ray.remote
    def make_lock():
        import threading

        return threading.Lock()

    with pytest.raises(workflow.WorkflowExecutionError, match="pickle"):
        workflow.run(make_lock.bind(), workflow_id=new_id)
    assert workflow.get_status(new_id) is workflow.FAILED


@ray.remote(max_retries=0)
def wait_long(ledger, gate):
    ledger.write("begun")
    gate.wait()
    ledger.write("ended")


@ray.remote
def fail_beside(ledger):
    ledger.wait_for("begun")
    raise ValueError("stop")


def wait_and_fail(ledger, gate):
    return wait_long.bind(ledger, gate), fail_beside.bind(ledger)


def test_a_failure_stops_the_tasks_beside_it(manager, new_id, ledger, gate):
    @ray.remote
    def join(*values):
        return values

    with pytest.raises(workflow.WorkflowExecutionError, match="stop"):
        workflow.run(join.bind(*wait_and_fail(ledger, gate)), workflow_id=new_id)
    gate.open()
    assert workflow.get_status(new_id) is workflow.FAILED
    assert ray.get(ray.remote(lambda: 1).remote()) == 1
    assert ledger.count("ended") == 0


# ---- retries


@ray.remote
def unsteady(ledger, failures, value="value"):
    """Fails as often and in the ways that it is told: e for an exception, c for a crash."""
    import os

    done = ledger.count()
    ledger.write()
    if done < len(failures):
        if failures[done] == "c":
            os.kill(os.getpid(), 9)
        raise ValueError(f"failure {done + 1}")
    return value


@pytest.mark.parametrize("failures", ["ee", "cc", "eecc", "cece"])
def test_exceptions_and_crashes_have_a_budget_each(manager, ledger, failures):
    dag = unsteady.options(max_retries=2, retry_exceptions=True).bind(ledger, failures)
    assert workflow.run(dag) == "value"
    assert ledger.count() == len(failures) + 1


@pytest.mark.parametrize(
    ("failures", "status"), [("ee", "FAILED"), ("cc", "RESUMABLE"), ("ecc", "RESUMABLE")]
)
def test_one_failure_more_than_the_retries_ends_the_workflow(
    manager, new_id, ledger, failures, status
):
    dag = unsteady.options(max_retries=1, retry_exceptions=True).bind(ledger, failures)
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(dag, workflow_id=new_id)
    assert ledger.count() == len(failures)
    assert workflow.get_status(new_id) == status
    assert workflow.resume(new_id) == "value"


def test_exceptions_are_not_retried_by_default(manager, ledger):
    with pytest.raises(workflow.WorkflowExecutionError, match="failure 1"):
        workflow.run(unsteady.bind(ledger, "e"))
    assert ledger.count() == 1


def test_crashes_are_retried_three_times_by_default(manager, ledger):
    assert workflow.run(unsteady.bind(ledger, "ccc")) == "value"
    assert ledger.count() == 4


def test_without_retry_exceptions_a_crash_is_retried_and_an_exception_ends_it(manager, ledger):
    dag = unsteady.options(max_retries=10).bind(ledger, "cec")
    with pytest.raises(workflow.WorkflowExecutionError, match="failure 2"):
        workflow.run(dag)
    assert ledger.count() == 2


def test_no_retries_means_one_attempt(manager, ledger, new_id):
    dag = unsteady.options(max_retries=0, retry_exceptions=True).bind(ledger, "c")
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(dag, workflow_id=new_id)
    assert ledger.count() == 1
    assert workflow.get_status(new_id) is workflow.RESUMABLE


def test_minus_one_retries_without_end(manager, ledger):
    dag = unsteady.options(max_retries=-1, retry_exceptions=True).bind(ledger, "e" * 20)
    assert workflow.run(dag) == "value"
    assert ledger.count() == 21


def test_a_list_of_exceptions_says_which_ones_are_retried(manager, ledger):
    options = {"max_retries": 5, "retry_exceptions": [ValueError, KeyError]}
    assert workflow.run(unsteady.options(**options).bind(ledger, "ee")) == "value"
    with pytest.raises(workflow.WorkflowExecutionError) as caught:
        workflow.run(
            unsteady.options(max_retries=5, retry_exceptions=[KeyError]).bind(ledger, "e" * 9)
        )
    assert isinstance(caught.value.__cause__, ValueError)
    assert ledger.count() == 4


def test_fewer_retries_than_minus_one_are_refused_by_ray(manager):
    with pytest.raises(ValueError, match="max_retries"):
        unsteady.options(max_retries=-2)


# ---- catch_exceptions

catching = workflow.options(catch_exceptions=True)


def test_a_caught_value_is_the_first_of_a_pair(manager, new_id):
    assert workflow.run(add.options(**catching).bind(1), workflow_id=new_id) == (2, None)
    assert workflow.get_output(new_id) == (2, None)


def test_a_caught_exception_is_the_second_of_a_pair(manager, new_id, ledger):
    @ray.remote
    def fail():
        ledger.write()
        raise TripError("Rome", code=1)

    value, error = workflow.run(fail.options(**catching).bind(), workflow_id=new_id)
    assert value is None
    assert isinstance(error, TripError)
    assert error.city == "Rome"
    assert workflow.get_status(new_id) is workflow.SUCCESSFUL
    # It is checkpointed: it can be read later, and nothing runs again.
    assert isinstance(workflow.get_output(new_id)[1], TripError)
    assert isinstance(workflow.resume(new_id)[1], TripError)
    assert ledger.count() == 1


def test_a_task_may_handle_what_its_input_caught(manager):
    @ray.remote
    def handle(caught):
        value, error = caught
        return f"{type(error).__name__}: {error}" if error else value

    caught = raise_error.options(**catching).bind(ValueError("bad"))
    assert workflow.run(handle.bind(caught)) == "ValueError: bad"
    assert workflow.run(handle.bind(add.options(**catching).bind(1))) == 2


def test_an_exception_is_caught_after_its_retries(manager, ledger):
    again = unsteady.options(max_retries=2, retry_exceptions=True, **catching)
    value, error = workflow.run(again.bind(ledger, "eeee"))
    assert value is None
    assert str(error) == "failure 3"
    assert ledger.count() == 3


def test_a_crash_is_not_caught(manager, new_id, ledger):
    dag = unsteady.options(max_retries=0, **catching).bind(ledger, "c")
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(dag, workflow_id=new_id)
    assert workflow.get_status(new_id) is workflow.RESUMABLE
    assert workflow.resume(new_id) == ("value", None)


@ray.remote
def descend(depth, error=None, *, then=None):
    if depth:
        return workflow.continuation(descend.bind(depth - 1, error))
    if error is not None:
        raise error
    return "bottom"


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_catching_covers_the_continuation_and_wraps_the_value_once(manager, depth):
    assert workflow.run(descend.options(**catching).bind(depth)) == ("bottom", None)
    value, error = workflow.run(descend.options(**catching).bind(depth, ValueError("deep")))
    assert value is None
    assert isinstance(error, ValueError)
    assert str(error) == "deep"


def test_catching_on_every_level_wraps_the_value_once(manager):
    @workflow.options(catch_exceptions=True)
    @ray.remote
    def every(depth):
        return workflow.continuation(every.bind(depth - 1)) if depth else "bottom"

    assert workflow.run(every.bind(4)) == ("bottom", None)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_an_exception_beside_the_output_of_a_continuation_is_caught_too(manager, new_id, depth):
    @ray.remote
    def start():
        return workflow.continuation(add.bind(1, descend.bind(depth, ValueError("beside"))))

    value, error = workflow.run(start.options(**catching).bind(), workflow_id=new_id)
    assert value is None
    assert str(error) == "beside"
    assert workflow.get_status(new_id) is workflow.SUCCESSFUL


def test_the_nearest_task_that_catches_gets_the_exception(manager):
    @ray.remote
    def inner():
        return workflow.continuation(descend.bind(1, ValueError("near")))

    @ray.remote
    def describe(caught):
        return f"handled {caught[1]}"

    @ray.remote
    def outer():
        return workflow.continuation(describe.bind(inner.options(**catching).bind()))

    assert workflow.run(outer.options(**catching).bind()) == ("handled near", None)


def test_a_caught_failure_stops_what_is_left_of_the_continuation(manager, ledger, gate):
    @ray.remote
    def start():
        return workflow.continuation(add.bind(*wait_and_fail(ledger, gate)))

    @ray.remote
    def handle(caught):
        return str(caught[1])

    assert workflow.run(handle.bind(start.options(**catching).bind())) == "stop"
    gate.open()
    assert workflow.run(add.bind(1)) == 2
    assert ledger.count("ended") == 0
