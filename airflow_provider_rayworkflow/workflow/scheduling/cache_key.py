"""What names a task's result in the cache: its function, code and inputs. Pure.

Fingerprints that are not known never name anything: such a task runs, and its result is not kept.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from airflow_provider_rayworkflow.workflow.model.fingerprints import combine
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task, Tasks
from airflow_provider_rayworkflow.workflow.scheduling.decision import TaskAction
from airflow_provider_rayworkflow.workflow.scheduling.node import TaskNode


def cache_key(node: TaskNode, *, dag_id: str, is_code_known: bool) -> str:
    """The key of a task's result in the cache, 64 hex digits; ``""`` for a task that does not use it.

    :param node: it has all that it takes.
    :param dag_id: the Airflow DAG that has started the workflow, ``""`` for none.
    :param is_code_known: workers run the code that the graph's fingerprints are of.
    """
    options = node.task.options.cache
    if options is None or not node.checkpoint or node.took_failures or node.task.options.is_event:
        return ""
    # A key stands for all arguments; those that the items of a map share are results of other tasks.
    upstream = node.upstream if options.key is None else ()
    taken = combine(*[_identity(other) for other in upstream])
    literals, code = node.made_of().literals, options.code if is_code_known else ""
    parts = [
        ["function", options.function],
        ["code", code] if options.version is None else ["version", options.version],
        ["literals", literals] if options.key is None else ["key", options.key],
        ["taken", taken],
        [options.scope, dag_id] if options.scope == "dag" else [options.scope],
    ]
    known = [taken, options.version is not None or code, options.key is not None or literals]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest() if all(known) else ""


def _identity(upstream: TaskNode) -> str:
    """What stands for the content of a result, ``""`` for one that is in memory only.

    Of a task without a checkpoint, its recipe would stand for it elsewhere: its code may be of any name.
    """
    is_stored = upstream.checkpoint or upstream.decision.action is TaskAction.REUSED
    if is_stored and upstream.identity:
        return upstream.identity
    return upstream.result.identity if upstream.result is not None else ""


def with_known_code(graph: Graph) -> Graph:
    """A stored continuation without ``cache=`` where the code of its tasks may be another one by now.

    Their fingerprints are of the code that made the continuation, and workers import that of now.
    """
    tasks = Tasks.of(graph.tasks)
    if not any(_is_of_unknown_code(kind) for kind in tasks.kinds):
        return graph
    return replace(graph, tasks=tasks.with_kinds(_uncached))


def _uncached(kind: Task) -> Task:
    if not _is_of_unknown_code(kind):
        return kind
    return kind._replace(options=replace(kind.options, cache=None))


def _is_of_unknown_code(kind: Task) -> bool:
    return kind.options.cache is not None and kind.options.cache.version is None
