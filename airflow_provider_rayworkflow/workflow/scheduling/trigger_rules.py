"""What follows for other tasks when one has failed, and which of them run all the same. Pure.

A task whose upstream tasks have not all given a value does not run, unless its author has given it
another rule (``workflow.options(when=…)``). What it takes of a task that failed is the exception,
and of one that did not run, None.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from airflow_provider_rayworkflow.workflow.model.fingerprints import combine, of_text
from airflow_provider_rayworkflow.workflow.model.graph import TaskOptions
from airflow_provider_rayworkflow.workflow.model.records import Encoding, Fingerprints, Result
from airflow_provider_rayworkflow.workflow.scheduling.node import NodeState, TaskNode

#: None as a result: of a task that was skipped, and for those who take one that did not run.
NOTHING = Result(encoding=Encoding.JSON, inline=b"null")

_NOT_RUN = of_text("not run")
_FAILED = of_text("failed")


def end_without_value(node: TaskNode, error: Result | None) -> list[TaskNode]:
    """Note that a task gives no value in this run, with all that can't run because of that.

    :param error: its exception as a value; None if it did not run.
    :returns: tasks that have now all that they wait for, though not all of it is a value.
    """
    begin: list[TaskNode] = []
    pending = deque([(node, NodeState.FAILED if error else NodeState.NOT_RUN, error)])
    while pending:
        current, state, cause = pending.popleft()
        if current.has_ended:
            continue
        _end(current, state, cause)
        for dependent in current.dependents:
            if not dependent.task.options.takes_failures:
                pending.append((dependent, NodeState.NOT_RUN, cause))
                continue
            dependent.waiting_for -= 1
            if dependent.waiting_for == 0:
                begin.append(dependent)
        if current.is_tail and current.creator is not None:
            # Its result would have been the creator's, which has failed by what failed in here.
            pending.append(
                (current.creator, NodeState.FAILED if cause else NodeState.NOT_RUN, cause)
            )
    return begin


def _end(node: TaskNode, state: NodeState, cause: Result | None) -> None:
    is_failure = state is NodeState.FAILED and cause is not None
    given = cause if is_failure and cause is not None else NOTHING
    mark = _FAILED if is_failure else _NOT_RUN
    node.state = state
    node.identity = combine(mark, given.identity)
    # Not those of its inputs, which may not be known: no checkpoint is made of it.
    node.fingerprints = Fingerprints(recipe=mark, code=node.task.code)
    node.result = given if node.users else None
    node.release_inputs()


def is_skipped(node: TaskNode) -> bool:
    """True for a task that runs only after a failure, and none of its upstream tasks has failed."""
    return node.task.options.when == "any_failed" and not node.took_failures


def outlives_failures(node: TaskNode) -> bool:
    """True for a task that runs also when a failure stops all others: it, or its creator, has a rule."""
    return _is_of_one(node, lambda options: options.outlives_failures)


def outlives_cancel(node: TaskNode) -> bool:
    """True for a task that runs also after a cancel: it, or its creator, says so."""
    return _is_of_one(node, lambda options: options.cleanup_s is not None)


def _is_of_one(node: TaskNode, is_meant: Callable[[TaskOptions], bool]) -> bool:
    current: TaskNode | None = node
    while current is not None and not is_meant(current.task.options):
        current = current.creator
    return current is not None
