"""What a call costs: requests to the storage, CPU time, and time."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Entry, Put

K = TypeVar("K")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one call, or the medians of some.

    :ivar requests: to the storage; on local files, as many as an object store would get.
    :ivar cpu_ms: of this process, in milliseconds.
    :ivar wall_ms: in milliseconds.
    """

    requests: float
    cpu_ms: float
    wall_ms: float


@dataclass(frozen=True, kw_only=True)
class Meter:
    """Reads what has been used so far.

    :ivar requests: how many there were.
    :ivar cpu_s: CPU time in seconds.
    """

    requests: Callable[[], int]
    cpu_s: Callable[[], float] = time.process_time

    def cost(self, do: Callable[[], object], *, settle_s: float = 0.0) -> Cost:
        """Call it once.

        :param settle_s: after the call; what it goes on to do in that time counts, but not as time.
        """
        requests, cpu_s, begun = self.requests(), self.cpu_s(), time.perf_counter()
        do()
        wall_s = time.perf_counter() - begun
        time.sleep(settle_s)
        return Cost(
            requests=self.requests() - requests,
            cpu_ms=1000 * (self.cpu_s() - cpu_s),
            wall_ms=1000 * wall_s,
        )


def median(costs: Sequence[Cost]) -> Cost:
    """Of each figure by itself."""
    return Cost(
        requests=statistics.median(cost.requests for cost in costs),
        cpu_ms=statistics.median(cost.cpu_ms for cost in costs),
        wall_ms=statistics.median(cost.wall_ms for cost in costs),
    )


def in_turns(calls: Mapping[K, Callable[[], Cost]], *, rounds: int) -> dict[K, Cost]:
    """The medians of several calls that take turns, so that what else the machine does meets them alike.

    One more round warms up where there is more than one.
    """
    found: dict[K, list[Cost]] = {name: [] for name in calls}
    for _ in range(rounds + (rounds > 1)):
        for name, call in calls.items():
            found[name].append(call())
    return {name: median(costs[-rounds:]) for name, costs in found.items()}


class CountingStore(LocalStore):
    """Files, with a count of the requests that an object store would get for the same calls."""

    def __init__(self, root: str, calls: Counter[str]) -> None:
        super().__init__(root)
        self._calls = calls

    def list(self, folder: str) -> Iterator[Entry]:
        number = 0
        for entry in super().list(folder):
            self._calls["list"] += number % 1000 == 0
            number += 1
            yield entry
        self._calls["list"] += number == 0

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._calls["get"] += 1
        return super().get(key, start, length)

    def put_all(self, puts: Sequence[Put]) -> None:
        self._calls["put"] += len(puts)
        super().put_all(puts)

    def delete(self, keys: Iterable[str]) -> None:
        wanted = [*keys]
        self._calls["delete"] += -(-len(wanted) // 1000)
        super().delete(wanted)

    def delete_folder(self, folder: str) -> None:
        found = [entry.key for entry in self.list(folder)]
        self._calls["delete"] += -(-len(found) // 1000)
        super().delete_folder(folder)
