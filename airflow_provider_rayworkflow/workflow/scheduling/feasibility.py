"""Whether any node of a cluster has what a task asks for. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.escalation import Amounts, amounts_text
from airflow_provider_rayworkflow.workflow.model.records import TaskFailure

#: What Ray gives to nodes that have the accelerator, and what a task takes of it.
_ACCELERATOR, _OF_ACCELERATOR = "accelerator_type:{}", 0.001
_RAY_NAMES = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
_TOLERANCE = 1e-6


def demand_of(options: Mapping[str, Any]) -> dict[str, float]:
    """What a task with these options of Ray needs on one node, by the names of nodes' resources."""
    given = {"num_cpus": 1} | {
        name: options[name] for name in _RAY_NAMES if options.get(name) is not None
    }
    demand = {_RAY_NAMES[name]: float(amount) for name, amount in given.items()}
    demand |= {name: float(amount) for name, amount in (options.get("resources") or {}).items()}
    if accelerator := options.get("accelerator_type"):
        demand[_ACCELERATOR.format(accelerator)] = _OF_ACCELERATOR
    return {name: amount for name, amount in demand.items() if amount}


def fits(demand: Amounts, nodes: Sequence[Amounts]) -> bool:
    """True if one of the nodes has that in total, whatever runs there now."""
    return any(_fits_on(demand, node) for node in nodes)


def _fits_on(demand: Amounts, node: Amounts) -> bool:
    return all(amount <= node.get(name, 0.0) + _TOLERANCE for name, amount in demand.items())


def infeasible_failure(task_id: str, demand: Amounts, nodes: Sequence[Amounts]) -> TaskFailure:
    """The failure of a task that no node can run.

    :param nodes: what each has in total.
    """
    return TaskFailure(
        task_id=task_id,
        type="InfeasibleTask",
        message=f"The task asks for {amounts_text(demand)} on one node, and "
        f"{_largest_text(demand, nodes)}. No autoscaler of this cluster could add a node. Let the "
        "task ask for less, or add such a node, or resume on another cluster.",
        traceback="",
        cause=Cause.SYSTEM,
    )


def _largest_text(demand: Amounts, nodes: Sequence[Amounts]) -> str:
    if not nodes:
        return "the cluster has no node"
    largest = max(nodes, key=lambda node: _nearness(demand, node))
    shown = {name: largest.get(name, 0.0) for name in demand}
    return f"the cluster's largest node has {amounts_text(shown)}"


def _nearness(demand: Amounts, node: Amounts) -> tuple[float, float]:
    """How much of the demand a node has: of the scarcest resource, and of all."""
    shares = [min(1.0, node.get(name, 0.0) / amount) for name, amount in demand.items()]
    return min(shares, default=1.0), sum(shares)
