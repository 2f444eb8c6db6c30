"""Which tasks share a Ray task. Pure: no Ray, no clock.

A Ray task costs about a millisecond, so tasks that take less run several in one. How long a
function takes is learned. What has not been measured is taken for long, and long tasks run each by
itself; so nothing waits behind them. A linear run, in which each task only waits for the ones
before it, stays together as far as the budget goes. The items of a map share by its ``batch_size``, whatever
they take.
"""

from __future__ import annotations

from airflow_provider_rayworkflow.workflow.model.records import Result
from airflow_provider_rayworkflow.workflow.scheduling.attempts import Errand, TaskRun

#: How long the tasks of one Ray task may take together, as far as one knows.
BUDGET_S = 0.02
#: A function that takes longer shares nothing.
SHORT_S = BUDGET_S / 2
#: How many packs there are for each CPU: one that runs and one that waits for it.
PACKS_A_CPU = 2

_MAX_TASKS = 1_000
_MAX_BYTES = 1024 * 1024
_MAX_FUNCTIONS = 10_000
_WEIGHT = 0.5  # of the latest measurement in the average

_Environment = tuple[bytes, tuple[tuple[str, str], ...]]


class Durations:
    """How long functions take: a moving average of each one's measured times."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, int], float] = {}

    def of(self, function: bytes) -> float | None:
        """In seconds; None for a function that has not been measured."""
        return self._seconds.get(_key(function))

    def is_long(self, function: bytes) -> bool:
        """True if it is known to be too long to share a Ray task."""
        return (self.of(function) or 0.0) > SHORT_S

    def note(self, function: bytes, seconds: float) -> None:
        """Take a measurement into account."""
        before = self._seconds.pop(_key(function), seconds)
        if len(self._seconds) >= _MAX_FUNCTIONS:
            del self._seconds[next(iter(self._seconds))]
        self._seconds[_key(function)] = before + _WEIGHT * (seconds - before)


class Packer:
    """What waits to be packed.

    Tasks share with those only that run in the same environment.
    """

    def __init__(self, durations: Durations) -> None:
        self._durations = durations
        self._waiting: dict[_Environment, dict[Errand, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, errand: Errand) -> None:
        """Let a task wait. It must be one that may share, and whose function is not known as long."""
        self._waiting.setdefault(errand.run.environment, {})[errand] = None
        self._count += 1

    def remove(self, errand: Errand) -> bool:
        """Forget a task; False if it does not wait here."""
        group = self._waiting.get(errand.run.environment, {})
        if errand not in group:
            return False
        self._drop(errand, group)
        return True

    def take(self, slots: int) -> list[Errand]:
        """The tasks of the next Ray task, in their order; at least one must be waiting.

        :param slots: how many Ray tasks would be welcome; what waits is spread over them.
        """
        share = -(-self._count // max(slots, 1))
        environment, group = next(iter(self._waiting.items()))
        pack = _Pack(self._durations)
        while group and pack.heads < share and pack.add(next(iter(group))):
            self._drop(next(iter(group)), group)
        if group:  # the next one is of another environment, if there is any
            self._waiting[environment] = self._waiting.pop(environment)
        return pack.errands

    def take_long(self, function: bytes) -> list[Errand]:
        """All that wait with a function that proved to be long, unless they share in batches."""
        found = [
            errand
            for group in self._waiting.values()
            for errand in group
            if errand.run.function == function and errand.run.batch_size == 1
        ]
        for errand in found:
            self.remove(errand)
        return found

    def _drop(self, errand: Errand, group: dict[Errand, None]) -> None:
        del group[errand]
        self._count -= 1
        if not group:
            del self._waiting[errand.run.environment]


class _Pack:
    """A pack that is being made."""

    def __init__(self, durations: Durations) -> None:
        self.errands: list[Errand] = []
        self.heads = 0
        self._durations = durations
        self._known: dict[int, float | None] = {}
        self._seconds = 0.0
        self._bytes = 0

    def add(self, errand: Errand) -> bool:
        """Add a ready task and those that follow it; False if it has to go elsewhere."""
        run = errand.run
        seconds, size = self._of(run), _size(run)
        is_short = seconds is not None and seconds <= SHORT_S
        is_batched = run.batch_size > 1
        by_itself = not is_batched and (size is None or not is_short)
        if self.errands and (by_itself or not self._takes(run, seconds, size)):
            return False
        self.heads += _MAX_TASKS if by_itself else 1
        self._append(errand, seconds, size)
        if is_short and not is_batched:
            self._append_followers(errand)
        return True

    def _takes(self, run: TaskRun, seconds: float | None, size: int | None) -> bool:
        """True if another task may share with the first one."""
        first = self.errands[0].run
        if max(first.batch_size, run.batch_size) == 1:
            return self._has_room(seconds, size)
        is_of_batch = (first.function, first.batch_size) == (run.function, run.batch_size)
        has_room = len(self.errands) < run.batch_size and self._bytes + (size or 0) <= _MAX_BYTES
        return is_of_batch and has_room

    def _append_followers(self, errand: Errand) -> None:
        environment = errand.run.environment
        seconds: float | None = None
        size: int | None = None

        def accept(run: TaskRun) -> bool:
            nonlocal seconds, size
            seconds, size = self._of(run), _size(run)
            return (
                run.can_share
                and run.environment == environment
                and seconds is not None
                and seconds <= SHORT_S
                and size is not None
                and self._has_room(seconds, size)
            )

        while (after := errand.follow(accept)) is not None:
            self._append(after, seconds, size)
            errand = after

    def _of(self, run: TaskRun) -> float | None:
        # The tasks of a graph share the functions' bytes themselves.
        key = id(run.function)
        if key not in self._known:
            self._known[key] = self._durations.of(run.function)
        return self._known[key]

    def _has_room(self, seconds: float | None, size: int | None) -> bool:
        return (
            len(self.errands) < _MAX_TASKS
            and self._seconds + (seconds or 0.0) <= BUDGET_S
            and self._bytes + (size or 0) <= _MAX_BYTES
        )

    def _append(self, errand: Errand, seconds: float | None, size: int | None) -> None:
        self.errands.append(errand)
        self._seconds += seconds or 0.0
        self._bytes += size or 0


def _key(function: bytes) -> tuple[int, int]:
    return hash(function), len(function)  # Python keeps the hash of bytes


def _size(run: TaskRun) -> int | None:
    """The bytes that it takes along; None with large values.

    What loads those may fail before anything has begun; that shall concern no others.
    """
    arguments = run.arguments
    if isinstance(arguments, bytes):
        size = len(arguments)
    else:
        size = sum([len(scalar) for scalar in arguments[0] if type(scalar) is str])
    for given in run.inputs:
        if type(given) is Result:
            if given.inline is None:
                return None
            size += len(given.inline)
    return size
