"""What goes wrong. Each fault begins a run's workflows, does its harm, and leaves the rest to the run."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import processes
from airflow_task import AirflowTask
from clusters import Driver
from runs import Run
from worlds import S3World

from airflow_provider_rayworkflow.workflow.status import WorkflowStatus

from proxy import Answer, Unanswered  # isort: skip - worlds puts it within reach


# ---- processes


def kill_workers(run: Run) -> None:
    """Workers in the middle of a task."""
    run.begin()
    for _ in range(run.rng.randint(1, 3)):
        run.wait_for_a_moment()
        for line in run.ledger.running()[:1]:
            _kill(run, line.pid)


def kill_manager(run: Run) -> None:
    """The manager's process; Ray restarts it, and it recovers by itself."""
    run.begin()
    run.wait_for_a_moment()
    _kill_managers(run)
    run.recovers = run.rng.random() < 0.5
    if run.rng.random() < 0.3:  # once more, in the middle of the recovery
        time.sleep(run.rng.random() * 4)
        _kill_managers(run)


def kill_driver(run: Run) -> None:
    """The driver, perhaps while it submits; what it knew to be submitted ends without anybody."""
    plans = [plan.to_json() for plan in run.plans]
    driver = Driver(run.world.cluster.address, plans, run.ledger.path)
    if run.rng.random() < 0.5:
        run.wait_until(lambda: run.found()[run.ids[0]] is not None or driver.has_ended)
        time.sleep(run.rng.random() * 0.1)
    else:
        run.wait_for_a_moment()
    submitted = driver.kill()
    run.faults += 1
    for plan in [plan for plan in run.plans if plan.workflow_id in submitted]:
        run.wait_until(lambda plan=plan: plan not in run.unfinished())


def kill_raylet(run: Run) -> None:
    """The raylet of the second node in the middle of tasks, and so all that runs there.

    The first node has no room for tasks until that has happened, and for some seeds not even then:
    workflows go on when another node comes.
    """
    cluster = run.world.cluster
    raylet = cluster.second_raylet()
    cluster.ask("fill_head")
    run.begin()
    run.wait_for_a_moment()
    run.wait_until(lambda: run.ledger.running() or run.has_ended())
    cluster.kill_second_raylet(with_workers=run.rng.random() < 0.5)
    run.faults += 1
    run.begun_there = sum(line.parent == raylet for line in run.ledger.starts())
    if not run.begun_there:
        run.problems.append("no task has begun on the node that was killed")
    run.settle()
    if run.rng.random() < 0.5:
        cluster.second_raylet()
        run.finish()
    cluster.ask("free_head")


def kill_cluster(run: Run) -> None:
    """All processes of the cluster at once; another cluster goes on."""
    run.begin()
    run.wait_for_a_moment()
    run.world.cluster.kill()
    run.faults += 1
    run.world.replace_cluster()
    run.settle()


def kill_airflow_task(run: Run) -> None:
    """The process of an Airflow task with its Ray in it, once or twice; the next try goes on."""
    run.plans[:] = run.plans[:1]
    task = AirflowTask(run.world.storage, run.plans[0], run.ledger.path, run.world.folder)
    for _ in range(run.rng.randint(1, 2)):
        with task.running() as process:
            run.wait_for_a_moment(unless=lambda process=process: process.poll() is not None)
            if process.poll() is None:
                run.faults += 1
            process.kill()
    with task.running() as process:
        if process.wait(timeout=400) != 0 and run.plans[0].output is not None:
            run.problems.append(task.log()[-2000:])


def resume_twice(run: Run) -> None:
    """Two clusters resume the same workflows at the same instant; perhaps the winner dies."""
    first, second = run.world.cluster, run.world.other_cluster
    run.begin(first)
    run.wait_for_a_moment(part=0.5)
    run.settle()
    first.ask("suspend", workflow_ids=run.ids)
    run.faults += 1
    before = _epochs(run)
    for cluster in (first, second):
        if run.rng.random() < 0.5:
            cluster.send("start", **run.submission())
        else:
            cluster.send("resume", workflow_ids=run.ids)
    errors = [cluster.receive() for cluster in (first, second)]
    if run.rng.random() < 0.3:
        _kill_managers(run)
    elif any(errors):
        run.problems.append(f"errors of a submission: {errors}")
    else:
        run.wait_until(run.has_ended)
        for workflow_id, epoch in _epochs(run).items():
            if epoch > before[workflow_id] + 1 and "failing" not in workflow_id:
                run.problems.append(f"{workflow_id} was claimed by both: {epoch}")


# ---- the storage


def restart_server(run: Run) -> None:
    """The S3 server is killed, is away for a while, and comes back."""
    world = _on_s3(run)
    run.late_writes = True  # while it starts, the server keeps requests waiting
    run.begin()
    run.wait_for_a_moment()
    world.server.kill()
    run.faults += 1
    time.sleep(run.rng.random() * 3)
    world.server.start()


def failing_storage(run: Run) -> None:
    """For a while the storage answers with errors: busy ones, or final ones."""
    world = _on_s3(run)
    status = run.rng.choice([500, 503, 503, 429, 403])
    share = run.rng.choice([0.3, 1.0])
    dice = _Dice(run)
    run.begin()
    run.wait_for_a_moment()
    world.proxy.intercept = lambda kind, forward: (
        Answer(status) if dice.roll() < share else forward()
    )
    time.sleep(0.5 + run.rng.random() * 3)
    run.faults += 1
    world.calm()


def silent_storage(run: Run) -> None:
    """Requests get no answer for a while; then they are carried out, or lost, or the answer is.

    If that lasts, the manager loses its lease and stops.
    """
    world = _on_s3(run)
    is_long, dice = run.rng.random() < 0.2, _Dice(run)
    goes_on = threading.Event()

    def hang(kind: str, forward: Callable[[], Answer]) -> Answer:
        if goes_on.is_set():
            return forward()
        fate = dice.roll()
        if fate < 0.3:
            answer = forward()  # carried out, and nobody is told
            goes_on.wait()
            raise Unanswered(answer)
        goes_on.wait()
        if fate < 0.6:
            return forward()  # late
        raise Unanswered

    run.late_writes = True
    run.begin()
    run.wait_for_a_moment()
    world.proxy.intercept = hang
    run.faults += 1
    try:
        time.sleep(13 if is_long else 0.5 + run.rng.random() * 3)
    finally:
        goes_on.set()
        world.calm()


def slow_storage(run: Run) -> None:
    """Each request takes its time, and a process dies meanwhile."""
    world = _on_s3(run)
    longest_s, dice = run.rng.choice([0.05, 0.3]), _Dice(run)

    def dawdle(kind: str, forward: Callable[[], Answer]) -> Answer:
        time.sleep(dice.roll() * longest_s)
        return forward()

    world.proxy.intercept = dawdle
    try:
        run.begin()
        run.wait_for_a_moment()
        run.faults += 1
        if run.rng.random() < 0.5:
            _kill_managers(run)
        run.settle()
    finally:
        world.calm()


def kill_at_a_write(run: Run) -> None:
    """The manager, the worker or the whole cluster dies right before or after the n-th write."""
    world = _on_s3(run)
    number, is_before = run.rng.randint(1, 60), run.rng.random() < 0.5
    whom = run.rng.choice(["manager", "manager", "worker", "cluster"])
    struck = _Countdown(number)

    def strike() -> None:
        run.faults += 1
        if whom == "manager":
            _kill_managers(run, counts=False)
        elif whom == "worker":
            for line in run.ledger.running():
                processes.send(line.pid, signal.SIGKILL)
        else:
            world.cluster.kill()

    def intercept(kind: str, forward: Callable[[], Answer]) -> Answer:
        if kind in ("GET", "LIST", "HEAD") or not struck.is_now():
            return forward()
        if is_before:
            strike()
        else:
            forward()
            strike()
        raise Unanswered

    world.cluster  # noqa: B018 - up before writes are counted
    world.proxy.intercept = intercept
    try:
        run.begin()
        run.wait_until(lambda: run.faults or run.has_ended())
        if run.faults and whom == "cluster":
            world.replace_cluster()
        run.settle()
    finally:
        world.calm()


#: What a run needs: files, an S3 server, or files and Airflow.
LOCAL: dict[str, Callable[[Run], None]] = {
    "worker killed": kill_workers,
    "manager killed": kill_manager,
    "driver killed": kill_driver,
    "raylet killed": kill_raylet,
    "two clusters resume": resume_twice,
    "cluster killed": kill_cluster,
}
S3: dict[str, Callable[[Run], None]] = {
    "killed at a write": kill_at_a_write,
    "S3 server killed": restart_server,
    "storage fails": failing_storage,
    "storage hangs": silent_storage,
    "storage is slow": slow_storage,
    "two clusters resume, S3": resume_twice,
}
AIRFLOW: dict[str, Callable[[Run], None]] = {"Airflow task killed": kill_airflow_task}


class _Dice:
    """Random numbers for several threads, from the run's own."""

    def __init__(self, run: Run) -> None:
        self._rng = type(run.rng)(run.rng.random())
        self._lock = threading.Lock()

    def roll(self) -> float:
        with self._lock:
            return self._rng.random()


class _Countdown:
    def __init__(self, number: int) -> None:
        self._left = number
        self._lock = threading.Lock()

    def is_now(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left == 0


def _on_s3(run: Run) -> S3World:
    if not isinstance(run.world, S3World):
        raise TypeError("this fault is one of an S3 server")
    return run.world


def _kill(run: Run, pid: int) -> None:
    run.faults += processes.send(pid, signal.SIGKILL)


def _kill_managers(run: Run, *, counts: bool = True) -> None:
    """The processes of all managers that own workflows of the run, of whichever cluster."""
    store = run.world.store()
    owners = {
        found.record.manager_id
        for found in run.found().values()
        if found is not None and found.status in (WorkflowStatus.RUNNING, WorkflowStatus.PENDING)
    }
    for lease in store.list_leases():
        if lease.manager_id in owners and not lease.process.is_gone():
            run.faults += processes.send(lease.process.pid, signal.SIGKILL) and counts


def _epochs(run: Run) -> dict[str, int]:
    store = run.world.store()
    return {workflow_id: store.last_epoch(workflow_id) for workflow_id in run.ids}
