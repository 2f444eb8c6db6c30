"""Workflows of mixed shapes whose outputs are known.

Workers import this module by its name: the clusters have its folder in their PYTHONPATH.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import troubles
from ledgers import entry

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

if TYPE_CHECKING:
    from airflow_provider_rayworkflow.workflow.model.records import OnFailure


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One workflow of a run.

    :ivar size: how many tasks, or other parts that the shape is made of.
    :ivar pause_s: how long each of its tasks takes; 0 for tiny tasks.
    :ivar seed: says how its tasks fail.
    :ivar on_failure: as for ``workflow.run``.
    :ivar is_canceled: that is how it must end.
    """

    workflow_id: str
    shape: str
    size: int
    pause_s: float
    seed: int = 0
    on_failure: OnFailure = "stop"
    is_canceled: bool = False

    @property
    def output(self) -> int | None:
        """The output that it must have; None where it must fail."""
        return _ALL[self.shape][1](self.size)

    @property
    def end(self) -> WorkflowStatus:
        """The status that it must have in the end."""
        if self.is_canceled:
            return WorkflowStatus.CANCELED
        return WorkflowStatus.FAILED if self.output is None else WorkflowStatus.SUCCESSFUL

    @property
    def may_stop(self) -> bool:
        """Its tasks may end a run of it, and it has to be resumed; else only a fault does that."""
        return self.shape in ("troubled", "saving", "finishing", "ruled", "hungry")

    @property
    def troubles(self) -> dict[str, troubles.Trouble]:
        """How its tasks fail, by task id."""
        if self.shape not in ("troubled", "saving"):
            return {}
        return troubles.draw_troubles(self.seed, self.size, saves=self.shape == "saving")

    @property
    def bad_parts(self) -> set[str]:
        """The ids of tasks that fail until they are repaired."""
        if self.shape not in ("finishing", "ruled"):
            return set()
        return {f"part_{number}" for number in troubles.bad_parts(self.seed, self.size)}

    @property
    def repeatable(self) -> set[str]:
        """The ids of committed tasks that a resume runs again, as others that they go by end otherwise."""
        return {"tell", "clean", "last"} if self.shape == "ruled" else set()

    def dag(self, ledger: str) -> Any:
        """Its graph; needs no Ray that runs."""
        return _ALL[self.shape][0](_Maker(ledger, self.pause_s, self.seed), self.size)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def draw(rng: random.Random, prefix: str, count: int) -> list[Plan]:
    """Plans of mixed shapes; the first is of tasks that take a moment, the second of tiny ones."""
    plans = []
    for number in range(count):
        shape = rng.choice(list(_SHAPES))
        pause_s = rng.choice([0.0, 0.0, 0.01, 0.04])
        if number < 2:
            shape, pause_s = rng.choice(["chain", "fan", "mixed"]), 0.05 * (1 - number)
        plans.append(_draw(rng, f"{prefix}-{number}-{shape}", shape, pause_s))
    return plans


def draw_one(rng: random.Random, workflow_id: str, shape: str) -> Plan:
    """Another plan for a workflow, of this shape."""
    return _draw(rng, workflow_id, shape, pause_s=0.01)


def _draw(rng: random.Random, workflow_id: str, shape: str, pause_s: float) -> Plan:
    size = rng.randint(2, 12 if pause_s else 40)
    return Plan(
        workflow_id=workflow_id,
        shape=shape,
        size=min(size, _LARGEST.get(shape, size)),
        pause_s=pause_s,
        seed=rng.getrandbits(32),
        on_failure="finish" if shape == "finishing" else rng.choice(["stop", "finish"]),
    )


# ---- tasks


@ray.remote
def step(ledger: str, pause_s: float, *inputs: int) -> int:
    with entry(ledger):
        time.sleep(pause_s)
        return 1 + sum(inputs)


@ray.remote
def count_down(ledger: str, pause_s: float, left: int, counted: int = 0) -> Any:
    with entry(ledger):
        time.sleep(pause_s)
        if not left:
            return counted
        return workflow.continuation(count_down.bind(ledger, pause_s, left - 1, counted + 1))


@ray.remote
def expand(ledger: str, pause_s: float, size: int) -> Any:
    with entry(ledger):
        return workflow.continuation(_fan(_Maker(ledger, pause_s, seed=0), size))


@ray.remote
def fail(ledger: str, pause_s: float, *inputs: int) -> int:
    with entry(ledger):
        time.sleep(pause_s)
        raise ValueError(f"on purpose, after {sum(inputs)}")


@ray.remote
def judge(ledger: str, caught: tuple[Any, BaseException]) -> int:
    with entry(ledger):
        value, error = caught
        return 100 if value is None and "on purpose" in str(error) else 0


@ray.remote
def flaky(ledger: str, pause_s: float) -> int:
    with entry(ledger) as attempt:
        time.sleep(pause_s)
        if attempt == 1:
            raise ConnectionError("at the first attempt")
        return 1


@ray.remote
def block(ledger: str, size: int) -> bytes:
    with entry(ledger):
        return bytes(LARGE + size)


@ray.remote
def lengthen(ledger: str, pause_s: float, data: bytes) -> bytes:
    with entry(ledger):
        time.sleep(pause_s)
        return data + b"x"


@ray.remote
def length(ledger: str, data: bytes) -> int:
    with entry(ledger):
        return len(data)


@workflow.task
def part(number: int, ledger: str, pause_s: float) -> int:
    with entry(ledger):
        time.sleep(pause_s)
        return 1


@workflow.task
def together(parts: Any, ledger: str) -> int:
    with entry(ledger):
        return 1 + sum(parts)


# ---- graphs

#: More than goes into a journal: such values are objects of their own.
LARGE = 40_000


@dataclass(frozen=True, slots=True)
class _Maker:
    ledger: str
    pause_s: float
    seed: int

    def step(self, *inputs: Any, **options: Any) -> Any:
        function = step.options(**workflow.options(**options)) if options else step
        return function.bind(self.ledger, self.pause_s, *inputs)


def _chain(make: _Maker, size: int, **options: Any) -> Any:
    last = make.step()
    for _ in range(size - 1):
        last = make.step(last, **options)
    return last


def _fan(make: _Maker, size: int) -> Any:
    return make.step(*[make.step() for _ in range(size)])


def _expanding(make: _Maker, size: int) -> Any:
    return make.step(expand.bind(make.ledger, make.pause_s, size))


def _counting(make: _Maker, size: int) -> Any:
    return count_down.bind(make.ledger, make.pause_s, size)


def _catching(make: _Maker, size: int) -> Any:
    failing = fail.options(**workflow.options(catch_exceptions=True))
    caught = failing.bind(make.ledger, make.pause_s, _chain(make, size))
    return make.step(judge.bind(make.ledger, caught))


def _failing(make: _Maker, size: int) -> Any:
    return make.step(fail.bind(make.ledger, make.pause_s, _fan(make, size)))


def _retried(make: _Maker, size: int) -> Any:
    retry = workflow.Retry(attempts=3, on=ConnectionError, wait_initial=0.05)
    retried = flaky.options(**workflow.options(retry=retry))
    return make.step(*[retried.bind(make.ledger, make.pause_s) for _ in range(size)])


def _large(make: _Maker, size: int) -> Any:
    data = block.bind(make.ledger, size)
    for _ in range(3):
        data = lengthen.bind(make.ledger, make.pause_s, data)
    return length.bind(make.ledger, data)


def _unchecked(make: _Maker, size: int) -> Any:
    return _chain(make, size, checkpoint=False)


def _cached(make: _Maker, size: int) -> Any:
    """Tasks that are all the same call, also in other workflows: one of them computes it."""
    cache = workflow.Cache(version="1")
    return make.step(*[make.step(cache=cache) for _ in range(size)])


def _mapped(make: _Maker, size: int) -> Any:
    given = {"ledger": make.ledger, "pause_s": make.pause_s}
    return together(part.map(range(size), max_concurrency=3, **given), make.ledger)


def _mixed(make: _Maker, size: int) -> Any:
    parts = [_large(make, size), _expanding(make, size), _catching(make, size)]
    return make.step(*parts, _chain(make, size), _retried(make, size))


_Shape = tuple[Callable[[_Maker, int], Any], Callable[[int], int | None]]

#: How each is made, and what comes out of it; None for a failure.
_SHAPES: dict[str, _Shape] = {
    "chain": (_chain, lambda size: size),
    "fan": (_fan, lambda size: size + 1),
    "expanding": (_expanding, lambda size: size + 2),
    "counting": (_counting, lambda size: size),
    "catching": (_catching, lambda size: 101),
    "failing": (_failing, lambda size: None),
    "retried": (_retried, lambda size: size + 1),
    "large": (_large, lambda size: LARGE + size + 3),
    "unchecked": (_unchecked, lambda size: size),
    "cached": (_cached, lambda size: size + 1),
    "mapped": (_mapped, lambda size: size + 1),
    "mixed": (_mixed, lambda size: 1 + (LARGE + size + 3) + (size + 2) + 101 + size + (size + 1)),
    "troubled": (troubles.troubled, lambda size: size + 1),
    "saving": (troubles.saving, lambda size: size),
    "finishing": (troubles.finishing, lambda size: 1 + 2 * size),
    "ruled": (troubles.ruled, lambda size: 1 + size),
}
#: Of those that are slow, or that start many processes.
_LARGEST = {"troubled": 4, "saving": 3, "finishing": 12, "ruled": 12}
#: The same for those that one fault has, and no other.
_ALL = _SHAPES | {
    "renting": (troubles.renting, lambda size: size + 1),
    "hungry": (troubles.hungry, lambda size: 1),
}


def from_airflow(ledger: str, plan: dict[str, Any]) -> Any:
    """What an Airflow task runs."""
    return Plan(**plan).dag(ledger)


def from_submission(ledger: str, plan: dict[str, Any], builders: str, build_s: float) -> Any:
    """What a submission names; its graph takes a while.

    :param builders: a file that gets a line with the process that makes the graph.
    """
    with Path(builders).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(build_s)
    return Plan(**plan).dag(ledger)
