"""Finds the tasks that wait for ever, since they ask for more than any node of the cluster has.

Ray keeps such a task until a node comes that has as much. Where an autoscaler may bring one, it waits; also where such
a node was there before: one that was lost is replaced.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

import ray

from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.escalation import Amounts, with_amounts
from airflow_provider_rayworkflow.workflow.model.records import TaskFailure
from airflow_provider_rayworkflow.workflow.runtime import private_ray
from airflow_provider_rayworkflow.workflow.scheduling.attempts import Errand, TaskRun
from airflow_provider_rayworkflow.workflow.scheduling.feasibility import (
    demand_of,
    fits,
    infeasible_failure,
)

log = get_logger(__name__)

#: After how many seconds such a task fails; 0 = never.
INFEASIBLE_VARIABLE = "RAY_WORKFLOW_INFEASIBLE_AFTER_S"
_DEFAULT_S = 60
# So many sizes of nodes are remembered.
_MOST_SEEN = 1000

#: What tasks have in common that ask for the same.
_Kind = tuple[bytes, tuple[tuple[str, float], ...]]


class ClusterSize(NamedTuple):
    """What a cluster has.

    :ivar nodes: what each node has in total.
    :ivar may_grow: False if it is known that no autoscaler adds nodes.
    """

    nodes: list[Amounts]
    may_grow: bool


def cluster_size() -> ClusterSize:
    """Of this cluster. Blocks."""
    found = ray.nodes()  # type: ignore[no-untyped-call]
    nodes = [node["Resources"] for node in found if node["Alive"]]
    return ClusterSize(nodes, private_ray.may_autoscale())


def infeasible_after_s(environment: Mapping[str, str]) -> float:
    """What an environment says, in seconds; 0 = never.

    :raises ValueError: when that is no number of seconds.
    """
    text = environment.get(INFEASIBLE_VARIABLE) or str(_DEFAULT_S)
    if not text.isdecimal():
        raise ValueError(
            f"{INFEASIBLE_VARIABLE} is {text!r}. Give a number of seconds; 0 for never."
        )
    return float(text)


class InfeasibleTasks:
    """Looks twice within ``after_s`` while any Ray task is under way, and fails what did not fit twice.

    Twice, since the node of a task that runs may just have gone: Ray will say so.

    :param under_way: gives the attempts that were submitted and have not ended.
    :param fail: called with an attempt that no node can run, and why.
    :param after_s: in seconds; 0 = never look.
    :param ask: gives the size of the cluster; called in a thread.
    :ivar is_looking: True from a submission until nothing is under way any more.
    """

    def __init__(
        self,
        under_way: Callable[[], Iterable[Errand]],
        fail: Callable[[Errand, TaskFailure], None],
        *,
        after_s: float,
        ask: Callable[[], ClusterSize] = cluster_size,
    ) -> None:
        self._under_way = under_way
        self._fail = fail
        self._interval_s = after_s / 2
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._suspects: set[Errand] = set()
        self._seen: dict[frozenset[tuple[str, float]], Amounts] = {}
        self.is_looking = False

    def watch(self) -> None:
        """Something has been submitted."""
        if not self.is_looking and self._interval_s:
            self.is_looking = True
            self._loop.call_later(self._interval_s, self._look)

    def _look(self) -> None:
        if not any(True for _ in self._under_way()):
            self.is_looking = False
            self._suspects.clear()
            return
        self._loop.call_later(self._interval_s, self._look)
        with suppress(RuntimeError):  # there is no thread for it now
            self._loop.run_in_executor(None, self._ask).add_done_callback(self._judge)

    def _judge(self, asked: asyncio.Future[ClusterSize]) -> None:
        if (error := asked.exception()) is not None:
            log.warning("What the cluster has can't be asked now: %s", error)
            return
        size, before = asked.result(), self._suspects
        errands = [errand for errand in self._under_way() if not errand.run.is_event]
        kinds = {_kind(errand.run) for errand in errands}
        demands = {kind: _demand(kind) for kind in kinds}
        self._note(size.nodes)
        ever = [*self._seen.values()]
        large = {kind for kind in kinds if not fits(demands[kind], ever)}
        self._suspects = {errand for errand in errands if _kind(errand.run) in large}
        if size.may_grow:
            return
        for errand in before & self._suspects:
            demand = demands[_kind(errand.run)]
            self._fail(errand, infeasible_failure(errand.run.task_id, demand, size.nodes))

    def _note(self, nodes: Iterable[Amounts]) -> None:
        for node in nodes:
            # Without what each node has of its own, its address.
            size = {name: amount for name, amount in node.items() if not name.startswith("node:")}
            if len(self._seen) < _MOST_SEEN:
                self._seen[frozenset(size.items())] = size


def _kind(run: TaskRun) -> _Kind:
    return run.ray_options, run.asks


def _demand(kind: _Kind) -> dict[str, float]:
    ray_options, asks = kind
    return demand_of(with_amounts(pickle.loads(ray_options) if ray_options else {}, asks))
