"""``workflow.limit``: limits that tasks name, and what they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_rayworkflow.workflow.format.shortening import MAX_NAME_BYTES
from airflow_provider_rayworkflow.workflow.model.task_limits import TaskLimit, check_limit

if TYPE_CHECKING:
    from airflow_provider_rayworkflow.workflow.authoring.options import GivenOptions

#: Those that were declared in this process, the latest of each name.
_declared: dict[str, TaskLimit] = {}


def limit(name: str, *, max_concurrency: int | None = None, rate: str | None = None) -> TaskLimit:
    """Declare a limit that tasks of any workflows share.

    .. code-block:: python

        vendor_api = workflow.limit("vendor_api", max_concurrency=8, rate="50/minute")

        @workflow.task(limits=[vendor_api])
        def fetch(page: int) -> dict: ...

    Each manager keeps it for all workflows that it runs; two clusters each keep it for themselves. A task
    that has to wait holds no CPU and no worker.

    :param name: what it is known by: limits of one name are one.
    :param max_concurrency: how many attempts of such tasks run at once.
    :param rate: how many of them begin at most in any span of a time: ``"10/second"``, ``"50/minute"``,
        ``"1000/hour"``, ``"5/10s"``.
    :returns: the limit, for ``limits=[…]``. Its name does, too, where it has been declared in the same process.
    :raises ValueError: for values that can't be used, and where neither is given.
    """
    declared = TaskLimit(name=name, max_concurrency=max_concurrency, rate=rate)
    check_limit(declared)
    if len(name) > MAX_NAME_BYTES:
        raise ValueError(
            f"The name of the limit {name!r:.80}… has {len(name)} characters, and may have "
            f"{MAX_NAME_BYTES}."
        )
    _declared[name] = declared
    return declared


def named_limits(option: str, value: Any) -> tuple[TaskLimit | str, ...]:
    """What was given as ``limits``, each with its declaration if there is one yet.

    :raises ValueError: for anything but limits and their names.
    """
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    given: list[Any] = list(value) if is_list else [None]
    for one in given:
        if not isinstance(one, (TaskLimit, str)) or not one:
            raise ValueError(
                f"{option} must be a list of limits, or of their names, not {value!r:.100}. Declare one: "
                'vendor_api = workflow.limit("vendor_api", max_concurrency=8).'
            )
    return tuple([_declared.get(one, one) if isinstance(one, str) else one for one in given])


def with_declared(options: GivenOptions, task_id: str) -> GivenOptions:
    """Options with the limits themselves in place of their names: for a process that does not know them.

    :raises ValueError: as :func:`declared_limits`.
    """
    given = options.workflow.get("limits")
    if not given:
        return options
    workflow = {**options.workflow, "limits": declared_limits(task_id, given)}
    return replace(options, workflow=workflow)


def declared_limits(task_id: str, given: Sequence[TaskLimit | str] | None) -> tuple[TaskLimit, ...]:
    """The limits of a task, each once, in the order of their names.

    :param given: what :func:`named_limits` has returned; None for none.
    :raises ValueError: for a name that was not declared in this process, and two limits of one name.
    """
    found: dict[str, TaskLimit] = {}
    for one in given or ():
        declared = _declared.get(one) if isinstance(one, str) else one
        if declared is None:
            raise ValueError(
                f"Task {task_id!r:.100} has limits=[{one!r:.100}], and no limit of that name was declared "
                f"in this process. Declare it in the module of the task, {_variable(one)} = "
                f"workflow.limit({one!r:.100}, …), and give the limit itself: limits=[{_variable(one)}]."
            )
        if found.setdefault(declared.name, declared) != declared:
            raise ValueError(
                f"Task {task_id!r:.100} has two limits of one name: {found[declared.name]} and {declared}."
            )
    return tuple(found[name] for name in sorted(found))


def _variable(name: Any) -> str:
    return name if isinstance(name, str) and name.isidentifier() and len(name) < 80 else "it"
