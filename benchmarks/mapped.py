"""Mapped task instances without a cluster, as processes that Airflow's worker forks.

As a program it is that worker: it has imported what Airflow's has, forks a process for each task instance, and
prints when the first workflow task of each began and how long all of them took. ``local``: the instances share
the local Ray of the machine. ``embedded``: each starts a Ray of its own and ends it, as this package did before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.memory import MARK_VARIABLE, Peak

_ROOT = Path(__file__).parent.parent

Kind = Literal["local", "embedded", "ray alone"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of some instances.

    :ivar seconds: from the start of all to the end of the last.
    :ivar first_task_s: from the start of all until the first workflow task of any began.
    :ivar megabytes: the peak of what Ray's processes took together, the tries' own not included.
    """

    seconds: float
    first_task_s: float
    megabytes: float


@dataclass(frozen=True, kw_only=True)
class Work:
    """What each instance does: a chain of tasks.

    :ivar tasks: how many.
    :ivar task_s: CPU time of each, in seconds.
    """

    tasks: int
    task_s: float


class ColdMachine:
    """A storage, and a state folder for a local Ray that is not up yet."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self._folder = folder
        self._variables = variables

    def run(self, kind: Kind, number: int, work: Work, *, measures_memory: bool = False) -> Outcome:
        """Run so many instances at once.

        :param measures_memory: that takes time of its own: then the times are of no use.
        """
        mark = uuid.uuid4().hex
        asked = {"kind": kind, "number": number, "tasks": work.tasks, "task_s": work.task_s}
        asked |= {"mark": mark, "folder": str(self._folder)}
        command = [sys.executable, "-m", "benchmarks.mapped", json.dumps(asked)]
        peak = Peak(mark)
        with subprocess.Popen(
            command, env=os.environ | self._variables, stdout=subprocess.PIPE, text=True
        ) as worker:
            if measures_memory:
                with peak:
                    answer, _ = worker.communicate()
            else:
                answer, _ = worker.communicate()
        if worker.returncode:
            raise RuntimeError(f"an instance failed: {kind}, {number} at once")
        said = json.loads(answer.splitlines()[-1])
        return Outcome(
            seconds=said["seconds"],
            first_task_s=said["first_task_s"],
            megabytes=peak.megabytes,
        )


@contextmanager
def cold_machine() -> Iterator[ColdMachine]:
    """One whose local Ray ends with the context."""
    sys.path.append(str(_ROOT / "tests" / "support"))
    from own_local_ray import own_local_ray

    with tempfile.TemporaryDirectory() as name, own_local_ray() as local_ray:
        folder = Path(name)
        connection = {
            "conn_type": "ray_workflow",
            "extra": {"storage": str(folder / "storage"), "object_store_memory_mb": 200},
        }
        variables = {
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT": json.dumps(connection),
            "PYTHONPATH": str(_ROOT),
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_agent_register_timeout_ms": "180000",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        }
        yield ColdMachine(folder, variables | local_ray.environment)


# ---- the workflows


def chain(begun: str, tasks: int, task_s: float) -> Any:
    """A graph of tasks that take CPU time, one after the other.

    :param begun: a file that gets the time at which the first one began.
    """
    import ray

    @ray.remote
    def work(before: int) -> int:
        if not before:
            Path(begun).write_text(str(time.monotonic()))
        until = time.thread_time() + task_s
        while time.thread_time() < until:
            pass
        return before + 1

    node = work.bind(0)
    for _ in range(tasks - 1):
        node = work.bind(node)
    return node


# ---- the worker's processes


def _through_local_ray(workflow_id: str, arguments: dict[str, Any]) -> None:
    """A try, from ``execute`` on: what only a run needs is imported in it."""
    from airflow_provider_rayworkflow.clusters.hosts import engine_for
    from airflow_provider_rayworkflow.hooks import RayWorkflowHook
    from airflow_provider_rayworkflow.tries.backoff import Backoff
    from airflow_provider_rayworkflow.tries.decision import Action
    from airflow_provider_rayworkflow.tries.definition import WorkflowDefinition
    from airflow_provider_rayworkflow.tries.run_spec import RunSpec
    from airflow_provider_rayworkflow.tries.workflow_log import WorkflowLog
    from airflow_provider_rayworkflow.tries.workflow_try import WorkflowTry
    from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

    hook = RayWorkflowHook()
    definition = WorkflowDefinition.load(chain, arguments)
    spec = RunSpec(workflow_id=workflow_id, definition=definition)
    one = WorkflowTry(
        hook=hook,
        engine=engine_for(hook, spec, token=uuid.uuid4().hex, unreachable_timeout_s=60.0),
        spec=spec,
        poll_interval_s=1.0,
        backoff=Backoff(60.0),
        log=WorkflowLog(workflow_id),
    )
    one.prepare(Action.RUN)
    try:
        ended = one.wait(one.start(Action.RUN, before=None))
    finally:
        one.close()
    if ended.status is not WorkflowStatus.SUCCESSFUL:
        raise RuntimeError(f"{workflow_id} is {ended.status}: {ended.record.failure}")


def _through_own_ray(workflow_id: str, arguments: dict[str, Any]) -> None:
    """A try that starts a Ray of its own, which takes all that the machine has, and ends it."""
    import ray

    from airflow_provider_rayworkflow import workflow

    _start_ray()
    workflow.init(storage=f"{Path(arguments['begun']).parent}/storage")
    workflow.run(chain(**arguments), workflow_id=workflow_id)
    ray.shutdown()


def _through_ray_alone(workflow_id: str, arguments: dict[str, Any]) -> None:
    """Ray's own start and a Ray task: no workflow."""
    import ray

    _start_ray()

    @ray.remote
    def begin(begun: str) -> None:
        Path(begun).write_text(str(time.monotonic()))

    ray.get(begin.remote(arguments["begun"]))
    ray.shutdown()


def _start_ray() -> None:
    import ray

    # A busy machine may need more than the 30 s that Ray allows itself.
    for left in reversed(range(10)):
        try:
            ray.init(
                "local",
                object_store_memory=200 * 1024 * 1024,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
            )
            return
        except Exception:
            ray.shutdown()
            if not left:
                raise


_PROGRAMS: dict[Kind, Callable[[str, dict[str, Any]], None]] = {
    "local": _through_local_ray,
    "embedded": _through_own_ray,
    "ray alone": _through_ray_alone,
}


def main(*, kind: Kind, number: int, tasks: int, task_s: float, mark: str, folder: str) -> int:
    """Fork the instances, wait for them, and print the times; 1 if one of them failed."""
    import airflow.sdk  # noqa: F401 - as a worker has

    import airflow_provider_rayworkflow.operators  # noqa: F401

    os.environ[MARK_VARIABLE] = mark
    os.environ["RAY_AUTH_TOKEN"] = uuid.uuid4().hex * 2  # of a Ray of their own
    files = [Path(folder, f"{mark}-{instance}") for instance in range(number)]
    begun = time.monotonic()
    children = []
    for file in files:
        if not (pid := os.fork()):
            _be_instance(_PROGRAMS[kind], file.name, str(file), tasks, task_s)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    seconds = time.monotonic() - begun
    if any(codes):
        return 1
    first = min(float(file.read_text()) for file in files) - begun
    print(json.dumps({"seconds": seconds, "first_task_s": first}))
    return 0


def _be_instance(
    do: Callable[[str, dict[str, Any]], None], name: str, begun: str, tasks: int, task_s: float
) -> None:
    os.setsid()  # as Airflow's supervisor does for a task
    os.dup2(2, 1)
    try:
        do(name, {"begun": begun, "tasks": tasks, "task_s": task_s})
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(**json.loads(sys.argv[1])))
