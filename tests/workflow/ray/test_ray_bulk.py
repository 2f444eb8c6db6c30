"""Limits and the queue, list_all and resume_all."""

import queue

import drivers
import pytest
import ray
from managers import kill_manager
from witness import wait_until

from airflow_provider_rayworkflow import workflow


@ray.remote
def pass_gate(gate, ledger, name):
    ledger.write(name)
    gate.wait()
    return name


@ray.remote
def value(given):
    return given


@ray.remote
def fail_while_closed(gate):
    if not gate.is_open:
        raise ValueError("closed")
    return "open"


def submit(names, gate, ledger):
    return {
        name: workflow.run_async(pass_gate.bind(gate, ledger, name), workflow_id=name)
        for name in names
    }


# ---- limits


def test_workflows_over_the_limit_wait_and_run_in_their_order(fresh_manager, gate, ledger):
    fresh_manager(max_running_workflows=1, max_pending_workflows=3)
    refs = submit("abcd", gate, ledger)
    assert [workflow.get_status(name) for name in "abcd"] == ["RUNNING", *["PENDING"] * 3]
    assert workflow.get_metadata("b")["status"] == "PENDING"
    assert workflow.get_metadata("b")["stats"] == {}
    ledger.wait_for("a")
    waiting = workflow.get_output_async("b")
    assert ray.wait([waiting, refs["b"]], timeout=2)[0] == []
    assert ledger.lines() == ["a"]
    gate.open()
    assert ray.get(list(refs.values())) == ["a", "b", "c", "d"]
    assert ray.get(waiting) == "b"
    assert ledger.lines() == ["a", "b", "c", "d"]
    assert workflow.get_metadata("b")["stats"]["start_time"] > 0


def test_a_full_queue_refuses_and_the_same_id_works_later(fresh_manager, gate, ledger):
    fresh_manager(max_running_workflows=2, max_pending_workflows=2)
    refs = submit("abcd", gate, ledger)
    for call in (workflow.run, workflow.run_async):
        with pytest.raises(queue.Full, match="Workflow queue has been full"):
            call(value.bind(5), workflow_id="e")
    with pytest.raises(workflow.WorkflowNotFoundError):
        workflow.get_status("e")
    # The ids that are there can be attached to.
    assert ray.wait([workflow.run_async(value.bind(0), workflow_id="d")], timeout=0.2)[0] == []
    gate.open()
    ray.get(list(refs.values()))
    assert workflow.run(value.bind(5), workflow_id="e") == 5


def test_no_queue_means_no_queue(fresh_manager, gate, ledger):
    fresh_manager(max_running_workflows=1, max_pending_workflows=0)
    refs = submit("a", gate, ledger)
    with pytest.raises(queue.Full):
        workflow.run_async(value.bind(1), workflow_id="b")
    gate.open()
    assert ray.get(refs["a"]) == "a"
    assert workflow.run(value.bind(1), workflow_id="b") == 1


def test_minus_one_means_no_limit(fresh_manager, gate, ledger):
    fresh_manager(max_running_workflows=-1, max_pending_workflows=-1)
    refs = submit("abcdef", gate, ledger)
    assert {workflow.get_status(name) for name in "abcdef"} == {"RUNNING"}
    gate.open()
    ray.get(list(refs.values()))


def test_a_resume_of_a_workflow_waits_its_turn_too(fresh_manager, gate, ledger, tmp_path):
    from witness import Gate

    other = Gate(tmp_path / "other")
    fresh_manager(max_running_workflows=1, max_pending_workflows=1)
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(fail_while_closed.bind(other), workflow_id="failed")
    other.open()
    submit("ab", gate, ledger)
    with pytest.raises(queue.Full):
        workflow.resume_async("failed")
    assert workflow.get_status("failed") is workflow.FAILED
    gate.open()
    assert ray.get([workflow.get_output_async(name) for name in "ab"]) == ["a", "b"]
    assert workflow.resume("failed") == "open"


def test_a_pending_workflow_can_be_canceled_at_once(fresh_manager, gate, ledger):
    fresh_manager(max_running_workflows=1, max_pending_workflows=2)
    refs = submit("abc", gate, ledger)
    workflow.cancel("b")
    assert workflow.get_status("b") is workflow.CANCELED
    with pytest.raises(workflow.WorkflowCancellationError):
        ray.get(refs["b"])
    assert workflow.get_status("a") is workflow.RUNNING
    gate.open()
    assert ray.get(refs["c"]) == "c"
    assert ledger.lines() == ["a", "c"]


def test_a_pending_workflow_can_be_suspended_and_resumed(fresh_manager, gate, ledger):
    fresh_manager(max_running_workflows=1, max_pending_workflows=2)
    refs = submit("ab", gate, ledger)
    workflow.suspend("b")
    assert workflow.get_status("b") is workflow.RESUMABLE
    with pytest.raises(workflow.WorkflowSuspendedError):
        ray.get(refs["b"])
    again = workflow.resume_async("b")
    assert workflow.get_status("b") is workflow.PENDING
    gate.open()
    assert ray.get(again) == "b"


def test_a_pending_workflow_cannot_be_deleted(fresh_manager, gate, ledger):
    fresh_manager(max_running_workflows=1, max_pending_workflows=2)
    refs = submit("ab", gate, ledger)
    with pytest.raises(workflow.WorkflowStillActiveError):
        workflow.delete("b")
    gate.open()
    assert ray.get(refs["b"]) == "b"


def test_a_slot_is_free_again_however_a_workflow_ends(fresh_manager, gate, ledger, crash):
    @ray.remote(max_retries=0)
    def pass_by():
        crash.pass_by()

    fresh_manager(max_running_workflows=1, max_pending_workflows=0)
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(fail_while_closed.bind(gate))
    crash.arm()
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(pass_by.bind())
    for stop in (workflow.cancel, workflow.suspend):
        submit([stop.__name__], gate, ledger)
        stop(stop.__name__)
    with pytest.raises(TypeError):
        workflow.run(value.bind(1, 2))
    assert workflow.run(value.bind(1)) == 1


def test_equal_limits_and_none_are_fine_and_others_raise(fresh_manager, tmp_path):
    fresh_manager(max_running_workflows=2, max_pending_workflows=10)
    workflow.init()
    workflow.init(max_running_workflows=2)
    workflow.init(max_pending_workflows=10)
    workflow.init(max_running_workflows=2, max_pending_workflows=10)
    for other in (
        {"max_running_workflows": 3},
        {"max_running_workflows": -1},
        {"max_pending_workflows": 9},
        {"max_running_workflows": 2, "max_pending_workflows": 11},
    ):
        with pytest.raises(ValueError, match="was asked for"):
            workflow.init(**other)
    output = drivers.run(
        f"""
        ray.init("{ray.get_runtime_context().gcs_address}")
        workflow.init(max_running_workflows=2)
        try:
            workflow.init(max_running_workflows=4)
        except ValueError as exc:
            print("refused:", exc)
        """,
        tmp_path,
    )
    assert "refused: The workflow manager of this cluster runs with" in output


def test_limits_that_no_driver_has_set_can_be_set_later(fresh_manager, gate, ledger):
    fresh_manager()
    workflow.init(max_running_workflows=1)
    workflow.init(max_pending_workflows=1)
    submit("ab", gate, ledger)
    with pytest.raises(queue.Full):
        workflow.run_async(value.bind(1), workflow_id="c")
    with pytest.raises(ValueError, match="max_running_workflows=1"):
        workflow.init(max_running_workflows=2)
    gate.open()


# ---- list_all


def test_list_all_of_nothing_is_empty(fresh_manager):
    fresh_manager()
    assert workflow.list_all() == []
    assert workflow.list_all("RUNNING") == []


def test_list_all_by_status(fresh_manager, gate, ledger, tmp_path):
    from witness import Gate

    never = Gate(tmp_path / "never")
    fresh_manager(max_running_workflows=3)
    workflow.run(value.bind(1), workflow_id="done")
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(fail_while_closed.bind(never), workflow_id="failed")
    submit(["suspended", "canceled"], gate, ledger)
    workflow.suspend("suspended")
    workflow.cancel("canceled")
    submit(["run 1", "run 2", "run 3", "waits"], gate, ledger)
    everything = {
        "done": "SUCCESSFUL",
        "failed": "FAILED",
        "suspended": "RESUMABLE",
        "canceled": "CANCELED",
        "run 1": "RUNNING",
        "run 2": "RUNNING",
        "run 3": "RUNNING",
        "waits": "PENDING",
    }
    listed = workflow.list_all()
    assert len(listed) == len(everything)
    assert dict(listed) == everything
    assert all(isinstance(status, workflow.WorkflowStatus) for _, status in listed)
    for status in set(everything.values()):
        expected = {name: s for name, s in everything.items() if s == status}
        for spelling in (status, workflow.WorkflowStatus(status), {status}):
            assert dict(workflow.list_all(spelling)) == expected
    both = {"PENDING", workflow.CANCELED}
    assert dict(workflow.list_all(both)) == {"waits": "PENDING", "canceled": "CANCELED"}
    assert dict(workflow.list_all(set())) == {}
    gate.open()


def test_fifty_workflows_fail_or_succeed_and_the_failed_ones_are_resumed(
    fresh_manager, gate, tmp_path
):
    from witness import Gate

    fixed = Gate(tmp_path / "fixed")

    @ray.remote
    def work(number):
        gate.wait()
        if number % 2 and not fixed.is_open:
            raise ValueError("odd")
        return number

    fresh_manager()
    refs = {
        f"{number:02}": workflow.run_async(work.bind(number), workflow_id=f"{number:02}")
        for number in range(50)
    }
    assert len(workflow.list_all(workflow.RUNNING)) == 50
    gate.open()
    ray.wait(list(refs.values()), num_returns=50)
    odd = [f"{number:02}" for number in range(1, 50, 2)]
    even = [f"{number:02}" for number in range(0, 50, 2)]
    assert [name for name, _ in workflow.list_all("FAILED")] == odd
    assert [name for name, _ in workflow.list_all({"SUCCESSFUL"})] == even
    assert workflow.resume_all() == []
    fixed.open()
    workflow.cancel("01")
    resumed = workflow.resume_all(include_failed=True)
    assert [name for name, _ in resumed] == odd[1:]
    assert ray.get([ref for _, ref in resumed]) == list(range(3, 50, 2))
    assert len(workflow.list_all("SUCCESSFUL")) == 49
    assert workflow.list_all("FAILED") == []


# ---- resume_all


def test_after_the_manager_is_gone_those_that_ran_are_resumed_first(fresh_manager, gate, ledger):
    root = fresh_manager(max_running_workflows=2, max_pending_workflows=2)
    submit(["z ran", "y ran", "b waited", "a waited"], gate, ledger)
    kill_manager()
    workflow.init(storage=str(root), max_running_workflows=2, max_pending_workflows=2)
    wait_until(lambda: len(workflow.list_all("RESUMABLE")) == 4)
    assert {name for name, _ in workflow.list_all("RESUMABLE")[:2]} == {"y ran", "z ran"}
    resumed = workflow.resume_all()
    assert {name for name, _ in resumed} == {"z ran", "y ran", "a waited", "b waited"}
    assert {name for name, _ in workflow.list_all("RUNNING")} == {"y ran", "z ran"}
    assert {name for name, _ in workflow.list_all("PENDING")} == {"a waited", "b waited"}
    gate.open()
    assert {ray.get(ref) for _, ref in resumed} == {name for name, _ in resumed}
    assert workflow.resume_all() == []


def test_a_workflow_that_cannot_be_resumed_does_not_stop_the_others(fresh_manager, gate, ledger):
    root = fresh_manager()
    submit(["broken", "good", "other"], gate, ledger)
    for name in ("broken", "good", "other"):
        workflow.suspend(name)
    [graph] = [path for path in root.rglob("*.epoch") if "broken" in path.parent.name]
    graph.write_bytes(graph.read_bytes()[:-10])
    gate.open()
    resumed = dict(workflow.resume_all())
    assert set(resumed) == {"broken", "good", "other"}
    assert ray.get([resumed["good"], resumed["other"]]) == ["good", "other"]
    with pytest.raises(workflow.WorkflowError, match="corrupted"):
        ray.get(resumed["broken"])
    assert dict(workflow.list_all())["broken"] is workflow.RESUMABLE
    with pytest.raises(workflow.WorkflowError, match="corrupted"):
        workflow.resume("broken")
    workflow.delete("broken")


def test_resume_all_with_a_full_queue_reports_those_that_did_not_fit(fresh_manager, gate, ledger):
    root = fresh_manager()
    submit("abc", gate, ledger)
    for name in "abc":
        workflow.suspend(name)
    kill_manager()
    workflow.init(storage=str(root), max_running_workflows=1, max_pending_workflows=1)
    gate.open()
    resumed = workflow.resume_all()
    assert [name for name, _ in resumed] == ["a", "b", "c"]
    outcomes = []
    for _, ref in resumed:
        try:
            outcomes.append(ray.get(ref))
        except queue.Full:
            outcomes.append("full")
    assert outcomes[:2] == ["a", "b"]
    assert outcomes[2] in ("full", "c")  # a may have ended in time
