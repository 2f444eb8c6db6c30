"""What the calls of one function with the same options have in common, made of these options."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from airflow_provider_rayworkflow.workflow.authoring.limits import declared_limits
from airflow_provider_rayworkflow.workflow.authoring.node import ItemCall
from airflow_provider_rayworkflow.workflow.authoring.options import GivenOptions
from airflow_provider_rayworkflow.workflow.checks import check_cleanup
from airflow_provider_rayworkflow.workflow.model.cache import Cache, check_cache
from airflow_provider_rayworkflow.workflow.model.cache_options import CacheOptions
from airflow_provider_rayworkflow.workflow.model.code_parts import named_instead
from airflow_provider_rayworkflow.workflow.model.escalation import escalation_of
from airflow_provider_rayworkflow.workflow.model.graph import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_OPTIONS,
    TaskOptions,
)
from airflow_provider_rayworkflow.workflow.model.ids import default_task_id, stable_module_name
from airflow_provider_rayworkflow.workflow.runtime.graphs import options as ray_options
from airflow_provider_rayworkflow.workflow.runtime.graphs.nodes import BoundCall
from airflow_provider_rayworkflow.workflow.runtime.private_ray import check_task_options

Json = dict[str, Any]


def options_of(
    task_id: str, ours: Json, rays: Json, *, cache: CacheOptions | None = None
) -> TaskOptions:
    """What the scheduler decides by.

    :param task_id: for errors.
    :param ours: workflow options.
    :param rays: Ray's; what the scheduler takes over from Ray is taken out of them.
    :param cache: what :func:`cache_options_of` gives.
    :raises ValueError: for options that don't fit together.
    """
    check_cleanup(ours)
    check_cache(ours)
    max_retries = rays.pop("max_retries", None)
    options = TaskOptions(
        catch_exceptions=bool(ours.get("catch_exceptions", False)),
        checkpoint=ours.get("checkpoint"),
        max_retries=DEFAULT_MAX_RETRIES if max_retries is None else max_retries,
        retry_exceptions=bool(rays.pop("retry_exceptions", False)),
        metadata=ours.get("metadata") or {},
        retry=ours["retry"].to_options() if ours.get("retry") else None,
        timeout_s=ours.get("timeout_s"),
        is_event=ours.get("is_event", False),
        isolate=bool(ours.get("isolate", False)) or _is_watched(ours),
        on_change=ours.get("on_change"),
        stop_grace_s=ours.get("stop_grace_s"),
        max_preemptions=ours.get("max_preemptions"),
        max_oom_retries=ours.get("max_oom_retries"),
        max_crashes=ours.get("max_crashes"),
        escalation=escalation_of(task_id, ours, rays),
        when=ours.get("when") or "all_success",
        cleanup_s=ours.get("cleanup_s"),
        heartbeat_timeout_s=ours.get("heartbeat_timeout_s"),
        cache=cache,
        limits=declared_limits(task_id, ours.get("limits")),
        map_rules=ours.get("map_rules"),
        expands=ours.get("expands", False),
        gathers=ours.get("gathers", False),
    )
    return DEFAULT_OPTIONS if options == DEFAULT_OPTIONS else options


def check_ray_options(name: str, rays: Mapping[str, Any]) -> None:
    """Return if Ray's options of a ``@workflow.task`` can be used: its decorator does not know Ray.

    :param name: of the task, for errors.
    :raises ValueError: if not.
    """
    if not rays:
        return
    try:
        check_task_options(rays)
        if flags := [key for key in ("max_retries", "memory") if isinstance(rays.get(key), bool)]:
            raise ValueError(f"{flags[0]} is a number, not {rays[flags[0]]}")
    except (TypeError, ValueError) as exc:
        raise ValueError(f"The task {name!r:.100} has options that Ray refuses: {exc}") from exc


def check_options_of_items(name: str, given: GivenOptions) -> None:
    """Return if the items of a map can have these options: they are made when it runs.

    :raises ValueError: if not.
    """
    ours, rays = ray_options.split(given)
    check_ray_options(name, rays)
    options_of(name, ours, rays)


def cache_options_of(node: BoundCall, *, is_known: bool) -> CacheOptions | None:
    """What a call's ``cache=`` says; None without one.

    :param is_known: its arguments are known: it takes no results of other tasks, and no input of the workflow.
    :raises ValueError: for a key of arguments that are not known yet, and a version of a function that
        others have the name of.
    """
    ours, _ = ray_options.split(node._bound_options)
    cache: Cache | None = ours.get("cache")
    if cache is None:
        return None
    name = default_task_id(node._body)
    if cache.version is not None or ours.get("version") is not None:
        _check_has_own_name(node._body)
    if isinstance(node, ItemCall) and node._cache_key is not None:
        return cache.to_options(_name_in_cache(node._body), node._cache_key)
    if cache.key is not None and not is_known:
        raise ValueError(
            f"The cache key of {name} is made of its arguments, and here they are not known yet: it takes "
            "the result of another task, or an input of the workflow. Leave key out: what it takes is "
            "compared by its content."
        )
    key = cache.key_of(name, node._bound_args, node._bound_kwargs)
    return cache.to_options(_name_in_cache(node._body), key)


def _check_has_own_name(body: Callable[..., Any]) -> None:
    """Return if no other function has the name of this one, for which a version stands.

    :raises ValueError: otherwise.
    """
    name = default_task_id(body)
    if "<" in body.__qualname__:
        why = "which is written inside of another function or is a lambda"
    elif named_instead(body) is not None:
        why = "and that is the name of another function, given by functools.wraps for example"
    else:
        return
    raise ValueError(
        f"A version stands for the code of {name}, {why}: others with other code have the same name, and "
        "would take its results from the cache. Write a function of the module, and give what differs as an "
        "argument; or leave the version out."
    )


def _name_in_cache(body: Callable[..., Any]) -> str:
    """Module and name of a function; of one in a program, the program's file stands for the module.

    Else functions of one name and version would be the same in all programs. A notebook has no file of its own.
    """
    name = default_task_id(body)
    code = getattr(body, "__code__", None)
    file = Path(code.co_filename) if code is not None else Path()
    is_of_program = file.suffix == ".py" and not file.parent.name.startswith("ipykernel")
    if stable_module_name(body) != "__main__" or not is_of_program:
        return name
    return f"{file.stem}{name.removeprefix('__main__')}"


def is_cached(options: Mapping[str, Any] | GivenOptions) -> bool:
    """True if results of such tasks are taken from other workflows."""
    return ray_options.split(options)[0].get("cache") is not None


def is_keyed(options: Mapping[str, Any] | GivenOptions) -> bool:
    """True if each call has a cache key of its own, and so is a kind of its own."""
    cache: Cache | None = ray_options.split(options)[0].get("cache")
    return cache is not None and cache.key is not None


def _is_watched(ours: Mapping[str, Any]) -> bool:
    """True if what happens to the task's worker is a matter of the task alone."""
    return not (ours.get("stop_grace_s") is None and ours.get("heartbeat_timeout_s") is None)


def retryable_of(
    options: Mapping[str, Any] | GivenOptions,
) -> tuple[type[BaseException], ...] | None:
    """The exceptions that the author wants retried; None for all."""
    ours, rays = ray_options.split(options)
    if ours.get("retry") is not None:
        on = ours["retry"].on
        return on if isinstance(on, tuple) else (on,)
    named = rays.get("retry_exceptions")
    return tuple(named) if isinstance(named, (list, tuple)) else None


def check_num_returns(body: Callable[..., Any], num_returns: Any) -> None:
    """Return if a function gives one result.

    :raises ValueError: if not.
    """
    if num_returns not in (None, 0, 1):
        raise ValueError(
            f"Workflow task can only have one return. {default_task_id(body)} has "
            f"num_returns={num_returns!r}; return a tuple and take it apart in another task."
        )
    if inspect.isgeneratorfunction(body):
        raise ValueError(
            f"Workflow task can only have one return. {default_task_id(body)} is a "
            "generator; return a list."
        )


def shown_option(key: str, value: Any) -> Any:
    """A Ray option for people, as JSON; without the values of environment variables."""
    if key == "runtime_env" and value:
        hidden = {name: "***" for name in value.get("env_vars") or {}}
        value = dict(value) | ({"env_vars": hidden} if hidden else {})
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return repr(value)
