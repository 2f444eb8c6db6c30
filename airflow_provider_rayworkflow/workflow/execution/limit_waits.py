"""The tasks of one run that wait for their limits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from airflow_provider_rayworkflow.workflow.execution.attempt_ends import Remark
from airflow_provider_rayworkflow.workflow.execution.attempt_table import AttemptTable
from airflow_provider_rayworkflow.workflow.execution.limit_keeper import LimitKeeper, Permit
from airflow_provider_rayworkflow.workflow.scheduling.node import TaskNode


class LimitWaits:
    """Asks the manager's limits for the tasks of one run.

    :param keeper: of the manager.
    :param table: of the run. It holds what waits.
    :param retry: makes a task ready again after so many seconds.
    :param on_remark: told the first task that waits, for each limit.
    """

    def __init__(
        self,
        keeper: LimitKeeper,
        table: AttemptTable,
        retry: Callable[[TaskNode, float], None],
        on_remark: Remark,
    ) -> None:
        self._keeper = keeper
        self._table = table
        self._retry = retry
        self._on_remark = on_remark
        self._order = keeper.next_order()
        self._admitted: dict[TaskNode, Permit] = {}
        self._told: set[str] = set()

    def must_wait(self, node: TaskNode) -> bool:
        """True if a task that was taken has to be put off: it is made ready again when it is its turn."""
        limits = node.task.options.limits
        if not limits or node in self._admitted:
            return False
        permit = Permit(
            self._keeper, limits, order=self._order, node=node, on_admitted=self._admitted_later
        )
        self._keeper.ask(permit)
        if permit.is_held:
            self._admitted[node] = permit
            return False
        self._table.wait_for(node, permit)
        self._tell(node, permit)
        return True

    def take(self, node: TaskNode) -> Permit | None:
        """The permit of a task that does not have to wait, for its attempt; None where it has no limits."""
        return self._admitted.pop(node, None)

    def drop_unused(self) -> None:
        """Give back the permits of tasks that were admitted and not started: they are of no use any more."""
        while self._admitted:
            self._admitted.popitem()[1].cancel()

    def _tell(self, node: TaskNode, permit: Permit) -> None:
        if self._told.issuperset(permit.names):
            return
        limit = self._keeper.blocked_by(permit)
        if limit is not None and limit.name not in self._told:
            self._told.add(limit.name)
            text = f"The task waits for the limit {limit}. Others that wait for it are not logged"
            self._on_remark("INFO", node.task_id, node.attempts, text)

    def _admitted_later(self, permit: Permit) -> None:
        self._table.enqueue(partial(self._due, permit))

    def _due(self, permit: Permit) -> None:
        if self._table.has_waited(permit.node):  # else it was stopped, and has given that back
            self._admitted[permit.node] = permit
            self._retry(permit.node, 0.0)
