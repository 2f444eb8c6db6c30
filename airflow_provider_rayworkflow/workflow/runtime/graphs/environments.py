"""Tasks run in the runtime environment of the process that made their graph, as in plain Ray.

Ray passes it on from the process that submits a task, and here that is the manager, which has the
one of another job or none.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from typing import Any

import ray

from airflow_provider_rayworkflow.workflow.model.code_variables import base_code, code_of
from airflow_provider_rayworkflow.workflow.model.codec import dumps
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task, Tasks

Json = dict[str, Any]


def current_environment() -> Json:
    """The runtime environment of this process, ``{}`` for none; with the code that it has without one."""
    given = dict(ray.get_runtime_context().runtime_env) if ray.is_initialized() else {}
    base = base_code(os.environ)
    return merged({"env_vars": base}, given) if base else given


def base_of_workers() -> dict[str, str]:
    """The code that workers have which this process asks for without an environment; ``{}`` for none.

    Ray hands the environment of this process down to them.
    """
    has_own = ray.is_initialized() and ray.get_runtime_context().runtime_env
    return {} if has_own else base_code(os.environ)


def merged(outer: Json, inner: Json) -> Json:
    """What a task of this environment gets that asks for another one: Ray's own rule."""
    both = outer | inner
    env_vars = outer.get("env_vars", {}) | inner.get("env_vars", {})
    return both | {"env_vars": env_vars} if env_vars else both


def with_environment(graph: Graph, environment: Json) -> Graph:
    """The graph with every task in the environment."""
    if not environment:
        return graph
    blobs = list(graph.blobs)
    known: dict[int, int] = {}

    def with_options(kind: Task) -> Task:
        if kind.ray_options not in known:
            options = pickle.loads(blobs[kind.ray_options]) if kind.ray_options >= 0 else {}
            options["runtime_env"] = merged(environment, dict(options.get("runtime_env") or {}))
            known[kind.ray_options] = len(blobs)
            blobs.append(dumps(options))
        return kind._replace(ray_options=known[kind.ray_options])

    tasks = Tasks.of(graph.tasks).with_kinds(with_options)
    return replace(graph, tasks=tasks, blobs=blobs, code=code_of(environment))
