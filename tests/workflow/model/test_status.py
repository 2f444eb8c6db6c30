"""The table of statuses, and a machine that walks through it."""

import itertools

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from airflow_provider_rayworkflow.workflow.exceptions import IllegalTransitionError
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus, check_transition

LEGAL = {
    ("NONE", "PENDING"),
    ("NONE", "RUNNING"),
    ("NONE", "RESUMABLE"),
    ("PENDING", "RUNNING"),
    ("PENDING", "RESUMABLE"),
    ("PENDING", "CANCELED"),
    ("RUNNING", "SUCCESSFUL"),
    ("RUNNING", "FAILED"),
    ("RUNNING", "RESUMABLE"),
    ("RUNNING", "CANCELED"),
    ("FAILED", "PENDING"),
    ("FAILED", "RUNNING"),
    ("FAILED", "CANCELED"),
    ("RESUMABLE", "PENDING"),
    ("RESUMABLE", "RUNNING"),
    ("RESUMABLE", "CANCELED"),
}
NAMES = ("NONE", "PENDING", "RUNNING", "SUCCESSFUL", "FAILED", "RESUMABLE", "CANCELED")
ALL = set(itertools.product(NAMES, NAMES))


@pytest.mark.invariant(8)
@pytest.mark.parametrize(("current", "new"), sorted(LEGAL))
def test_a_legal_change_passes(current: str, new: str):
    check_transition("w", WorkflowStatus(current), WorkflowStatus(new))


@pytest.mark.invariant(8)
@pytest.mark.parametrize(("current", "new"), sorted(ALL - LEGAL))
def test_every_other_change_raises_and_names_both_statuses(current: str, new: str):
    with pytest.raises(IllegalTransitionError) as raised:
        check_transition("w", WorkflowStatus(current), WorkflowStatus(new))
    assert str(raised.value) == f"Workflow[id=w] can't go from {current} to {new}."
    assert (raised.value.current, raised.value.new) == (current, new)


def test_the_statuses_are_those_of_ray_workflows():
    assert tuple(status.value for status in WorkflowStatus) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_status_is_its_name_as_a_string(name: str):
    status = WorkflowStatus(name)
    assert status == name
    assert f"{status}" == str(status) == name
    assert f"{status:>12}" == f"{name:>12}"


def test_active_are_those_that_a_live_manager_holds():
    assert {s.value for s in WorkflowStatus if s.is_active} == {"PENDING", "RUNNING"}
    assert set(WorkflowStatus.non_terminating_status()) == {"PENDING", "RUNNING"}


@pytest.mark.invariant(8)
def test_a_resume_goes_on_after_a_failure_and_an_interruption_only():
    assert {s.value for s in WorkflowStatus if s.can_be_resumed} == {"FAILED", "RESUMABLE"}


class OneWorkflow(RuleBasedStateMachine):
    """What users, managers and crashes do to one workflow, told only by words of the glossary."""

    def __init__(self) -> None:
        super().__init__()
        self.status = WorkflowStatus.NONE
        self.history = [self.status]

    def change(self, new: str) -> None:
        check_transition("w", self.status, WorkflowStatus(new))
        self.status = WorkflowStatus(new)
        self.history.append(self.status)

    @precondition(lambda self: self.status == "NONE" or self.status.can_be_resumed)
    @rule(has_slot=st.booleans())
    def submit_or_resume(self, has_slot: bool) -> None:
        self.change("RUNNING" if has_slot else "PENDING")

    @precondition(lambda self: self.status == "NONE")
    @rule()
    def fork(self) -> None:
        self.change("RESUMABLE")

    @precondition(lambda self: self.status == "PENDING")
    @rule()
    def admit(self) -> None:
        self.change("RUNNING")

    @precondition(lambda self: self.status == "RUNNING")
    @rule(end=st.sampled_from(["SUCCESSFUL", "FAILED"]))
    def end(self, end: str) -> None:
        self.change(end)

    @precondition(lambda self: self.status.is_active)
    @rule()
    def suspend_or_lose_the_manager(self) -> None:
        self.change("RESUMABLE")

    @precondition(lambda self: self.status not in ("NONE", "SUCCESSFUL", "CANCELED"))
    @rule()
    def cancel(self) -> None:
        self.change("CANCELED")

    @precondition(lambda self: self.status != "NONE" and not self.status.is_active)
    @rule()
    def delete(self) -> None:
        self.status = WorkflowStatus.NONE
        self.history = [self.status]

    @rule(new=st.sampled_from(NAMES))
    def anything_else_changes_nothing(self, new: str) -> None:
        if (self.status.value, new) not in LEGAL:
            with pytest.raises(IllegalTransitionError):
                self.change(new)

    @invariant()
    def a_final_status_was_reached_by_running_or_a_cancel(self) -> None:
        for before, after in itertools.pairwise(self.history):
            assert before not in ("SUCCESSFUL", "CANCELED")
            if after in ("SUCCESSFUL", "FAILED"):
                assert before == "RUNNING"

    @invariant()
    def an_active_workflow_can_always_be_stopped(self) -> None:
        if self.status.is_active:
            check_transition("w", self.status, WorkflowStatus.RESUMABLE)
            check_transition("w", self.status, WorkflowStatus.CANCELED)


TestOneWorkflow = OneWorkflow.TestCase
