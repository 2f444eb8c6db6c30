"""How many workflows may run and wait."""

import queue

import pytest

from airflow_provider_rayworkflow.workflow.model.limits import Limits, check_limits


@pytest.mark.parametrize(
    ("max_running", "max_pending"), [(None, None), (1, 0), (5, 3), (-1, -1), (10**9, None)]
)
def test_limits_that_make_sense_are_taken(max_running: int | None, max_pending: int | None):
    limits = check_limits(max_running, max_pending)
    assert limits == Limits(max_running=max_running, max_pending=max_pending)


@pytest.mark.parametrize("value", [1.0, "1", True, False, [1]])
def test_a_limit_that_is_no_whole_number_is_refused(value: object):
    with pytest.raises(TypeError, match=r"'max_running_workflows' must be None or an integer"):
        check_limits(value, None)
    with pytest.raises(TypeError, match=r"'max_pending_workflows' must be None or an integer"):
        check_limits(None, value)


@pytest.mark.parametrize("value", [0, -2, -100])
def test_a_number_of_running_workflows_that_makes_no_sense_is_refused(value: int):
    with pytest.raises(ValueError, match=rf"at least 1, not {value}"):
        check_limits(value, None)


@pytest.mark.parametrize("value", [-2, -100])
def test_a_number_of_waiting_workflows_that_makes_no_sense_is_refused(value: int):
    with pytest.raises(ValueError, match=rf"0 \(no queue\) or more, not {value}"):
        check_limits(None, value)


@pytest.mark.parametrize(
    ("max_running", "running", "can_run"),
    [
        (None, 10**6, True),
        (-1, 10**6, True),
        (1, 0, True),
        (1, 1, False),
        (3, 2, True),
        (3, 5, False),
    ],
)
def test_one_more_may_run_while_there_are_fewer(
    max_running: int | None, running: int, can_run: bool
):
    assert Limits(max_running=max_running).can_run(running) is can_run


@pytest.mark.parametrize(
    ("max_pending", "pending", "is_full"),
    [(None, 10**6, False), (-1, 10**6, False), (0, 0, True), (2, 1, False), (2, 2, True)],
)
def test_one_more_may_wait_while_there_are_fewer(
    max_pending: int | None, pending: int, is_full: bool
):
    limits = Limits(max_pending=max_pending)
    if is_full:
        with pytest.raises(queue.Full, match="Workflow queue has been full"):
            limits.check_can_wait(pending)
    else:
        limits.check_can_wait(pending)


@pytest.mark.parametrize(
    ("current", "new", "merged"),
    [(None, None, None), (None, 3, 3), (3, None, 3), (3, 3, 3), (-1, -1, -1)],
)
def test_a_limit_is_set_once_and_asked_for_again(
    current: int | None, new: int | None, merged: int | None
):
    assert Limits(max_running=current).merged(Limits(max_running=new)).max_running == merged
    assert Limits(max_pending=current).merged(Limits(max_pending=new)).max_pending == merged


def test_another_limit_than_the_one_in_force_is_refused_with_both():
    with pytest.raises(ValueError, match=r"runs with max_running_workflows=3, and .*=4 was asked"):
        Limits(max_running=3).merged(Limits(max_running=4))
    with pytest.raises(ValueError, match=r"runs with max_pending_workflows=-1, and .*=0 was asked"):
        Limits(max_pending=-1).merged(Limits(max_pending=0))
