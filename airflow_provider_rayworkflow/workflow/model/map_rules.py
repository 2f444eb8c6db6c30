"""What the author of a map asks for, as far as the scheduler decides by it."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_rayworkflow.workflow.format.documents import JsonRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class MapRules(JsonRecord):
    """What holds for the items of one map; each of its tasks has it among its options.

    :ivar items: how many there are.
    :ivar max_failed: how many of them may fail.
    :ivar max_concurrency: how many run at once; None = as many as there is room for.
    :ivar batch_size: how many may share one call of a worker.
    """

    items: int
    max_failed: int = 0
    max_concurrency: int | None = None
    batch_size: int = 1
