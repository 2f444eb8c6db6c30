"""Linear runs: tasks of which each waits only for those before it, in one Ray task. Pure."""

from __future__ import annotations

from airflow_provider_rayworkflow.workflow.scheduling.decision import TaskAction
from airflow_provider_rayworkflow.workflow.scheduling.node import NodeState, TaskNode


def follower_of(node: TaskNode) -> TaskNode | None:
    """The one task that is ready as soon as this one, and all before it in its linear run, have ended.

    Ask once for each attempt of a task.

    :returns: None where no task follows, or several: those may run side by side.
    """
    ready = []
    for dependent in node.dependents:
        if dependent.covered_by is not node.linear_run:
            dependent.covered_by, dependent.covered = node.linear_run, 0
        dependent.covered += 1
        if dependent.covered == dependent.waiting_for and dependent.state is NodeState.WAITING:
            ready.append(dependent)
    # One that is checked may turn out to need no run, and one that takes failures or has limits may have to wait.
    if len(ready) != 1 or ready[0].decision.action is not TaskAction.RUNS:
        return None
    options = ready[0].task.options
    # The cache is asked when all that a task takes is known.
    if options.takes_failures or options.limits or options.cache is not None:
        return None
    return ready[0]
