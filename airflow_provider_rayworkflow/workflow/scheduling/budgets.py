"""How often a task is tried again, by what its attempts failed of. Pure.

Each cause is paid from the budget of one option, and from no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.escalation import Amounts
from airflow_provider_rayworkflow.workflow.model.graph import RetryOptions, TaskOptions

#: Ray's own ``max_retries`` is its model: several, but not without end.
DEFAULT_MAX_OOM_RETRIES = 2
NO_END = -1

#: After so many lost nodes in a row the task itself may be what kills them.
MAX_LOSSES_IN_A_ROW = 5
#: An attempt that ran longer, in seconds, has not killed its node at once: the row begins anew.
SHORT_ATTEMPT_S = 600.0

#: Between attempts after lost nodes and lack of memory: 1 s, doubled up to 60 s.
_BACKOFF = RetryOptions(attempts=1)


class Budget(NamedTuple):
    """Who pays for a cause.

    :ivar option: the option that sets it.
    :ivar limit: how many further attempts it pays for; -1 = without end.
    """

    option: str
    limit: int

    def left(self, used: int) -> int:
        """What is left of it; -1 = it has no end."""
        return NO_END if self.limit < 0 else max(0, self.limit - used)

    def text(self, used: int) -> str:
        """Who paid and what is left, for people."""
        if self.limit < 0:
            return f"{self.option} pays, without end"
        return f"{self.option} pays, {self.left(used)} of {self.limit} left"


class Failed(NamedTuple):
    """A failed attempt, as far as budgets go by it.

    :ivar retryable: the exception is one that the author wants retried; what the system lacked may
        be there at another attempt.
    :ivar ran_s: how long the attempt is known to have run, in seconds.
    """

    cause: Cause
    retryable: bool = True
    ran_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """What a task has used up of its budgets in this run.

    :ivar used: failed attempts, by the option whose budget has paid.
    :ivar losses_in_a_row: nodes that were lost with its last attempts, all of them short.
    :ivar asks: what its next attempt asks for in place of what the author gave.
    """

    used: Mapping[str, int] = field(default_factory=dict)
    losses_in_a_row: int = 0
    asks: Amounts = field(default_factory=dict)

    def plus(self, budget: Budget, *, losses_in_a_row: int) -> Spent:
        """The same after one more failed attempt."""
        used = {**self.used, budget.option: self.used_of(budget) + 1}
        return replace(self, used=used, losses_in_a_row=losses_in_a_row)

    def escalated(self, failed: Failed, options: TaskOptions) -> Spent:
        """The same with what the next attempt asks for."""
        escalation = options.escalation
        if escalation is None or failed.cause not in escalation.on:
            return self
        return replace(self, asks=escalation.after(self.asks))

    def used_of(self, budget: Budget) -> int:
        return self.used.get(budget.option, 0)


NOTHING_SPENT = Spent()


def budget_of(cause: Cause, options: TaskOptions) -> Budget:
    """Who pays for an attempt that failed so."""
    runs_once = options.max_retries == 0
    match cause:
        case Cause.APPLICATION | Cause.TIMEOUT:
            return _application_budget(options)
        case Cause.NODE_LOST:
            default = 0 if runs_once else NO_END
            return Budget("max_preemptions", _given(options.max_preemptions, default))
        case Cause.OUT_OF_MEMORY:
            default = 0 if runs_once else DEFAULT_MAX_OOM_RETRIES
            return Budget("max_oom_retries", _given(options.max_oom_retries, default))
        case Cause.CRASHED:
            return Budget("max_crashes", _given(options.max_crashes, options.max_retries))
        case _:
            return Budget("max_retries", options.max_retries)


def _application_budget(options: TaskOptions) -> Budget:
    if options.retry is not None:
        return Budget("retry", options.retry.attempts - 1)
    return Budget("retry_exceptions", options.max_retries if options.retry_exceptions else 0)


def _given(limit: int | None, default: int) -> int:
    return default if limit is None else limit


def may_run_twice(options: TaskOptions) -> bool:
    """True if the loss of a worker is a reason to try again, whatever it was lost to."""
    given = (options.max_retries, options.max_preemptions, options.max_oom_retries)
    return 0 not in given and options.max_crashes != 0


def charge(spent: Spent, failed: Failed, options: TaskOptions) -> tuple[Spent, bool]:
    """Count a failed attempt; the second is True if another one is due."""
    if not failed.retryable:
        return spent, False
    cause = failed.cause
    budget = budget_of(cause, options)
    row = 0
    if cause is Cause.NODE_LOST and failed.ran_s <= SHORT_ATTEMPT_S:
        row = spent.losses_in_a_row + 1
    spent = spent.plus(budget, losses_in_a_row=row)
    if budget.limit < 0:
        return spent, not seems_to_kill_nodes(spent, cause, options)
    return spent, spent.used_of(budget) <= budget.limit


def seems_to_kill_nodes(spent: Spent, cause: Cause, options: TaskOptions) -> bool:
    """True if too many nodes in a row were lost with the task, and no number of its own allows that."""
    is_default = options.max_preemptions is None
    is_lost = cause is Cause.NODE_LOST
    return is_lost and is_default and spent.losses_in_a_row >= MAX_LOSSES_IN_A_ROW


def wait_s(spent: Spent, cause: Cause, options: TaskOptions, random: float) -> float:
    """How long to wait before the next attempt, in seconds.

    :param random: a number between 0 and 1.
    """
    used = spent.used_of(budget_of(cause, options))
    if cause.is_of_task:
        return options.retry.wait_s(used, random) if options.retry else 0.0
    if cause is Cause.NODE_LOST:  # a preemption after hours says nothing of the next node
        return _BACKOFF.wait_s(max(1, spent.losses_in_a_row), random)
    if cause is Cause.CRASHED:  # the first time, at once
        used -= 1
    return _BACKOFF.wait_s(used, random) if used and cause is not Cause.SYSTEM else 0.0


def killer_text() -> str:
    """Why a run ends whose task has lost too many nodes in a row, and what to do."""
    return (
        f"The nodes of {MAX_LOSSES_IN_A_ROW} attempts in a row were lost, each within "
        f"{SHORT_ATTEMPT_S / 60:.0f} minutes of its begin: the task may kill its nodes (memory, "
        "disk, a driver). Look at the node's logs, then resume; "
        "workflow.options(max_preemptions=20) allows so many in any case.\n"
    )
