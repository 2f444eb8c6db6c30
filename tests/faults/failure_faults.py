"""Faults of the tasks themselves: they fail in all ways and are repaired, run out of memory, are canceled."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from owners import kill_owners
from policy_checks import by_workflow, check_rules
from runs import RECOVERY_S, Run
from shapes import Plan, draw_one

from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader, StoredWorkflow

#: What is free until Ray's memory monitor kills, in MiB; and how long other programs may keep it from that.
_FREE_MIB = 700
_MEMORY_PATIENCE_S = 60.0


def let_tasks_fail(run: Run) -> None:
    """Nothing from outside: tasks fail in all ways, from budgets that are enough or one too small."""
    run.spares_workers = True
    shapes = run.rng.sample(["troubled", "saving", "finishing", "ruled"], 4)
    run.plans[:4] = [
        draw_one(run.rng, plan.workflow_id, shape)
        for plan, shape in zip(run.plans, shapes, strict=False)
    ]
    run.begin()
    run.settle()
    run.finish()
    lines = run.ledger.lines()
    run.faults += sum(line.what == "fails" for line in lines)
    run.faults += sum(len(plan.bad_parts) for plan in run.plans)
    for workflow_id, noted in by_workflow(lines).items():
        [plan] = [one for one in run.plans if one.workflow_id == workflow_id]
        run.problems += check_rules(plan, noted)


def cancel(run: Run) -> None:
    """A workflow whose task gives back what it has rented; perhaps its manager dies meanwhile."""
    plan = run.plans[0] = replace(run.plans[0], shape="renting")
    cluster = run.world.cluster
    run.begin()
    run.wait_until(lambda: _has_begun(run, plan))
    run.wait_for_a_moment(part=0.5)
    run.settle()
    cluster.send("cancel", workflow_ids=[plan.workflow_id])
    run.faults += 1
    if run.rng.random() < 0.4:
        run.wait_until(lambda: _releases(run, plan) or ended(run, plan.workflow_id))
        kill_owners(run)
    cluster.receive()
    # Not RESUMABLE, but for the moments without a manager: the next one obeys, too.
    ends = (WorkflowStatus.CANCELED, WorkflowStatus.SUCCESSFUL)
    status = run.wait_until(
        lambda: (end := ended(run, plan.workflow_id)) and end.status in ends and end.status,
        patience_s=RECOVERY_S,
    )
    if status is WorkflowStatus.CANCELED:
        run.plans[0] = replace(plan, is_canceled=True)
    # Else it had ended in the moment before, which the checks look at.
    if "release" not in run.world.store().read_checkpoints(plan.workflow_id).records:
        run.problems.append(f"{plan.workflow_id} is {status}, and has not given back")


def take_memory(run: Run) -> None:
    """A task eats the memory of its node, so that Ray kills it, once or until its budget is used up."""
    cluster = run.world.cluster
    plan = run.plans[0] = replace(run.plans[0], shape="hungry", size=run.rng.choice([1, 1, 2, 3]))
    cluster.ask("add_small_node", free_mib=_FREE_MIB)
    try:
        run.begin()
        # Other programs of the machine may take the memory, too, or give some back.
        with suppress(TimeoutError):
            run.wait_until(lambda: run.is_at_rest([plan]), patience_s=_MEMORY_PATIENCE_S)
        found = run.found()[plan.workflow_id]
        if found is not None:
            run.faults += found.record.failed_attempts.get("out_of_memory", 0)
        run.settle()
    finally:
        cluster.ask("remove_small_node")
    cluster.ask("add_small_node")
    run.finish()
    cluster.ask("remove_small_node")


def ended(run: Run, workflow_id: str) -> StoredWorkflow | None:
    """What is stored of a workflow that is not active any more; None before that."""
    found = StatusReader(run.world.store()).read(workflow_id)
    return None if found is None or found.status.is_active else found


def _has_begun(run: Run, plan: Plan) -> bool:
    return any(line.workflow_id == plan.workflow_id for line in run.ledger.starts())


def _releases(run: Run, plan: Plan) -> bool:
    own = (plan.workflow_id, "release")
    return any((line.workflow_id, line.task_id) == own for line in run.ledger.starts())
