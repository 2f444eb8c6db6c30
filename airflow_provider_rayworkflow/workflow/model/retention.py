"""How long ended workflows are kept before managers delete them by themselves. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

#: The statuses by which workflows may be pruned.
PRUNABLE = tuple(
    status.value
    for status in (
        WorkflowStatus.SUCCESSFUL,
        WorkflowStatus.FAILED,
        WorkflowStatus.RESUMABLE,
        WorkflowStatus.CANCELED,
    )
)
_MOST_DAYS = 100_000
_EXAMPLE = '{"SUCCESSFUL": 30, "FAILED": 90}'


def check_retention(retention: Any) -> dict[str, float]:
    """Days by status, as they were given.

    :raises TypeError: for anything but statuses with numbers; True and False are no numbers.
    :raises ValueError: for a status by which workflows are not pruned, and for a number of days that is not
        above 0 or makes no sense.
    """
    if not isinstance(retention, Mapping):
        raise TypeError(f"'retention' must be days by status, as {_EXAMPLE}, not {retention!r}.")
    for status, days in retention.items():
        if status not in PRUNABLE:
            raise ValueError(f"'retention' has {status!r}; its statuses are {', '.join(PRUNABLE)}.")
        if isinstance(days, bool) or not isinstance(days, (int, float)):
            raise TypeError(f"'retention' has {days!r} for {status}; give a number of days.")
        if not 0 < days <= _MOST_DAYS or not math.isfinite(days):
            raise ValueError(
                f"'retention' has {days!r} for {status}; give a number of days above 0. Leave the "
                "status out to keep its workflows."
            )
    return {str(status): days for status, days in retention.items()}
