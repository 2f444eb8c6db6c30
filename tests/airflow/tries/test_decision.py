"""Retries go on; a person's clear follows ``on_clear``; a dead DAG run's workflow is never taken."""

from dataclasses import replace

import pytest

from airflow_provider_rayworkflow.tries.decision import Action, Memory, decide, go_on
from airflow_provider_rayworkflow.tries.identity import Origin, TaskInstanceKey
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status

RETRIES = 1
# The values that Airflow gives: max_tries is 1 until a clear, and 3 after the clear of try 2.
FIRST_RUN = Origin(
    key=TaskInstanceKey(dag_id="d", task_id="t", run_id="r"),
    run_after="2026-11-22T00:00:00+00:00",
    life="life",
    max_tries=1,
    inputs="inputs",
)
CLEARED = replace(FIRST_RUN, max_tries=3)
MEMORY = Memory(life="life", since_try=1)


def action(status: Status, **changes) -> Action:
    given = {
        "found": FIRST_RUN,
        "mine": FIRST_RUN,
        "memory": MEMORY,
        "retries": RETRIES,
        "on_clear": "auto",
    }
    return decide(status=status, **given | changes).action


def test_the_first_try_runs():
    assert action(Status.NONE, found=None) is Action.RUN


@pytest.mark.parametrize("on_clear", ["auto", "resume", "restart"])
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status.PENDING, Action.ATTACH),
        (Status.RUNNING, Action.ATTACH),
        (Status.FAILED, Action.RESUME),
        (Status.RESUMABLE, Action.RESUME),
        (Status.SUCCESSFUL, Action.TAKE),
        (Status.CANCELED, Action.TAKE),
    ],
)
def test_a_retry_goes_on_with_each_value_of_on_clear(
    status: Status, expected: Action, on_clear: str
):
    assert action(status, on_clear=on_clear) is expected


@pytest.mark.parametrize(
    ("on_clear", "status", "expected"),
    [
        ("auto", Status.SUCCESSFUL, Action.START_OVER),
        ("auto", Status.FAILED, Action.RESUME),
        ("auto", Status.RESUMABLE, Action.RESUME),
        ("auto", Status.RUNNING, Action.ATTACH),
        ("auto", Status.CANCELED, Action.TAKE),
        ("resume", Status.SUCCESSFUL, Action.RESUME),
        ("resume", Status.FAILED, Action.RESUME),
        ("restart", Status.SUCCESSFUL, Action.START_OVER),
        ("restart", Status.FAILED, Action.START_OVER),
        ("restart", Status.RESUMABLE, Action.START_OVER),
        ("restart", Status.CANCELED, Action.START_OVER),
    ],
)
def test_a_clear_follows_on_clear(on_clear: str, status: Status, expected: Action):
    assert action(status, mine=CLEARED, on_clear=on_clear) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status.NONE, Action.RUN),
        (Status.FAILED, Action.RESUME),
        (Status.SUCCESSFUL, Action.RESUME),
        (Status.RUNNING, Action.ATTACH),
        (Status.CANCELED, Action.TAKE),
    ],
)
@pytest.mark.parametrize("mine", [FIRST_RUN, CLEARED])
def test_a_restart_from_a_task_goes_before_on_clear(status: Status, expected: Action, mine: Origin):
    assert action(status, mine=mine, from_task="clean") is expected


def test_a_retry_goes_on_after_a_restart_from_a_task_and_a_clear_restarts_again():
    restarted = replace(MEMORY, restarted_at=3, went_on_at=3)
    assert restarted.due_restart("clean", max_tries=CLEARED.max_tries) == ""
    assert restarted.due_restart("clean", max_tries=5) == "clean"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status.SUCCESSFUL, (Action.RESUME, "clean")),
        (Status.RESUMABLE, (Action.RESUME, "clean")),
        (Status.RUNNING, (Action.ATTACH, "")),
        (Status.CANCELED, (Action.TAKE, "")),
    ],
)
def test_a_resume_restarts_from_a_task_what_is_over(status: Status, expected: tuple[Action, str]):
    decision = go_on(status, "it exists", from_task="clean")
    assert (decision.action, decision.from_task) == expected


def test_a_dead_dag_runs_workflow_is_not_restarted_from_a_task():
    made_again = replace(FIRST_RUN, run_after="2026-11-23T00:00:00+00:00")
    assert action(Status.FAILED, mine=made_again, from_task="clean") is Action.START_OVER


def test_a_memory_of_a_clear_and_of_a_restart_comes_back_from_json():
    stored = {"life": "life", "since_try": 1, "went_on_at": 3, "restarted_at": 2}
    assert Memory.from_json(stored, try_number=2) == replace(MEMORY, went_on_at=3, restarted_at=2)


def test_a_retry_after_a_clear_that_started_over_goes_on():
    assert action(Status.FAILED, found=CLEARED, mine=CLEARED, on_clear="restart") is Action.RESUME


def test_a_clear_that_died_before_it_started_over_starts_over_at_the_next_try():
    """Nothing tells of it but the workflow: it is still the one from before the clear."""
    assert action(Status.SUCCESSFUL, mine=CLEARED) is Action.START_OVER


def test_a_retry_after_a_clear_that_resumed_takes_the_output_that_it_made():
    resumed = replace(MEMORY, went_on_at=3)
    assert action(Status.SUCCESSFUL, mine=CLEARED, memory=resumed) is Action.TAKE


def test_the_next_clear_counts_again():
    resumed = replace(MEMORY, went_on_at=3)
    again = replace(FIRST_RUN, max_tries=5)
    assert action(Status.SUCCESSFUL, mine=again, memory=resumed) is Action.START_OVER


@pytest.mark.parametrize("status", [Status.SUCCESSFUL, Status.FAILED, Status.RUNNING])
@pytest.mark.parametrize("on_clear", ["auto", "resume"])
def test_a_dag_run_made_again_with_the_same_run_id_starts_over(status: Status, on_clear: str):
    """Airflow's state store went with the first DAG run, so the life is another one."""
    made_again = replace(FIRST_RUN, life="another")
    memory = Memory(life="another", since_try=1)
    assert action(status, mine=made_again, memory=memory, on_clear=on_clear) is Action.START_OVER


def test_a_retry_of_a_dag_run_made_again_starts_over_if_the_first_try_did_not_get_there():
    memory = Memory.from_json(Memory(life="another", since_try=1).to_json(), try_number=2)
    made_again = replace(FIRST_RUN, life="another")
    assert action(Status.SUCCESSFUL, mine=made_again, memory=memory) is Action.START_OVER


def test_another_run_after_tells_of_a_dag_run_made_again_too():
    made_again = replace(FIRST_RUN, run_after="2026-11-23T00:00:00+00:00")
    assert action(Status.FAILED, mine=made_again) is Action.START_OVER


@pytest.mark.parametrize(
    ("status", "expected"),
    [(Status.FAILED, Action.RESUME), (Status.SUCCESSFUL, Action.START_OVER)],
)
def test_a_memory_that_was_lost_between_tries_counts_as_a_clear(status: Status, expected: Action):
    memory = Memory.from_json(None, try_number=2)
    mine = replace(FIRST_RUN, life=memory.life)
    assert action(status, mine=mine, memory=memory) is expected


def test_a_mapped_task_instance_never_takes_another_items_workflow():
    key = replace(FIRST_RUN.key, map_index=0)
    found = replace(FIRST_RUN, key=key)
    moved = replace(found, inputs="of another item")
    assert action(Status.RUNNING, found=found, mine=found) is Action.ATTACH
    assert action(Status.FAILED, found=found, mine=moved) is Action.START_OVER


def test_changed_arguments_of_an_unmapped_task_resume():
    assert action(Status.FAILED, mine=replace(FIRST_RUN, inputs="new")) is Action.RESUME


def test_a_workflow_of_another_task_instance_under_a_shared_id_is_shared():
    other = replace(FIRST_RUN, key=replace(FIRST_RUN.key, task_id="other"), life="x", max_tries=9)
    for found in (None, other):
        assert action(Status.SUCCESSFUL, found=found) is Action.TAKE
        assert action(Status.RUNNING, found=found) is Action.ATTACH
        assert action(Status.SUCCESSFUL, found=found, mine=CLEARED) is Action.START_OVER


def test_a_memory_is_made_at_the_first_try_and_kept():
    made = Memory.from_json(None, try_number=1)
    assert (made.since_try, made.went_on_at) == (1, -1)
    assert Memory.from_json(made.to_json(), try_number=2) == made
    assert Memory.from_json({"life": "from another version"}, try_number=2).since_try == 2
