"""A program with a Ray cluster of its own, which does what it is told on its standard input.

Each line is a JSON object ``{"do": …, …}``; each answer is a line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster
from shapes import Plan

from airflow_provider_rayworkflow import workflow

_PATIENCE_S = 300.0
_HEAD_CPUS = 3


@ray.remote
class _Filling:
    """Does nothing, but has CPUs for itself."""


class Agent:
    """What can be asked of it: its public methods."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._filling: Any = None
        self._node: Any = None
        self._small: Any = None

    def start(self, plans: list[dict[str, Any]], ledger: str) -> dict[str, str]:
        """Submit workflows; gives the errors of those that could not be."""
        by_id = {plan["workflow_id"]: Plan(**plan) for plan in plans}
        return _errors(
            by_id,
            lambda name: workflow.run_async(
                by_id[name].dag(ledger), workflow_id=name, on_failure=by_id[name].on_failure
            ),
        )

    def resume(self, workflow_ids: list[str]) -> dict[str, str]:
        return _errors(workflow_ids, workflow.resume_async)

    def suspend(self, workflow_ids: list[str]) -> dict[str, str]:
        return _errors(workflow_ids, workflow.suspend)

    def cancel(self, workflow_ids: list[str]) -> dict[str, str]:
        return _errors(workflow_ids, workflow.cancel)

    def outputs(self, workflow_ids: list[str]) -> dict[str, Any]:
        """What a waiting caller gets: for each the output, or the name of the error."""
        outputs = {}
        for workflow_id in workflow_ids:
            try:
                output = workflow.get_output_async(workflow_id)
                outputs[workflow_id] = ray.get(output, timeout=_PATIENCE_S)
            except Exception as exc:
                outputs[workflow_id] = type(exc).__name__
        return outputs

    def add_node(self) -> int:
        """Give the cluster another node, in place of one that is gone; its raylet's process."""
        self._node = self._cluster.add_node(num_cpus=2, object_store_memory=100 * 1024 * 1024)
        return int(self._node.all_processes["raylet"][0].process.pid)

    def drain_node(self) -> bool:
        """Ray knows from now on that the node of :meth:`add_node` is preempted; False if it does not take that."""
        from ray._raylet import GcsClient
        from ray.core.generated import autoscaler_pb2

        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        gcs = GcsClient(address=ray.get_runtime_context().gcs_address)
        deadline_ms = int((time.time() + 3600) * 1000)
        is_accepted, _ = gcs.drain_node(self._node.node_id, reason, "preempted", deadline_ms)
        return bool(is_accepted)

    def add_small_node(self, free_mib: int = 0) -> None:
        """Another node, for tasks that ask for ``small``.

        :param free_mib: Ray kills there what takes more memory than that from now on; 0: no limit.
        """
        memory = psutil.virtual_memory()
        used = memory.total - memory.available + free_mib * 2**20
        watched = {
            "RAY_memory_usage_threshold": f"{used / memory.total:.4f}",
            "RAY_memory_monitor_refresh_ms": "500",
        }
        os.environ.update(watched if free_mib else {})
        try:
            size = {"memory": 2**30, "object_store_memory": 100 * 1024 * 1024}
            self._small = self._cluster.add_node(num_cpus=1, resources={"small": 1}, **size)
        finally:
            for name in watched:
                os.environ.pop(name, None)

    def remove_small_node(self) -> None:
        self._cluster.remove_node(self._small, allow_graceful=False)

    def fill_head(self) -> None:
        """Take all CPUs of the first node, so that tasks run elsewhere."""
        if self._filling is None:
            options = {"num_cpus": _HEAD_CPUS, "resources": {"node:__internal_head__": 0.001}}
            self._filling = _Filling.options(**options).remote()
            ray.get(self._filling.__ray_ready__.remote(), timeout=_PATIENCE_S)

    def free_head(self) -> None:
        if self._filling is not None:
            ray.kill(self._filling)
            self._filling = None

    def cluster_id(self) -> str:
        """What submissions for the manager carry."""
        return str(ray.get_runtime_context().get_session_name())

    def address(self) -> str:
        return str(self._cluster.address)


def _errors(workflow_ids: Iterable[str], call: Callable[[str], object]) -> dict[str, str]:
    """Call for each workflow; gives the errors of those that failed."""
    errors = {}
    for workflow_id in workflow_ids:
        try:
            call(workflow_id)
        except Exception as exc:
            errors[workflow_id] = repr(exc)
    return errors


def main(storage: str) -> None:
    # Ray prints as it likes; the answers have the standard output for themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": _HEAD_CPUS,
            "object_store_memory": 150 * 1024 * 1024,
            "include_dashboard": False,
        },
    )
    ray.init(cluster.address, log_to_driver=False)
    workflow.init(storage=storage)
    agent = Agent(cluster)
    print(json.dumps(agent.address()), file=answers)
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(getattr(agent, command.pop("do"))(**command)), file=answers)


if __name__ == "__main__":
    main(sys.argv[1])
