"""Checks of the options of workflow tasks, one for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_args

from airflow_provider_rayworkflow.workflow.authoring.limits import named_limits
from airflow_provider_rayworkflow.workflow.checks import check_metadata, check_on_change
from airflow_provider_rayworkflow.workflow.format.shortening import MAX_NAME_BYTES
from airflow_provider_rayworkflow.workflow.model.cache import Cache
from airflow_provider_rayworkflow.workflow.model.escalation import (
    check_causes,
    check_factors,
    check_limits,
)
from airflow_provider_rayworkflow.workflow.model.records import When
from airflow_provider_rayworkflow.workflow.model.retry import Retry, seconds

TASK_ID = "task_id"


def check_each(given: Mapping[str, Any], *, also: Collection[str] = ()) -> dict[str, Any]:
    """Options as they are kept; None is the default of each.

    :param also: the names of options that the caller knows besides, for the message.
    :raises ValueError: for other options and for values that can't be used.
    """
    if unknown := sorted(set(given) - set(_CHECKS)):
        raise ValueError(
            f"Invalid option keywords {unknown} for workflow tasks. "
            f"Valid ones are {[*_CHECKS, *also]}."
        )
    return {
        key: value if value is None else _CHECKS[key](key, value) for key, value in given.items()
    }


def _flag(option: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{option} must be True or False, not {value!r}.")
    return value


def _retry(option: str, value: Any) -> Retry:
    if not isinstance(value, Retry):
        raise ValueError(f"{option} must be a workflow.Retry, not {value!r}.")
    return value


def _cache(option: str, value: Any) -> Cache:
    if not isinstance(value, Cache):
        raise ValueError(f"{option} must be a workflow.Cache, not {value!r:.100}.")
    return value


def _version(option: str, value: Any) -> str:
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise ValueError(f"{option} must be a string or a whole number, not {value!r}.")
    return str(value)


def _on_change(option: str, value: Any) -> Any:
    check_on_change(value)
    return value


def _metadata(option: str, value: Any) -> Any:
    check_metadata(value)
    return value


def _when(option: str, value: Any) -> Any:
    if value not in get_args(When):
        raise ValueError(f"{option} must be one of {get_args(When)}, not {value!r}.")
    return value


def _positive_seconds(option: str, value: Any) -> float:
    found = seconds(option, value)
    if not 0 < found < math.inf:
        raise ValueError(f"{option} must be more than 0, and have an end, not {value!r}.")
    return found


def _budget(option: str, value: Any) -> int:
    if type(value) is not int or not -1 <= value < 2**31:
        raise ValueError(f"{option} must be a whole number, or -1 for no end, not {value!r:.100}.")
    return value


def check_name(option: str, value: Any) -> str:
    """The name of a task.

    :raises ValueError: when it can't be one.
    """
    if not isinstance(value, str) or not value:
        raise ValueError(f"{option} must be a string that is not empty, not {value!r:.100}.")
    if len(value) > MAX_NAME_BYTES:
        raise ValueError(
            f"{option} {value!r:.80}… has {len(value)} characters, and may have {MAX_NAME_BYTES}."
        )
    return value


#: What checks an option: takes its name and its value, and returns the value that is kept.
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    TASK_ID: check_name,
    "metadata": _metadata,
    "catch_exceptions": _flag,
    "checkpoint": _flag,
    "retry": _retry,
    "timeout_s": seconds,
    "max_preemptions": _budget,
    "max_oom_retries": _budget,
    "max_crashes": _budget,
    "escalate": lambda _, value: check_factors(value),
    "limit": lambda _, value: check_limits(value),
    "escalate_on": lambda _, value: check_causes(value),
    "version": _version,
    "on_change": _on_change,
    "when": _when,
    "cleanup_s": _positive_seconds,
    "stop_grace_s": seconds,
    "heartbeat_timeout_s": _positive_seconds,
    "isolate": _flag,
    "cache": _cache,
    "limits": named_limits,
}
