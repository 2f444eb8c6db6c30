"""Workflows that wait at once on a cluster: the memory of its head for each, against a Ray job for each."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.remote import RemoteCluster, remote_cluster, wait_until
from benchmarks.rows import Row, by_amount, by_count

_A_JOB = "a Ray job for each"
_WAIT_S = 7_200
#: What the head may take for a workflow that waits.
_ALLOWED_MB = 1.0
_MANY = (1_000, 10_000)

_JOB = f"""
import sys
import ray
from airflow_provider_rayworkflow import workflow
ray.init()
workflow.init(storage=sys.argv[1])
ray.get(workflow.run_async(workflow.sleep({_WAIT_S}), workflow_id=sys.argv[2]))
"""


def measure(quick: bool) -> list[Row]:
    rounds, number, jobs = (1, 5, 1) if quick else (3, 200, 4)
    # Each round has a cluster of its own: a process keeps the memory that it once had.
    looks = [_look(number, jobs) for _ in range(rounds)]
    ours = statistics.median(look[0] for look in looks)
    theirs = statistics.median(look[1] for look in looks)
    return [
        by_amount(
            f"a workflow that waits on a cluster, of {number}: memory of the head",
            _A_JOB,
            ours=ours,
            theirs=theirs,
            unit="MB",
            goal="≥ 100",
        ),
        by_count(
            f"a workflow that waits on a cluster, of {number}: memory of the head",
            "1 MB",
            ours=ours,
            allowed=_ALLOWED_MB,
            unit="MB",
        ),
        *(_extrapolated(many, number, ours, theirs) for many in _MANY),
    ]


def _extrapolated(many: int, number: int, ours: float, theirs: float) -> Row:
    return by_amount(
        f"{many:,} workflows that wait on a cluster, extrapolated from {number}: memory of the head",
        _A_JOB,
        ours=many * ours / 1_000,
        theirs=many * theirs / 1_000,
        unit="GB",
        goal="≥ 100",
    )


def _look(number: int, jobs: int) -> tuple[float, float]:
    """Megabytes of the head for each workflow that waits: of ours, and with a job for each.

    The process in which they wait counts, too.
    """
    with remote_cluster() as cluster:
        _wait_there(cluster, ["first"])  # the manager and what waits are up
        before = cluster.settled_megabytes()
        _wait_there(cluster, [f"waiting-{count}" for count in range(number)])
        with_ours = cluster.settled_megabytes()
        _wait_in_jobs(cluster, ["first-job"])  # what the jobs share is up
        before_jobs = cluster.settled_megabytes()
        _wait_in_jobs(cluster, [f"job-{count}" for count in range(jobs)])
        with_jobs = cluster.settled_megabytes()
    # Of a few workflows it may be less than what the other processes give back meanwhile.
    return max(0.0, with_ours - before) / number, (with_jobs - before_jobs) / jobs


def _wait_there(cluster: RemoteCluster, workflow_ids: list[str]) -> None:
    """Submit workflows that wait, and return when all of them run."""
    engines = [cluster.submit(workflow_id, waiting) for workflow_id in workflow_ids]
    for engine in engines:
        cluster.wait_for_begin(engine)
    wait_until(lambda: all(cluster.is_running(workflow_id) for workflow_id in workflow_ids))


def _wait_in_jobs(cluster: RemoteCluster, workflow_ids: list[str]) -> None:
    """The same with a Ray job for each."""
    for workflow_id in workflow_ids:
        cluster.submit_job(_JOB, cluster.storage, workflow_id)
    wait_until(lambda: all(cluster.is_running(workflow_id) for workflow_id in workflow_ids))


def waiting() -> Any:
    """The graph of a workflow that waits."""
    from airflow_provider_rayworkflow import workflow

    return workflow.sleep(_WAIT_S)
