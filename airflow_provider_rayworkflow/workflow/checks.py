"""Checks of what callers give: a value is refused before anything is written, with the remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from airflow_provider_rayworkflow.workflow.model.records import (
    MAX_METADATA_BYTES,
    OnChange,
    OnExisting,
    OnFailure,
    StartOptions,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

Json = dict[str, Any]


def check_on_change(on_change: Any) -> None:
    """Return if it is a policy for tasks that have changed.

    :raises ValueError: if not.
    """
    if on_change not in get_args(OnChange):
        raise ValueError(f"on_change must be one of {get_args(OnChange)}, not {on_change!r}.")


def start_options(
    on_existing: Any, on_change: Any, on_failure: Any, from_task: Any
) -> StartOptions:
    """What a caller of ``run`` has asked for.

    :raises ValueError: for a value that can't be used.
    """
    if on_existing not in get_args(OnExisting):
        raise ValueError(f"on_existing must be 'resume', 'fail' or 'restart', not {on_existing!r}.")
    check_on_change(on_change)
    check_on_failure(on_failure)
    if on_existing == "restart" and from_task is not None:
        raise ValueError('from_task makes no sense with on_existing="restart": all tasks run.')
    return StartOptions(
        on_existing=on_existing,
        on_change=on_change,
        on_failure=on_failure,
        from_task=check_from_task(from_task),
    )


def check_on_failure(on_failure: Any) -> None:
    """Return if it is a policy for what goes on when a task has failed.

    :raises ValueError: if not.
    """
    if on_failure not in get_args(OnFailure):
        raise ValueError(f"on_failure must be one of {get_args(OnFailure)}, not {on_failure!r}.")


def check_from_task(from_task: Any) -> str:
    """The id of a task to restart from, ``""`` for None.

    :raises ValueError: for anything but text that is not empty.
    """
    if from_task is None:
        return ""
    if not isinstance(from_task, str) or not from_task:
        raise ValueError(f"from_task must be the id of a task, not {from_task!r}.")
    return from_task


def check_status_filter(status_filter: Any) -> set[WorkflowStatus]:
    """The statuses to list workflows by; None: all.

    :raises ValueError: for a status that does not exist, and for NONE.
    :raises TypeError: for anything but a status, a string, or a set of them.
    """
    valid = set(WorkflowStatus) - {WorkflowStatus.NONE}
    if status_filter is None:
        return valid
    wanted = {status_filter} if isinstance(status_filter, str) else status_filter
    if not isinstance(wanted, (set, frozenset)) or not all(isinstance(s, str) for s in wanted):
        raise TypeError(
            "status_filter must be a WorkflowStatus, its name, or a set of them, not "
            f"{status_filter!r}."
        )
    for status in wanted:
        if status not in valid:
            raise ValueError(
                f"{str(status)!r} is not a status to list workflows by. Valid ones are "
                f"{sorted(status.value for status in valid)}."
            )
    return {WorkflowStatus(status) for status in wanted}


def check_metadata(metadata: Any) -> Json:
    """Metadata as it is stored, ``{}`` for None.

    :raises ValueError: for anything but a dict that is JSON, of at most ``MAX_METADATA_BYTES``.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise ValueError(f"metadata must be a dict, not {metadata!r:.200}.")
    try:
        text = json.dumps(metadata, allow_nan=False)
        checked: Json = json.loads(text, object_pairs_hook=_distinct)
    except RecursionError as exc:
        raise ValueError("metadata is nested too deep to be JSON. Give a flat dict.") from exc
    except (TypeError, ValueError) as exc:
        raise ValueError(f"metadata must be JSON, and {_shown(metadata)} is not: {exc}.") from exc
    if len(text) > MAX_METADATA_BYTES:
        raise ValueError(
            f"metadata has {len(text)} bytes as JSON, and may have {MAX_METADATA_BYTES}. Give it "
            "to a task as an argument, or keep it elsewhere and give its address."
        )
    return checked


def _distinct(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("two of its keys are the same as JSON, such as 1 and '1'")
    return found


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.200}"
    except ValueError:  # Python shows no integer of more than 4,300 digits
        return "what was given"


def check_cleanup(options: Mapping[str, Any]) -> None:
    """Return if a task may clean up after a cancel, by all its options.

    :raises ValueError: otherwise.
    """
    if options.get("cleanup_s") is not None and options.get("when") != "all_done":
        raise ValueError('cleanup_s is for a task that runs with when="all_done".')
