"""Faults of Airflow tasks on the local Ray: processes of either die, and the workflows go on."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import processes
from airflow_task import AirflowTask
from local_ray_parts import LocalRayParts
from owners import kill_owners, kill_process
from runs import Run
from worlds import AirflowWorld

_TASKS = 3
_TRY_TIMEOUT_S = 400.0
#: So many tries follow the first one of a task, which may have been killed.
_RETRIES = 2

_Tries = list[tuple[AirflowTask, "subprocess.Popen[bytes]"]]


def kill_airflow_task(run: Run) -> None:
    """The process of an Airflow task, once or twice; its workflow goes on, and the next try attaches."""
    [task] = _tasks(run, 1)
    for _ in range(run.rng.randint(1, 2)):
        with task.running() as process:
            run.wait_for_a_moment(unless=lambda process=process: process.poll() is not None)
            run.faults += process.poll() is None
            process.kill()
    plan = task.plan
    has_begun = run.found()[plan.workflow_id] is not None
    epoch = run.world.store().last_epoch(plan.workflow_id)
    with _running([task]) as tries:
        _end(run, tries)
    is_resumed = run.world.store().last_epoch(plan.workflow_id) != epoch
    if has_begun and is_resumed and plan.output is not None and not plan.may_stop:
        run.problems.append(f"{plan.workflow_id} did not go on when its Airflow task was killed")
    _check_keepers(run)


def kill_starter(run: Run) -> None:
    """The first try on a cold machine, while the local Ray starts; others come, and its own next try."""
    parts = _parts(run)
    parts.clear()
    tasks = _tasks(run, _TASKS)
    with tasks[0].running() as starter:
        run.wait_until(lambda: parts.all() or starter.poll() is not None)
        time.sleep(run.rng.random() * 4)
        run.faults += starter.poll() is None
        starter.kill()
    with _running(tasks) as tries:
        _end(run, tries)
    _check_keepers(run)


def kill_keeper(run: Run) -> None:
    """The keeper while several workflows run: Ray ends with it, and the tries that wait start another."""
    with _running(_tasks(run, _TASKS)) as tries:
        _wait_for_a_moment(run, tries)
        for pid in _parts(run).keepers():
            kill_process(run, pid)
        _end(run, tries)
    _check_keepers(run)


def kill_local_ray(run: Run) -> None:
    """All processes of the local Ray at once, while several workflows run; perhaps once more."""
    with _running(_tasks(run, _TASKS)) as tries:
        for _ in range(run.rng.randint(1, 2)):
            _wait_for_a_moment(run, tries)
            run.faults += _parts(run).kill() > 0
        _end(run, tries)
    _check_keepers(run)


def kill_part_of_local_ray(run: Run) -> None:
    """A part of the local Ray, while several workflows run: the control service, the node, or the manager."""
    part = run.rng.choice(["gcs_server", "raylet", "manager"])
    with _running(_tasks(run, _TASKS)) as tries:
        _wait_for_a_moment(run, tries)
        if part == "manager":
            kill_owners(run)
        else:
            found = _parts(run).named(f"/{part}")
            run.faults += len(found)
            processes.kill(found)
        _end(run, tries)
    _check_keepers(run)


def _parts(run: Run) -> LocalRayParts:
    return _world(run).local_ray


def _world(run: Run) -> AirflowWorld:
    if not isinstance(run.world, AirflowWorld):
        raise TypeError("this fault is one of Airflow tasks")
    return run.world


def _tasks(run: Run, number: int) -> list[AirflowTask]:
    """A task for each workflow, of which the run has no more than so many from here on."""
    run.plans[:] = run.plans[:number]
    return [_world(run).task(plan, run.ledger.path) for plan in run.plans]


@contextmanager
def _running(tasks: Sequence[AirflowTask]) -> Iterator[_Tries]:
    """A try of each task, all at the same time."""
    with ExitStack() as stack:
        yield [(task, stack.enter_context(task.running())) for task in tasks]


def _wait_for_a_moment(run: Run, tries: _Tries) -> None:
    run.wait_for_a_moment(unless=lambda: all(one.poll() is not None for _, one in tries))


def _end(run: Run, tries: _Tries) -> None:
    """Wait for all tries; a task that fails, and need not, has others."""
    for task, process in tries:
        code = process.wait(timeout=_TRY_TIMEOUT_S)
        ways = [way for one in task.plan.troubles.values() for way in one.ways]
        for _ in range(_RETRIES + len(ways)):
            if code == 0 or task.plan.output is None:
                break
            run.repair([task.plan])
            with task.running() as another:
                code = another.wait(timeout=_TRY_TIMEOUT_S)
        if code != 0 and task.plan.output is not None:
            run.problems.append(f"{task.plan.workflow_id}: {task.log()[-2000:]}")


def _check_keepers(run: Run) -> None:
    """One local Ray is left, and nothing of those before it."""
    try:
        run.wait_until(lambda: len(_parts(run).keeper_ids()) <= 1, patience_s=60)
    except TimeoutError:
        run.problems.append(f"several local Rays are left: {_parts(run).keeper_ids()}")
