"""Faults while a manager reads submissions: none of them is lost, and none is run twice."""

from __future__ import annotations

import time

from moments import Countdown, on_s3
from owners import kill_process, kill_readers
from runs import Run
from submissions import Submissions

from proxy import Answer, Forwarding, Unanswered  # isort: skip - runs puts it within reach

#: The requests of the manager at which it dies: the kind, a part of the key, and whether the request is lost
#: with it. In the order of a submission's life.
_STEPS = [
    ("GET", "/v1/submissions/", False),  # read, and not claimed
    ("PUT", ".epoch", True),
    ("PUT", ".epoch", False),  # claimed, and without a status
    ("PUT", "/v1/status/", False),  # begun, and not answered
    ("PUT", "/v1/answers/", True),
    ("PUT", "/v1/answers/", False),  # answered, and not deleted
]


def kill_reader(run: Run) -> None:
    """The manager, once or twice, at random moments while it takes submissions."""
    run.recovers = True
    submissions = Submissions(run, build_s=run.rng.choice([0.0, 0.5]))
    submissions.write()
    for _ in range(run.rng.randint(1, 2)):
        time.sleep(run.rng.random() * 3)
        run.faults += kill_readers(run, submissions.cluster)
    submissions.settle()


def kill_reader_at_a_step(run: Run) -> None:
    """The manager, at a step between the read of a submission and the end of it."""
    world = on_s3(run)
    run.recovers = True
    kind, part, is_before = run.rng.choice(_STEPS)
    submissions = Submissions(run)
    struck = Countdown(run.rng.randint(1, len(run.plans)))

    def intercept(asked: str, forward: Forwarding) -> Answer:
        if asked != kind or part not in forward.path or not struck.is_now():
            return forward()
        if not is_before:
            forward()
        run.faults += kill_readers(run, submissions.cluster)
        raise Unanswered

    world.proxy.intercept = intercept
    try:
        submissions.write()
        run.wait_until(lambda: run.faults or submissions.are_answered())
        submissions.settle()
    finally:
        world.calm()
    if not run.faults:
        run.problems.append(f"no manager was killed at a {kind} of {part}")


def kill_builder(run: Run) -> None:
    """The worker that makes the graph of a submission, once or several times, perhaps for the same one."""
    run.recovers = True
    submissions = Submissions(run, build_s=1.0)
    submissions.write()
    killed: set[int] = set()
    for _ in range(run.rng.randint(1, 4)):
        run.wait_until(lambda: submissions.builder(but=killed) or submissions.are_answered())
        if pid := submissions.builder(but=killed):
            time.sleep(run.rng.random())
            killed.add(pid)
            kill_process(run, pid)
    submissions.settle()
