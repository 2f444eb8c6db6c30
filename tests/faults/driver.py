"""A driver of its own: submits workflows to a cluster, says which it has submitted, and waits."""

from __future__ import annotations

import json
import sys

import ray
from shapes import Plan

from airflow_provider_rayworkflow import workflow


def main(address: str, plans: str, ledger: str) -> None:
    ray.init(address, log_to_driver=False)
    outputs = []
    for plan in (Plan(**plan) for plan in json.loads(plans)):
        outputs.append(
            workflow.run_async(
                plan.dag(ledger), workflow_id=plan.workflow_id, on_failure=plan.on_failure
            )
        )
        print(plan.workflow_id, flush=True)
    ray.wait(outputs, num_returns=len(outputs))


if __name__ == "__main__":
    main(*sys.argv[1:])
