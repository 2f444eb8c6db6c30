"""What goes wrong. Each fault begins a run's workflows, does its harm, and leaves the rest to the run."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import processes
from clusters import Driver
from failure_faults import cancel, ended, let_tasks_fail, take_memory
from local_ray_faults import (
    kill_airflow_task,
    kill_keeper,
    kill_local_ray,
    kill_part_of_local_ray,
    kill_starter,
)
from mailbox_faults import kill_builder, kill_reader, kill_reader_at_a_step
from moments import Countdown, Dice, on_s3
from owners import kill_owners, kill_process, signal_owners
from runs import Run

from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import keys

from proxy import Answer, Unanswered  # isort: skip - worlds puts it within reach


# ---- processes


def kill_workers(run: Run) -> None:
    """Workers in the middle of a task."""
    run.begin()
    for _ in range(run.rng.randint(1, 3)):
        run.wait_for_a_moment()
        for line in run.ledger.running()[:1]:
            kill_process(run, line.pid)


def kill_manager(run: Run) -> None:
    """The manager's process; Ray restarts it, and it recovers by itself."""
    run.spares_workers = True
    run.begin()
    run.wait_for_a_moment()
    kill_owners(run)
    run.recovers = run.rng.random() < 0.5
    if run.rng.random() < 0.3:  # once more, in the middle of the recovery
        time.sleep(run.rng.random() * 4)
        kill_owners(run)


def kill_driver(run: Run) -> None:
    """The driver, perhaps while it submits; what it knew to be submitted ends without it."""
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
        run.wait_until(lambda plan=plan: run.is_at_rest([plan]))


def kill_raylet(run: Run) -> None:
    """The raylet of the second node in the middle of tasks, and so all that runs there; perhaps drained before.

    The first node has no room for tasks until that has happened, and for some seeds not even then:
    workflows go on when another node comes.
    """
    cluster = run.world.cluster
    raylet = cluster.second_raylet()
    cluster.ask("fill_head")
    run.begin()
    run.wait_for_a_moment()
    run.wait_until(lambda: run.ledger.running() or run.is_at_rest())
    with_workers = run.rng.random() < 0.5
    run.may_overlap = not with_workers
    if run.rng.random() < 0.4:  # as a preempted node: it gets no task more, and is lost
        run.settle()
        if not cluster.ask("drain_node"):
            run.problems.append("Ray has not drained the node")
        run.faults += 1
        time.sleep(run.rng.random())
    cluster.kill_second_raylet(with_workers=with_workers)
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
        kill_owners(run)
    elif any(errors):
        run.problems.append(f"errors of a submission: {errors}")
    else:
        run.wait_until(run.is_at_rest)
        epochs = _epochs(run)
        for plan in run.plans:
            epoch, may_fail = epochs[plan.workflow_id], plan.may_stop or plan.output is None
            if epoch > before[plan.workflow_id] + 1 and not may_fail:
                run.problems.append(f"{plan.workflow_id} was claimed by both: {epoch}")


def stop_manager(run: Run) -> None:
    """The manager's process is stopped (SIGSTOP) for less or more than its lease lasts, and goes on.

    Meanwhile another cluster resumes what it owned: it may take it over when the lease has run out.
    """
    first, second = run.world.cluster, run.world.other_cluster
    run.may_be_stopped = True
    run.late_writes = True  # one that was under way ends when the process goes on
    run.begin(first)
    run.wait_for_a_moment()
    stopped = signal_owners(run, signal.SIGSTOP)
    run.faults += len(stopped)
    try:
        known = [workflow_id for workflow_id, found in run.found().items() if found is not None]
        second.send("resume", workflow_ids=known)
        time.sleep(run.rng.choice([1.0, 8.0, 18.0, 22.0]))
    finally:
        for pid in stopped:
            processes.send(pid, signal.SIGCONT)
    second.receive()
    run.settle()


def race_of_three(run: Run) -> None:
    """The owner is killed or stopped, and two other clusters resume what it owned at the same instant."""
    first, second, third = run.world.cluster, run.world.other_cluster, run.world.third_cluster
    run.may_be_stopped = True
    run.begin(first)
    run.wait_for_a_moment()
    is_stopped = run.late_writes = run.rng.random() < 0.5
    pids = signal_owners(run, signal.SIGSTOP if is_stopped else signal.SIGKILL)
    run.faults += len(pids)
    known = [workflow_id for workflow_id, found in run.found().items() if found is not None]
    for cluster in (second, third):
        cluster.send("resume", workflow_ids=known)
    if is_stopped:
        time.sleep(run.rng.choice([14.0, 16.0, 20.0]))
        for pid in pids:
            processes.send(pid, signal.SIGCONT)
    for cluster in (second, third):
        cluster.receive()
    run.settle()


def set_clocks(run: Run) -> None:
    """The wall clock of the owner's cluster steps, or a reader's, or both: forward or back.

    Another cluster resumes what is owned; for some seeds the owner dies besides.
    """
    first, second = run.world.cluster, run.world.other_cluster
    steps = [20.0, 400.0, 3600.0, -20.0, -400.0, -3600.0]
    stepping = run.rng.choice([(first,), (second,), (first, second)])
    run.may_be_stopped = True  # the times in its claims are by the clock that was set
    run.begin(first)
    try:
        run.wait_for_a_moment()
        for cluster in stepping:
            cluster.set_clock(run.rng.choice(steps))
            run.faults += 1
        known = [workflow_id for workflow_id, found in run.found().items() if found is not None]
        second.send("resume", workflow_ids=known)
        if run.rng.random() < 0.3:
            kill_owners(run)
        second.receive()
        run.settle()
        run.finish()
    finally:
        for cluster in stepping:
            cluster.set_clock(0.0)


def delete_a_folder(run: Run) -> None:
    """The folder of one workflow is deleted while it runs: that one must not end well."""
    run.begin()
    run.wait_for_a_moment()
    running = [
        workflow_id
        for workflow_id, found in run.found().items()
        if found is not None and found.status is WorkflowStatus.RUNNING
    ]
    run.settle()
    if not running:
        return
    lost = run.rng.choice(running)
    store = run.world.store()
    store.bytes.delete_folder(keys.workflow_folder(lost))
    run.faults += 1
    end = run.wait_until(lambda: ended(run, lost))
    # It may have ended in the moment before: then it has a status that was true when it was written.
    if end.status is WorkflowStatus.SUCCESSFUL and store.list_files(lost):
        run.problems.append(f"{lost} is SUCCESSFUL, and its folder was deleted while it ran")
    run.forget(lost)


def take_descriptors(run: Run) -> None:
    """For a while the manager's process can open no file and no connection more."""
    run.begin()
    run.wait_for_a_moment()
    before: dict[int, tuple[int, int]] = {}
    for pid in signal_owners(run, 0):
        with suppress(ProcessLookupError, PermissionError):
            before[pid] = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            used = len(os.listdir(f"/proc/{pid}/fd"))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, before[pid][1]))
            run.faults += 1
    try:
        time.sleep(run.rng.choice([0.5, 3.0, 13.0]))
    finally:
        for pid, limits in before.items():
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


# ---- the storage


def restart_server(run: Run) -> None:
    """The S3 server is killed, is away for a while, and comes back."""
    world = on_s3(run)
    run.late_writes = True  # while it starts, the server keeps requests waiting
    run.begin()
    run.wait_for_a_moment()
    world.server.kill()
    run.faults += 1
    time.sleep(run.rng.random() * 3)
    world.server.start()


def failing_storage(run: Run) -> None:
    """For a while the storage answers with errors: busy ones, or final ones."""
    world = on_s3(run)
    status = run.rng.choice([500, 503, 503, 429, 403])
    share = run.rng.choice([0.3, 1.0])
    dice = Dice(run)
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
    world = on_s3(run)
    is_long, dice = run.rng.random() < 0.2, Dice(run)
    goes_on = threading.Event()

    def hang(kind: str, forward: Callable[[], Answer]) -> Answer:
        if goes_on.is_set():
            return forward()
        fate = dice.roll()
        if fate < 0.3:
            answer = forward()  # carried out, and the caller is not told
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
    world = on_s3(run)
    longest_s, dice = run.rng.choice([0.05, 0.3]), Dice(run)

    def dawdle(kind: str, forward: Callable[[], Answer]) -> Answer:
        time.sleep(dice.roll() * longest_s)
        return forward()

    world.proxy.intercept = dawdle
    try:
        run.begin()
        run.wait_for_a_moment()
        run.faults += 1
        if run.rng.random() < 0.5:
            kill_owners(run)
        run.settle()
    finally:
        world.calm()


def kill_at_a_write(run: Run) -> None:
    """The manager, the worker or the whole cluster dies right before or after the n-th write."""
    world = on_s3(run)
    number, is_before = run.rng.randint(1, 60), run.rng.random() < 0.5
    whom = run.rng.choice(["manager", "manager", "worker", "cluster"])
    struck = Countdown(number)

    def strike() -> None:
        run.faults += 1
        if whom == "manager":
            kill_owners(run, counts=False)
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
        run.wait_until(lambda: run.faults or run.is_at_rest())
        if run.faults and whom == "cluster":
            world.replace_cluster()
        run.settle()
    finally:
        world.calm()


#: What a run needs: files, an S3 server, or files and Airflow tasks on a local Ray.
LOCAL: dict[str, Callable[[Run], None]] = {
    "worker killed": kill_workers,
    "manager killed": kill_manager,
    "reader of submissions killed": kill_reader,
    "builder of a graph killed": kill_builder,
    "driver killed": kill_driver,
    "raylet killed": kill_raylet,
    "two clusters resume": resume_twice,
    "cluster killed": kill_cluster,
    "manager stopped": stop_manager,
    "folder deleted": delete_a_folder,
    "descriptors run out": take_descriptors,
    "three managers race": race_of_three,
    "clocks are set": set_clocks,
    "tasks fail": let_tasks_fail,
    "memory runs short": take_memory,
    "workflow canceled": cancel,
}
S3: dict[str, Callable[[Run], None]] = {
    "killed at a write": kill_at_a_write,
    "killed at a step of a submission": kill_reader_at_a_step,
    "S3 server killed": restart_server,
    "storage fails": failing_storage,
    "storage hangs": silent_storage,
    "storage is slow": slow_storage,
    "two clusters resume, S3": resume_twice,
}
AIRFLOW: dict[str, Callable[[Run], None]] = {
    "Airflow task killed": kill_airflow_task,
    "starter of the local Ray killed": kill_starter,
    "keeper of the local Ray killed": kill_keeper,
    "local Ray killed": kill_local_ray,
    "part of the local Ray killed": kill_part_of_local_ray,
}


def _epochs(run: Run) -> dict[str, int]:
    store = run.world.store()
    return {workflow_id: store.last_epoch(workflow_id) for workflow_id in run.ids}
