"""Tasks run in the runtime environment of whoever made their graph, as in plain Ray.

Ray passes it on from the process that submits a task, and here that is the manager, which has the
one of another job or none.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import ray

from airflow_provider_rayworkflow.workflow.codec import dumps
from airflow_provider_rayworkflow.workflow.graph import Graph, Task

Json = dict[str, Any]


def current_environment() -> Json:
    """The runtime environment of this process, ``{}`` for none."""
    return dict(ray.get_runtime_context().runtime_env) if ray.is_initialized() else {}


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
    tasks: list[Task] = []
    for task in graph.tasks:
        if task.ray_options not in known:
            options = pickle.loads(blobs[task.ray_options]) if task.ray_options >= 0 else {}
            options["runtime_env"] = merged(environment, dict(options.get("runtime_env") or {}))
            known[task.ray_options] = len(blobs)
            blobs.append(dumps(options))
        tasks.append(replace(task, ray_options=known[task.ray_options]))
    return replace(graph, tasks=tasks, blobs=blobs)
