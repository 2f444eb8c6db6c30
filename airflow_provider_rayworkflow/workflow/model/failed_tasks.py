"""The tasks that have failed a workflow, where there is more than one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_rayworkflow.workflow.format.columns import columns
from airflow_provider_rayworkflow.workflow.format.documents import JsonRecord, well_typed
from airflow_provider_rayworkflow.workflow.format.shown_text import one_line
from airflow_provider_rayworkflow.workflow.model.causes import Cause

if TYPE_CHECKING:
    from airflow_provider_rayworkflow.workflow.model.records import TaskFailure

Json = dict[str, Any]

#: How many failed tasks a status names.
SHOWN_FAILURES = 50

_MAX_ERROR_LENGTH = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedTask:
    """A task that has failed for good.

    :ivar attempt: its last one.
    :ivar error: type and message, shortened.
    :ivar cause: what it failed of.
    """

    task_id: str
    attempt: int
    error: str
    cause: Cause = Cause.APPLICATION

    @classmethod
    def of(cls, failure: TaskFailure, attempt: int) -> FailedTask:
        error = str(failure)
        if len(error) > _MAX_ERROR_LENGTH:
            error = error[: _MAX_ERROR_LENGTH - 1] + "…"
        return cls(task_id=failure.task_id, attempt=attempt, error=error, cause=failure.cause)


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedTasks(JsonRecord):
    """All tasks that failed in one run.

    :ivar total: how many.
    :ivar first: the first ones, at most :data:`SHOWN_FAILURES`, in the order in which they failed.
    """

    total: int
    first: tuple[FailedTask, ...]

    @classmethod
    def of(cls, failed: Sequence[FailedTask]) -> FailedTasks:
        return cls(total=len(failed), first=tuple(failed[:SHOWN_FAILURES]))

    @property
    def left_out(self) -> str:
        """How many are not named, as a sentence; ``""`` for none."""
        more = self.total - len(self.first)
        return f"and {more} more" if more else ""

    def table(self) -> list[str]:
        """A line for each task that is named, under a line of titles; safe for terminals."""
        rows = [
            (
                one_line(one.task_id),
                str(one.attempt),
                one.cause.value,
                one_line(_first_line(one.error)),
            )
            for one in self.first
        ]
        lines = list(columns([("FAILED TASK", "ATTEMPT", "CAUSE", "ERROR"), *rows]))
        return [*lines, self.left_out] if self.left_out else lines

    @classmethod
    def from_json(cls, value: Json) -> FailedTasks:
        first = tuple(
            well_typed(FailedTask(**one | {"cause": Cause(one["cause"])})) for one in value["first"]
        )
        return well_typed(cls(total=value["total"], first=first))


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")
