"""What a task's ``cache=`` says as data, and where a result that was taken from the cache came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from airflow_provider_rayworkflow.workflow.format.documents import JsonRecord

#: Whose results a task takes: those of all workflows of the storage, or of the same Airflow DAG.
CacheScope = Literal["storage", "dag"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheOptions(JsonRecord):
    """Which results of other workflows may stand for a task's own.

    :ivar function: module and name of its function.
    :ivar max_age_s: how old they may be, in seconds; None for any age.
    :ivar version: stands for the code; None where the fingerprint of the code counts.
    :ivar key: stands for the arguments; None where their fingerprint counts.
    :ivar code: the exact fingerprint of the code; ``""`` where the version stands for it, or it can't be told.
    """

    function: str
    max_age_s: float | None = None
    version: str | None = None
    key: str | None = None
    scope: CacheScope = "storage"
    code: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheSource(JsonRecord):
    """The run of a task that made a result in the cache.

    :ivar made_at: when it was committed there, in seconds since the epoch.
    """

    workflow_id: str
    task_id: str
    made_at: float

    def text(self, now: float) -> str:
        """Where the result comes from and how old it is, for people.

        :param now: in seconds since the epoch.
        """
        return (
            f"from the cache: task {self.task_id} of workflow {self.workflow_id}, "
            f"{shown_age(now - self.made_at)} old"
        )


def shown_age(age_s: float) -> str:
    """An age in the largest unit of which it has one: ``"3 days"``."""
    for unit, length_s in _UNITS:
        if (count := int(age_s // length_s)) >= 1:
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "less than a second"


_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
