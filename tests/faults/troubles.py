"""Tasks that fail for real, in ways and at moments that a seed says, and the workflows that are made of them.

Workers import this module by its name, as :mod:`shapes`, whose tasks it doesn't need.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray
from ledgers import Ledger, entry, note

from airflow_provider_rayworkflow import workflow

#: The ways in which an attempt fails, the likely ones several times. Those of the task itself wait for
#: ``retry=``, the others end its worker.
_WAYS = ["raises"] * 3 + ["exits"] * 2 + ["killed"] * 2 + ["segfaults", "too long", "silent"]
OF_TASK = ("raises", "too long", "silent")

#: The budget of lost nodes, and that of all else, which is Ray's ``max_retries`` by default.
OTHER_RETRIES = 3 + 3
_TIME_S = 2.0
_MIB = 2**20


class Maker(Protocol):
    """What a graph is made with, see :mod:`shapes`."""

    ledger: str
    pause_s: float
    seed: int

    def step(self, *inputs: Any, **options: Any) -> Any: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """How one task fails.

    :ivar ways: of its first starts, one each, in whatever run; at the next start it returns.
    :ivar steps: what it does, one after the other; ``at`` is the one at which it fails.
    :ivar saves: its progress, after each step; it goes on from there.
    :ivar retries: the budget of its own failures; at times one too small, so that a resume is due.
    :ivar crashes: that of its worker's ends.
    :ivar is_alone: it shares no Ray task.
    """

    ways: tuple[str, ...]
    steps: int
    at: int
    saves: bool
    fails_before_save: bool
    retries: int
    crashes: int
    is_alone: bool

    def options(self, task_id: str) -> dict[str, Any]:
        again = (ConnectionError, workflow.WorkflowTaskTimeoutError)
        retry = workflow.Retry(attempts=self.retries + 1, on=again, wait_initial=0.05)
        return {
            **workflow.options(
                task_id=task_id,
                retry=retry,
                max_crashes=self.crashes,
                max_preemptions=3,
                isolate=self.is_alone,
                timeout_s=_TIME_S if "too long" in self.ways else None,
                heartbeat_timeout_s=_TIME_S if "silent" in self.ways else None,
            )
        }


def draw_troubles(seed: int, count: int, *, saves: bool) -> dict[str, Trouble]:
    """Those of a workflow's tasks, by task id."""
    rng = random.Random(seed)
    return {f"trouble_{number}": _draw(rng, saves) for number in range(count)}


def _draw(rng: random.Random, saves: bool) -> Trouble:
    ways = tuple(rng.choice(_WAYS) for _ in range(rng.choice([0, 1, 1, 2])))
    own = sum(way in OF_TASK for way in ways)
    crashes = len(ways) - own
    missing = rng.choice(["", "", "", "", "retries", "crashes"])
    steps = rng.randint(2, 5) if saves else 1
    return Trouble(
        ways=ways,
        steps=steps,
        at=rng.randint(1, steps),
        saves=saves,
        fails_before_save=rng.random() < 0.5,
        retries=max(0, own - (missing == "retries")),
        crashes=max(0, crashes - (missing == "crashes")),
        is_alone=rng.random() < 0.7,
    )


def bad_parts(seed: int, count: int) -> set[int]:
    """The parts of a workflow that fail until it is repaired; at least one."""
    rng = random.Random(seed)
    return set(rng.sample(range(count), rng.randint(1, (count + 1) // 2)))


def repair(ledger: Path, workflow_id: str) -> None:
    """What fails until it is repaired fails no more."""
    _repaired(str(ledger), workflow_id).touch()


def _repaired(ledger: str, workflow_id: str) -> Path:
    return Path(f"{ledger}.{workflow_id}.repaired")


# ---- tasks


@ray.remote
def toil(ledger: str, pause_s: float, trouble: Trouble, *inputs: int) -> int:
    with entry(ledger):
        context = workflow.get_context()
        way = _way_of(ledger, trouble.ways)
        done = (context.saved or 0) if trouble.saves else 0
        note(ledger, "from", number=done)
        while done < trouble.steps:
            time.sleep(pause_s)
            done += 1
            note(ledger, "step", number=done)
            is_due = done >= trouble.at
            if is_due and trouble.fails_before_save:
                _fail(ledger, way)
            if trouble.saves:
                context.save(done)
                note(ledger, "saved", number=done)
            if is_due:
                _fail(ledger, way)
        return 1 + sum(inputs)


def _way_of(ledger: str, ways: Collection[str]) -> str:
    """The one of this start, ``""`` for none: starts are counted over all runs."""
    return dict(enumerate(ways, start=1)).get(_starts(ledger), "")


def _starts(ledger: str) -> int:
    context = workflow.get_context()
    own = (context.workflow_id, context.task_id)
    return sum((line.workflow_id, line.task_id) == own for line in Ledger(Path(ledger)).starts())


def _fail(ledger: str, way: str) -> None:
    if way:
        note(ledger, "fails", way=way)
    match way:
        case "raises":
            raise ConnectionError("as it was told")
        case "exits":
            os._exit(3)
        case "segfaults":
            ctypes.string_at(0)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "too long" | "silent":
            time.sleep(600)


@ray.remote
def part(ledger: str, pause_s: float, is_bad: bool) -> int:
    with entry(ledger):
        time.sleep(pause_s)
        if is_bad and not _repaired(ledger, workflow.get_context().workflow_id).exists():
            raise ValueError("on purpose, until it is repaired")
        return 1


@ray.remote
def collect(ledger: str, pause_s: float, *given: Any) -> int:
    """What came of others, whatever that was: their sum, and 1,000 for each that failed."""
    with entry(ledger):
        time.sleep(pause_s)
        return sum(1_000 if isinstance(one, BaseException) else (one or 0) for one in given)


@ray.remote(memory=64 * _MIB, resources={"small": 1})
def eat(ledger: str, times: int) -> int:
    """At its first starts, more memory than there is."""
    with entry(ledger):
        resources = ray.get_runtime_context().get_assigned_resources()
        note(ledger, "asks", number=int(resources["memory"]) // _MIB)
        eaten: list[Any] = []
        end = time.monotonic() + 15
        while _starts(ledger) <= times and time.monotonic() < end:
            if len(eaten) < 32:
                eaten.append(os.urandom(_MIB) * 64)
            time.sleep(0.05)
        return 1


# ---- graphs


def troubled(make: Maker, size: int) -> Any:
    """A fan."""
    found = draw_troubles(make.seed, size, saves=False)
    return make.step(*[_toil(make, *one) for one in found.items()])


def saving(make: Maker, size: int) -> Any:
    """A chain of tasks that save their progress."""
    last: list[Any] = []
    for one in draw_troubles(make.seed, size, saves=True).items():
        last = [_toil(make, *one, *last)]
    return last[0]


def _toil(make: Maker, task_id: str, trouble: Trouble, *inputs: Any) -> Any:
    task = toil.options(**trouble.options(task_id))
    return task.bind(make.ledger, make.pause_s, trouble, *inputs)


def finishing(make: Maker, size: int) -> Any:
    """Parts of which some are bad, a step behind each, and one behind all."""
    steps = [
        make.step(one, task_id=f"behind_{number}") for number, one in enumerate(_parts(make, size))
    ]
    return make.step(*steps, task_id="last")


def ruled(make: Maker, size: int) -> Any:
    """The same with tasks that run after failures."""
    parts = _parts(make, size)
    told = _collect(make, *parts, task_id="tell", when="any_failed")
    cleaned = _collect(make, *parts, told, task_id="clean", when="all_done")
    return make.step(cleaned, task_id="last")


def renting(make: Maker, size: int) -> Any:
    """Work, and then what gives back, also after a cancel."""
    work = make.step(*[make.step() for _ in range(size)])
    return _collect(make, work, task_id="release", when="all_done", cleanup_s=240)


def hungry(make: Maker, size: int) -> Any:
    """A task that runs out of memory, so often."""
    more = workflow.options(task_id="eat", escalate={"memory": 2.0}, limit={"memory": "200MiB"})
    return eat.options(**more).bind(make.ledger, size)


def _parts(make: Maker, size: int) -> list[Any]:
    bad = bad_parts(make.seed, size)
    return [
        part.options(**workflow.options(task_id=f"part_{number}")).bind(
            make.ledger, make.pause_s, number in bad
        )
        for number in range(size)
    ]


def _collect(make: Maker, *given: Any, **options: Any) -> Any:
    return collect.options(**workflow.options(**options)).bind(make.ledger, make.pause_s, *given)
