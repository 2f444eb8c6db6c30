"""From the submission of a workflow to its first task on a warm cluster, against a Ray job for each workflow."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.remote import RemoteCluster, remote_cluster, wait_until
from benchmarks.rows import Row, by_count, by_time, medians

_WORK = "from submit to the first workflow task on a warm cluster"
_ALLOWED_S = 1.5

_JOB = """
import sys
import time
from pathlib import Path
import ray
from airflow_provider_rayworkflow import workflow
@ray.remote
def begin(path):
    Path(path + ".new").write_text(str(time.monotonic()))
    Path(path + ".new").replace(path)
ray.init()
workflow.init(storage=sys.argv[1])
workflow.run(begin.bind(sys.argv[2]), workflow_id=sys.argv[3])
"""


def measure(quick: bool) -> list[Row]:
    with remote_cluster() as cluster, tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def ours(workflow_id: str, begun: Path) -> None:
            engine = cluster.submit(workflow_id, beginning, path=str(begun))
            cluster.wait_for_begin(engine)

        def theirs(workflow_id: str, begun: Path) -> None:
            cluster.submit_job(_JOB, cluster.storage, str(begun), workflow_id)

        # The first round, which does not count, starts the manager.
        seconds = medians(
            {
                "ours": lambda: _seconds(cluster, folder, ours),
                "theirs": lambda: _seconds(cluster, folder, theirs),
            },
            rounds=1 if quick else 5,
        )
    return [
        by_time(_WORK, "a Ray job for each workflow", **seconds, goal="≥ 2"),
        by_count(_WORK, "1.5 s", ours=seconds["ours"], allowed=_ALLOWED_S, unit="s"),
    ]


def _seconds(cluster: RemoteCluster, folder: Path, submit: Callable[[str, Path], None]) -> float:
    """How long after its submission a workflow's task began; returns when the workflow has ended."""
    workflow_id = uuid.uuid4().hex
    begun = folder / workflow_id
    submitted_at = time.monotonic()
    submit(workflow_id, begun)
    wait_until(begun.exists)
    wait_until(lambda: not cluster.is_running(workflow_id))
    return float(begun.read_text()) - submitted_at


def beginning(path: str) -> Any:
    """The graph of one task, which says when it began."""
    import ray

    @ray.remote
    def begin() -> None:
        new = Path(f"{path}.new")
        new.write_text(str(time.monotonic()))
        new.replace(path)

    return begin.bind()
