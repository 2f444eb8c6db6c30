"""What reading, starting and deleting workflows costs, by how many are stored.

Nothing of it should grow with that. The storages are filled as :mod:`benchmarks.stored_workflows` tells.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.model.index_row import counted_as
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline.prune import prune
from airflow_provider_rayworkflow.workflow.storage import ByteStore, WorkflowStore, open_store
from airflow_provider_rayworkflow.workflow.storage.completions import Completions
from airflow_provider_rayworkflow.workflow.storage.index import Index
from airflow_provider_rayworkflow.workflow.storage.index_nodes import node_cache
from airflow_provider_rayworkflow.workflow.storage.keys import quote_id
from airflow_provider_rayworkflow.workflow.storage.listing import (
    ListFilter,
    count_last_day,
    read_page,
)
from airflow_provider_rayworkflow.workflow.storage.overview import Listed, Overview
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader
from airflow_provider_rayworkflow.workflow.storage.status_watch import StatusWatch
from benchmarks.costs import Cost, CountingStore, Meter
from benchmarks.rows import Row, by_amount, by_count
from benchmarks.slow_s3 import slow_s3
from benchmarks.stored_workflows import fill, held, sleep_on, task_instance

DELAY_S = 0.02
TABLE = Path(__file__).parent.parent / "results" / "scale.md"
#: What of a run may be left when each is done, in seconds.
_SETTLE_S = 0.6

POLL = "round of the poll"
PAGE = "newest page"
PAGE_AGAIN = "newest page, again in the same process"
PAGE_BY = "page by DAG and status"
COUNTS = "counts of the last day"
LOOK = "look of a watcher"
STATUS = "`get_status`"
SUBMIT = "submit"
RESUME = "resume"
RESUME_ALL = "`resume_all`"
PRUNE = "prune, for each workflow"
SLOW_POLL = "round of the poll, listing all statuses"
SLOW_PAGE = "newest page, listing all statuses"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is stored and measured.

    :ivar stored: how many workflows are generated.
    :ivar stored_on_s3: the same on S3.
    :ivar ran: how many others really ran. They are the oldest, and are pruned.
    :ivar pruned_on_s3: how many of them are pruned on S3.
    :ivar watched: how many others are running, and are watched.
    :ivar resumable: how many others are RESUMABLE.
    """

    stored: Sequence[int] = (1_000, 100_000, 1_000_000)
    stored_on_s3: Sequence[int] = (1_000, 100_000)
    ran: int = 1_000
    pruned_on_s3: int = 100
    watched: int = 1_000
    resumable: int = 10
    rounds: int = 11


FULL = Sizes()
QUICK = Sizes(
    stored=(100, 300),
    stored_on_s3=(100,),
    ran=20,
    pruned_on_s3=5,
    watched=30,
    resumable=3,
    rounds=2,
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A storage, filled or not.

    :ivar uri: for those who are not measured.
    :ivar open: for those who are.
    :ivar pruned: how many workflows are pruned in it.
    """

    name: str
    uri: str
    open: Callable[[], ByteStore]
    meter: Meter
    pruned: int

    def store(self) -> WorkflowStore:
        """For a process that has read nothing yet."""
        store = WorkflowStore(self.open())
        store.index = Index(store.bytes, tally=counted_as, cache=node_cache(16 * 2**20))
        return store


Costs = dict[str, Cost]


def measure(quick: bool) -> list[Row]:
    sizes = QUICK if quick else FULL
    found = measure_files(sizes) | measure_s3(sizes)
    if not quick:
        TABLE.write_text(table(found))
    return [row for name, by_size in found.items() for row in rows_of(name, by_size)]


def measure_files(sizes: Sizes) -> dict[str, dict[int, Costs]]:
    """The costs on local files, by the name of the place and how many are stored."""
    return _measure(_on_files, sizes.stored, sizes)


def measure_s3(sizes: Sizes) -> dict[str, dict[int, Costs]]:
    """The same on S3."""
    return _measure(_on_s3, sizes.stored_on_s3, sizes)


def _measure(
    empty: Callable[[str, Sizes], AbstractContextManager[Place]],
    stored: Sequence[int],
    sizes: Sizes,
) -> dict[str, dict[int, Costs]]:
    found: dict[str, dict[int, Costs]] = {}
    for number in stored:
        with tempfile.TemporaryDirectory() as folder, empty(folder, sizes) as place:
            begun = time.monotonic()
            fill(place.uri, generated=number, ran=sizes.ran)
            _say(f"{place.name}: filled with {number:,} in {time.monotonic() - begun:.0f} s")
            found.setdefault(place.name, {})[number] = measure_place(place, number, sizes)
    return found


@contextmanager
def _on_files(folder: str, sizes: Sizes) -> Iterator[Place]:
    calls: Counter[str] = Counter()
    yield Place(
        name="local files",
        uri=folder,
        open=lambda: CountingStore(folder, calls),
        meter=Meter(requests=calls.total),
        pruned=sizes.ran,
    )


@contextmanager
def _on_s3(folder: str, sizes: Sizes) -> Iterator[Place]:
    with slow_s3(Path(folder), delay_s=DELAY_S) as (uri, wire):
        yield Place(
            name=f"S3 with {DELAY_S * 1000:g} ms a request",
            uri=uri.replace(f":{wire.port}", f":{wire.target}"),
            open=lambda: open_store(uri),
            meter=Meter(requests=wire.counts.total, cpu_s=lambda: time.process_time() - wire.cpu_s),
            pruned=sizes.pruned_on_s3,
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- what is measured


def measure_place(place: Place, stored: int, sizes: Sizes) -> Costs:
    """All costs in one storage that is filled."""
    with held(place.uri, watched=sizes.watched, resumable=sizes.resumable) as ids:
        costs = _reads(place, ids["running"], sizes.rounds)
        costs |= _calls(place, sizes)
        costs |= _before(place, rounds=3 if stored <= 100_000 else 1)
        costs[PRUNE] = _prune(place, sizes)
    for what, cost in costs.items():
        _say(f"{place.name}, {stored:,}: {what}: {cost}")
    return costs


def _reads(place: Place, watched: Sequence[str], rounds: int) -> Costs:
    """Of processes that only read: triggerer, pages and command line, watcher."""
    watch = StatusWatch(StatusReader(place.store(), patient=True))
    segments = [quote_id(workflow_id) for workflow_id in watched]
    if len(watch.look(segments)) != len(watched):
        raise RuntimeError("it should have found all that are watched")
    kept = place.store()
    completions = Completions(place.store(), "bench", statuses=[WorkflowStatus.SUCCESSFUL])
    calls: dict[str, Callable[[], object]] = {
        POLL: lambda: watch.look(segments),
        PAGE: lambda: _page(place.store(), _ALL),
        PAGE_AGAIN: lambda: _page(kept, _ALL),
        PAGE_BY: lambda: _page(place.store(), _BY_DAG_AND_STATUS),
        COUNTS: lambda: count_last_day(Overview(place.store()), time.time()),
        LOOK: completions.look,
    }
    return {what: place.meter.cost(do, rounds=rounds) for what, do in calls.items()}


_ALL = ListFilter()
_BY_DAG_AND_STATUS = ListFilter(dag_id="dag_001", statuses=frozenset({WorkflowStatus.FAILED}))


def _page(store: WorkflowStore, chosen: ListFilter) -> None:
    read_page(Overview(store), chosen, size=50)


class _WithoutIndex(Overview):
    """Lists all statuses, as before there was an index."""

    def load(self) -> bool:
        return False


def _before(place: Place, rounds: int) -> Costs:
    """What the same reads took when each of them listed all statuses."""
    reader = StatusReader(place.store())
    return {
        SLOW_POLL: place.meter.cost(reader.list_workflows, rounds=rounds),
        SLOW_PAGE: place.meter.cost(
            lambda: read_page(_WithoutIndex(place.store()), _ALL, size=50), rounds=rounds
        ),
    }


def _calls(place: Place, sizes: Sizes) -> Costs:
    """Of a manager and its callers; the manager runs in this process."""
    meter, rounds, now = place.meter, sizes.rounds, time.time()
    numbers = count(1)

    def ask() -> None:
        workflow.get_status(next(known))

    def submit() -> None:
        started.append(sleep_on(task_instance("dag_submitted", now + next(numbers))))

    def suspend(which: Sequence[str]) -> None:
        for workflow_id in which:
            if workflow.get_status(workflow_id) == "RUNNING":
                workflow.suspend(workflow_id)
        time.sleep(_SETTLE_S)

    def resume_all() -> None:
        if len(resumed := workflow.resume_all()) != sizes.resumable:
            raise RuntimeError(f"it should have resumed {sizes.resumable}, not {len(resumed)}")
        started[:] = [workflow_id for workflow_id, _ in resumed]

    known = iter([listed.workflow_id for listed in _successful(place, rounds + 1)])
    started: list[str] = []
    costs: Costs = {}
    with testing.in_process(place.open()):
        time.sleep(2.0)  # it takes over what others have left
        costs[STATUS] = meter.cost(ask, rounds=rounds)
        costs[RESUME_ALL] = meter.cost(
            resume_all, rounds=3, prepare=lambda: suspend(started), settle_s=_SETTLE_S
        )
        costs[RESUME] = meter.cost(
            lambda: workflow.resume_async(started[0]),
            rounds=rounds,
            prepare=lambda: suspend(started[:1]),
            settle_s=_SETTLE_S,
        )
        costs[SUBMIT] = meter.cost(submit, rounds=rounds, settle_s=_SETTLE_S)
    return costs


def _successful(place: Place, number: int, *, oldest: bool = False) -> Sequence[Listed]:
    overview = Overview(WorkflowStore(place.open()))
    chosen = ListFilter(statuses=frozenset({WorkflowStatus.SUCCESSFUL}))
    return read_page(overview, chosen, size=number, sort="ended", descending=not oldest).rows


def _prune(place: Place, sizes: Sizes) -> Cost:
    """Prune some of those that really ran."""
    now, number = time.time(), place.pruned
    last = _successful(place, number, oldest=True)[-1].row.last_at

    def do() -> None:
        done = prune(place.store(), older_than_s=now - last - 0.001, now=now)
        if len(done) != number:
            raise RuntimeError(f"it should have pruned {number}, not {len(done)}")

    cost = place.meter.cost(do, rounds=1)
    return Cost(
        requests=cost.requests / number, cpu_ms=cost.cpu_ms / number, wall_ms=cost.wall_ms / number
    )


# ---- what is said of it


def table(found: Mapping[str, Mapping[int, Costs]]) -> str:
    """All figures, for docs/performance.md."""
    lines = []
    for name, by_size in found.items():
        sizes = sorted(by_size)
        heads = [f"{size:,} stored" for size in sizes]
        lines += ["", f"| {name} | {' | '.join(heads)} | largest / smallest |"]
        lines.append(f"| --- |{' --- |' * (len(sizes) + 1)}")
        for what in by_size[sizes[0]]:
            costs = [by_size[size][what] for size in sizes]
            cells = [
                f"{cost.requests:,.4g}; {_ms(cost.cpu_ms)}; {_ms(cost.wall_ms)}" for cost in costs
            ]
            growth = " ".join(f"{one:.2f}" for one in _growth(costs[0], costs[-1]))
            lines.append(f"| {what} | {' | '.join(cells)} | {growth} |")
    return "\n".join([*lines[1:], ""])


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:,.1f}" if milliseconds < 100 else f"{milliseconds:,.0f}"


def _growth(small: Cost, large: Cost) -> tuple[float, float, float]:
    return (
        large.requests / small.requests,
        large.cpu_ms / small.cpu_ms,
        large.wall_ms / small.wall_ms,
    )


def rows_of(name: str, by_size: Mapping[int, Costs]) -> list[Row]:
    """How what is allowed is kept where most is stored, and how each cost has grown from where least is."""
    smallest, largest = min(by_size), max(by_size)
    small, large = by_size[smallest], by_size[largest]
    where = f"{largest:,} stored, {name}"
    rows = [
        by_count(f"{POLL}: {where}", "3", ours=large[POLL].requests, allowed=3, unit="requests"),
        by_count(f"{POLL}: {where}", "20 ms", ours=large[POLL].cpu_ms, allowed=20, unit="ms CPU"),
        by_count(f"{PAGE}: {where}", "12", ours=large[PAGE].requests, allowed=12, unit="requests"),
        by_count(f"{PAGE}: {where}", "0.3 s", ours=large[PAGE].wall_ms, allowed=300, unit="ms"),
    ]
    for before, now in ((SLOW_POLL, POLL), (SLOW_PAGE, PAGE)):
        rows.append(
            by_amount(
                f"{now}: {where}",
                "listing all statuses",
                ours=large[now].wall_ms,
                theirs=large[before].wall_ms,
                unit="ms",
                goal="≥ 1",
            )
        )
    for what, cost in small.items():
        if what not in (SLOW_POLL, SLOW_PAGE):
            rows.append(_growth_row(f"{what}: {where}", f"{smallest:,} stored", cost, large[what]))
    return rows


def _growth_row(work: str, peer: str, small: Cost, large: Cost) -> Row:
    """What of a cost has grown most."""
    grown = {
        "requests": (small.requests, large.requests),
        "ms CPU": (small.cpu_ms, large.cpu_ms),
        "ms": (small.wall_ms, large.wall_ms),
    }
    unit = max(grown, key=lambda unit: grown[unit][1] / grown[unit][0])
    before, now = grown[unit]
    return by_amount(work, peer, ours=now, theirs=before, unit=unit, goal="≥ 0.83")
