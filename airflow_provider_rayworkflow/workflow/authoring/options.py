"""The options of ``@workflow.task``: those of workflow tasks, and those that Ray has for a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_rayworkflow.workflow.authoring.option_checks import (
    TASK_ID,
    check_each,
    check_name,
)
from airflow_provider_rayworkflow.workflow.checks import check_cleanup
from airflow_provider_rayworkflow.workflow.model.cache import Cache, check_cache
from airflow_provider_rayworkflow.workflow.model.escalation import size_of

if TYPE_CHECKING:
    from typing import TypedDict

    from airflow_provider_rayworkflow.workflow.model.records import OnChange, When
    from airflow_provider_rayworkflow.workflow.model.retry import Retry
    from airflow_provider_rayworkflow.workflow.model.task_limits import TaskLimit

    class TaskKeywords(TypedDict, total=False):
        """What ``@workflow.task`` and ``with_options`` take; see :func:`.task`."""

        name: str | None
        metadata: dict[str, Any] | None
        catch_exceptions: bool
        checkpoint: bool | None
        retry: Retry | None
        cache: Cache | None
        timeout_s: float | timedelta | None
        isolate: bool
        version: str | int | None
        on_change: OnChange | None
        stop_grace_s: float | timedelta | None
        max_preemptions: int | None
        max_oom_retries: int | None
        max_crashes: int | None
        escalate: Mapping[str, float] | None
        limit: Mapping[str, float | str] | None
        escalate_on: tuple[str, ...] | None
        when: When | None
        cleanup_s: float | timedelta | None
        heartbeat_timeout_s: float | timedelta | None
        limits: Sequence[TaskLimit | str] | None
        num_cpus: float | None
        num_gpus: float | None
        memory: float | str | None
        resources: dict[str, float] | None
        accelerator_type: str | None
        runtime_env: dict[str, Any] | None
        label_selector: dict[str, str] | None
        scheduling_strategy: Any
        max_calls: int
        max_retries: int
        retry_exceptions: bool | list[type[BaseException]]


#: Ray's options of a task that make sense here; Ray checks their values when the graph is made.
RAY_OPTIONS = (
    *("num_cpus", "num_gpus", "memory", "resources", "accelerator_type", "runtime_env"),
    *("label_selector", "scheduling_strategy", "max_calls", "max_retries", "retry_exceptions"),
)

_REMEDIES = {
    TASK_ID: "Give it as name.",
    "num_returns": "A task has one result: name its outputs with f.outputs(…), or take parts of it.",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenOptions:
    """The options of one task as they were given, checked.

    :ivar workflow: options of workflow tasks, by the names of ``workflow.options``.
    :ivar ray: options of Ray.
    """

    workflow: Mapping[str, Any] = field(default_factory=dict)
    ray: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str | None:
        """The name that the author gave."""
        name: str | None = self.workflow.get(TASK_ID)
        return name

    def changed(self, given: Mapping[str, Any]) -> GivenOptions:
        """These options with others in the place of those of the same names.

        :raises ValueError: for an option that does not exist, or whose value can't be used.
        """
        for option in given:
            if option in _REMEDIES:
                raise ValueError(f"@workflow.task has no option {option!r}. {_REMEDIES[option]}")
        ours = dict(given)
        rays = {key: ours.pop(key) for key in RAY_OPTIONS if key in ours}
        if "name" in ours:
            name = ours.pop("name")
            ours[TASK_ID] = None if name is None else check_name("name", name)
        if isinstance(size := rays.get("memory"), str):
            rays["memory"] = size_of("memory", size)
        workflow = {**self.workflow, **check_each(ours, also=("name", *RAY_OPTIONS))}
        check_cleanup(workflow)
        check_cache(workflow)
        return GivenOptions(workflow=workflow, ray={**self.ray, **rays})
