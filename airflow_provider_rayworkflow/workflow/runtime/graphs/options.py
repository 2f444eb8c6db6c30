"""How workflow options travel on Ray's remote functions.

Ray removed the option that carried them for Ray Workflows. We register one option a workflow
option instead: they then merge, copy and pickle as Ray's own do, and Ray ignores what it does
not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.remote_function import RemoteFunction

from airflow_provider_rayworkflow.workflow.authoring.options import GivenOptions
from airflow_provider_rayworkflow.workflow.runtime import private_ray

WORKFLOW_OPTIONS = (
    "task_id",
    "metadata",
    "catch_exceptions",
    "checkpoint",
    "retry",
    "timeout_s",
    "isolate",
    "version",
    "on_change",
    "stop_grace_s",
    "max_preemptions",
    "max_oom_retries",
    "max_crashes",
    "escalate",
    "limit",
    "escalate_on",
    "when",
    "cleanup_s",
    "heartbeat_timeout_s",
    "cache",
    "limits",
    "is_event",  # ours alone: runs on the event host
)
_PREFIX = "_workflow_"


@dataclass(frozen=True, slots=True)
class _Carried:
    """The value of a workflow option.

    Of a class of ours, so that any process that unpickles the remote function imports this module,
    and Ray accepts the options there, too.
    """

    value: Any


def carry(options: Mapping[str, Any]) -> dict[str, Any]:
    """Workflow options as Ray options."""
    return {_PREFIX + option: _Carried(value) for option, value in options.items()}


def register() -> None:
    """Make Ray accept the carriers. Needed in every process that calls ``.options()``."""
    for option in WORKFLOW_OPTIONS:
        private_ray.accept_option(_PREFIX + option)


def apply(function: Any, options: dict[str, Any]) -> Any:
    """Add workflow options to a remote function, and return the same function.

    :raises ValueError: for anything but a remote function.
    """
    if not isinstance(function, RemoteFunction):
        raise ValueError(
            "Only apply 'workflow.options' to Ray remote functions: put it above @ray.remote. A "
            "@workflow.task takes its options itself."
        )
    register()
    private_ray.set_default_options(function, carry(options))
    return function


def split(options: Mapping[str, Any] | GivenOptions) -> tuple[dict[str, Any], dict[str, Any]]:
    """The workflow options and the Ray options of a call."""
    if isinstance(options, GivenOptions):
        return dict(options.workflow), dict(options.ray)
    ours = {k.removeprefix(_PREFIX): v.value for k, v in options.items() if k.startswith(_PREFIX)}
    rays = {k: v for k, v in options.items() if not k.startswith(_PREFIX)}
    return ours, rays


register()
