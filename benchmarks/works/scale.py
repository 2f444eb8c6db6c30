"""What reading, starting and deleting workflows costs, by how many are stored.

Nothing of it should grow with that. The storages are filled as :mod:`benchmarks.stored_workflows` tells.

``python -m benchmarks.works.scale FOLDER`` only fills them; with ``SCALE_STORAGES=FOLDER`` they are measured later, and
stay for another run.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import cycle
from pathlib import Path

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline.prune import prune
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.completions import Completions
from airflow_provider_rayworkflow.workflow.storage.keys import quote_id
from airflow_provider_rayworkflow.workflow.storage.listing import (
    ListFilter,
    count_last_day,
    read_page,
)
from airflow_provider_rayworkflow.workflow.storage.overview import Listed, Overview
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader
from airflow_provider_rayworkflow.workflow.storage.status_watch import StatusWatch
from benchmarks.costs import Cost, in_turns, median
from benchmarks.rows import Row, by_amount, by_count
from benchmarks.storages import FILES, S3, Place, fill_all, opened
from benchmarks.stored_workflows import (
    DAGS,
    EARLIER,
    SUBMITTED,
    Filling,
    held,
    sleep_on,
    task_instance,
)

TABLE = Path(__file__).parent.parent / "results" / "scale.md"
#: Where storages are, or are to be, that stay for another run.
KEPT = "SCALE_STORAGES"
#: `get_status` is so much cheaper than the other calls of a visit that it has this many for each of theirs.
STATUS_ROUNDS = 5
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

    :ivar stored: how many workflows are stored, on files.
    :ivar stored_on_s3: the same on S3.
    :ivar have_run: up to so many of them really ran; more are generated.
    :ivar watched: how many others are running, and are watched.
    :ivar resumable: how many others are RESUMABLE.
    :ivar pruned: how many others are pruned, which are the oldest.
    :ivar pruned_on_s3: the same on S3.
    :ivar rounds: of reads.
    :ivar visits: how often a manager begins in each storage.
    :ivar visit_rounds: of the calls that go to this manager, each time.
    :ivar settle_s: what of a run may be left when a call is done, in seconds.
    :ivar prunes: by how many calls workflows are pruned.
    :ivar slow_rounds: of listings of all statuses; fewer where many are stored.
    """

    stored: Sequence[int] = (1_000, 100_000, 1_000_000)
    stored_on_s3: Sequence[int] = (1_000, 100_000, 1_000_000)
    have_run: int = 100_000
    watched: int = 1_000
    resumable: int = 10
    pruned: int = 1_000
    pruned_on_s3: int = 1_000
    rounds: int = 41
    visits: int = 3
    visit_rounds: int = 6
    settle_s: float = 0.6
    prunes: int = 10
    slow_rounds: int = 3


FULL = Sizes()
QUICK = Sizes(
    stored=(60, 200),
    stored_on_s3=(200,),
    have_run=60,
    watched=30,
    resumable=3,
    pruned=4,
    pruned_on_s3=4,
    rounds=2,
    visits=1,
    visit_rounds=1,
    settle_s=0.1,
    prunes=2,
    slow_rounds=1,
)

Places = Mapping[int, Place]
#: By what is measured, and by how many workflows are stored.
Costs = dict[str, dict[int, Cost]]


def measure(quick: bool) -> list[Row]:
    sizes = QUICK if quick else FULL
    with _folder() as folder:
        with filled(folder, sizes) as places:
            loads = [os.getloadavg()[0]]
            on_s3 = measure_all(places[S3], sizes)
        loads.append(os.getloadavg()[0])
        found = {FILES: measure_all(places[FILES], sizes), S3: on_s3}
        loads.append(os.getloadavg()[0])
    if not quick:
        said = ", ".join(f"{load:.1f}" for load in loads)
        when = f"Measured on {date.today()}; load before S3, between, and after files: {said}, of {os.cpu_count()} CPUs."
        TABLE.write_text(f"{table(found)}\n{when}\n")
    return [row for name, costs in found.items() for row in rows_of(name, costs)]


@contextmanager
def _folder() -> Iterator[Path]:
    """Where storages stay for another run, or a temporary one."""
    if kept := os.environ.get(KEPT):
        yield Path(kept)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@contextmanager
def filled(folder: Path, sizes: Sizes) -> Iterator[dict[str, Places]]:
    """All storages, filled, or filled up after a run. Those on S3 are there while this lasts."""
    fillings = {
        stored: Filling(stored=stored, have_run=stored <= sizes.have_run, earlier=sizes.pruned)
        for stored in {*sizes.stored, *sizes.stored_on_s3}
    }
    with (
        opened(folder, FILES, sizes.stored) as files,
        opened(folder, S3, sizes.stored_on_s3) as objects,
    ):
        places = {FILES: files, S3: objects}
        fill_all(places, fillings)
        yield places


def measure_all(places: Places, sizes: Sizes) -> Costs:
    """All costs in the storages of one kind, which are filled."""
    with ExitStack() as stack:
        holders = {
            stored: stack.enter_context(
                held(place.uri, watched=sizes.watched, resumable=sizes.resumable)
            )
            for stored, place in places.items()
        }
        watched = {stored: ids()["running"] for stored, ids in holders.items()}
        costs: Costs = {}
        for what, by_size in _measured(places, watched, sizes):
            costs[what] = by_size
            for stored, cost in by_size.items():
                _say(f"{places[stored].name}, {stored:,}: {what}: {cost}")
    return costs


def _measured(
    places: Places, watched: Mapping[int, Sequence[str]], sizes: Sizes
) -> Iterator[tuple[str, dict[int, Cost]]]:
    reads = {stored: _reads(place, watched[stored], stored) for stored, place in places.items()}
    for what in (POLL, PAGE, PAGE_AGAIN, PAGE_BY, COUNTS, LOOK):
        calls = {
            stored: partial(place.meter.cost, reads[stored][what])
            for stored, place in places.items()
        }
        yield what, in_turns(calls, rounds=sizes.rounds)
    yield from _calls(places, sizes).items()
    yield from _before(places, sizes).items()
    yield PRUNE, _prune(places, sizes)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- what is measured


def _reads(place: Place, watched: Sequence[str], stored: int) -> dict[str, Callable[[], object]]:
    """Of processes that only read: triggerer, pages and command line, watcher."""
    watch = StatusWatch(StatusReader(place.store(), patient=True))
    segments = [quote_id(workflow_id) for workflow_id in watched]
    if len(watch.look(segments)) != len(watched):
        raise RuntimeError("it should have found all that are watched")
    kept = place.store()
    # Under the name of an earlier run, it would be given all that has ended since.
    name = f"bench-{uuid.uuid4().hex}"
    by_dag = cycle(_by_dag_and_status(stored))
    completions = Completions(place.store(), name, statuses=[WorkflowStatus.SUCCESSFUL])
    return {
        POLL: lambda: watch.look(segments),
        PAGE: lambda: _page(place.store(), _ALL),
        PAGE_AGAIN: lambda: _page(kept, _ALL),
        PAGE_BY: lambda: _page(place.store(), next(by_dag)),
        COUNTS: lambda: count_last_day(Overview(place.store()), time.time()),
        LOOK: completions.look,
    }


_ALL = ListFilter()


def _by_dag_and_status(stored: int) -> list[ListFilter]:
    """Filters of DAGs that have a full page: of few stored, only the earlier one has.

    It is a matter of chance whether a page ends in the node of the index in which it begins; so of many stored the median of
    several DAGs is taken.
    """
    spread = range(0, DAGS, DAGS // 8) if stored >= 100 * DAGS else ()
    dags = [EARLIER, *(f"dag_{number:03d}" for number in spread)]
    return [
        ListFilter(dag_id=dag_id, statuses=frozenset({WorkflowStatus.SUCCESSFUL}))
        for dag_id in dags
    ]


def _page(store: WorkflowStore, chosen: ListFilter) -> None:
    read_page(Overview(store), chosen, size=50)


class _WithoutIndex(Overview):
    """Lists all statuses, as before there was an index."""

    def load(self) -> bool:
        return False


def _before(places: Places, sizes: Sizes) -> Costs:
    """What the same reads took when each of them listed all statuses."""
    costs: Costs = {SLOW_POLL: {}, SLOW_PAGE: {}}
    for stored, place in places.items():
        calls: dict[str, Callable[[], object]] = {
            SLOW_POLL: StatusReader(place.store()).list_workflows,
            SLOW_PAGE: lambda place=place: _page_of_all(place),
        }
        for what, do in calls.items():
            found = [
                place.meter.cost(do) for _ in range(sizes.slow_rounds if stored < 100_000 else 1)
            ]
            costs[what][stored] = median(found)
    return costs


def _page_of_all(place: Place) -> None:
    read_page(_WithoutIndex(place.store()), _ALL, size=50)


def _calls(places: Places, sizes: Sizes) -> Costs:
    """Of a manager and its callers. The storages take turns."""
    found: dict[str, dict[int, list[Cost]]] = {}
    for _ in range(sizes.visits):
        for stored, place in places.items():
            for what, costs in _Visit(place, sizes).costs().items():
                found.setdefault(what, {}).setdefault(stored, []).extend(costs)
    return {
        what: {stored: median(costs) for stored, costs in by_size.items()}
        for what, by_size in found.items()
    }


class _Visit:
    """A manager runs in this process for a while."""

    def __init__(self, place: Place, sizes: Sizes) -> None:
        self._place = place
        self._sizes = sizes
        self._started: list[str] = []
        self._submitted: list[str] = []

    def costs(self) -> dict[str, list[Cost]]:
        rounds = self._sizes.visit_rounds
        known = iter(_successful(self._place, STATUS_ROUNDS * rounds + 1))
        with testing.in_process(self._place.open()):
            time.sleep(4 * self._sizes.settle_s)  # it takes over what others have left
            costs = {
                STATUS: self._each(
                    lambda: workflow.get_status(next(known).workflow_id), STATUS_ROUNDS * rounds
                ),
                RESUME_ALL: self._each(
                    self._resume_all, 1, prepare=lambda: self._suspend(self._started), settles=True
                ),
                RESUME: self._each(
                    lambda: workflow.resume_async(self._started[0]),
                    rounds,
                    prepare=lambda: self._suspend(self._started[:1]),
                    settles=True,
                ),
                SUBMIT: self._each(self._submit, rounds, settles=True),
            }
            for workflow_id in self._submitted:
                workflow.cancel(workflow_id)  # the next manager does not find them to be resumed
        return costs

    def _each(
        self,
        do: Callable[[], object],
        rounds: int,
        *,
        prepare: Callable[[], object] = lambda: None,
        settles: bool = False,
    ) -> list[Cost]:
        """After a call that warms up."""
        found = []
        for _ in range(rounds + 1):
            prepare()
            found.append(
                self._place.meter.cost(do, settle_s=self._sizes.settle_s if settles else 0.0)
            )
        return found[1:]

    def _submit(self) -> None:
        now = time.time()
        self._submitted.append(sleep_on(task_instance(SUBMITTED, now)))

    def _suspend(self, which: Sequence[str]) -> None:
        for workflow_id in which:
            if workflow.get_status(workflow_id) == "RUNNING":
                workflow.suspend(workflow_id)
        time.sleep(self._sizes.settle_s)

    def _resume_all(self) -> None:
        resumed = workflow.resume_all()
        if len(resumed) != self._sizes.resumable:
            raise RuntimeError(f"it should have resumed {self._sizes.resumable}, not {resumed}")
        self._started[:] = [workflow_id for workflow_id, _ in resumed]


def _successful(place: Place, number: int, *, oldest: bool = False) -> Sequence[Listed]:
    overview = Overview(WorkflowStore(place.open()))
    chosen = ListFilter(statuses=frozenset({WorkflowStatus.SUCCESSFUL}))
    return read_page(overview, chosen, size=number, sort="ended", descending=not oldest).rows


def _prune(places: Places, sizes: Sizes) -> dict[int, Cost]:
    """For each workflow of those that ran earliest."""
    calls = {}
    for stored, place in places.items():
        number = sizes.pruned if place.name == FILES else sizes.pruned_on_s3
        oldest = _successful(place, number, oldest=True)
        some = number // sizes.prunes
        ends = iter(listed.row.last_at for listed in oldest[some - 1 :: some])
        calls[stored] = partial(_prune_some, place, ends, some)
    return in_turns(calls, rounds=sizes.prunes - 1)


def _prune_some(place: Place, ends: Iterator[float], number: int) -> Cost:
    last, now = next(ends), time.time()

    def do() -> None:
        done = prune(place.store(), older_than_s=now - last - 0.001, now=now)
        if len(done) != number:
            raise RuntimeError(f"it should have pruned {number}, not {len(done)}")

    cost = place.meter.cost(do)
    return Cost(
        requests=cost.requests / number, cpu_ms=cost.cpu_ms / number, wall_ms=cost.wall_ms / number
    )


# ---- what is said of it


def table(found: Mapping[str, Costs]) -> str:
    """All figures, for docs/performance.md."""
    lines = []
    for name, costs in found.items():
        sizes = sorted(next(iter(costs.values())))
        heads = [f"{size:,} stored" for size in sizes]
        lines += ["", f"| {name} | {' | '.join(heads)} | largest / smallest |"]
        lines.append(f"| --- |{' --- |' * (len(sizes) + 1)}")
        for what, by_size in costs.items():
            cells = [
                f"{cost.requests:,.4g}; {_ms(cost.cpu_ms)}; {_ms(cost.wall_ms)}"
                for cost in map(by_size.__getitem__, sizes)
            ]
            growth = _growth(by_size[sizes[0]], by_size[sizes[-1]])
            grown = " ".join(f"{one:.2f}" for one in growth)
            lines.append(f"| {what} | {' | '.join(cells)} | {grown} |")
    return "\n".join([*lines[1:], ""])


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:,.1f}" if milliseconds < 100 else f"{milliseconds:,.0f}"


def _growth(small: Cost, large: Cost) -> tuple[float, float, float]:
    return (
        large.requests / small.requests,
        large.cpu_ms / small.cpu_ms,
        large.wall_ms / small.wall_ms,
    )


def rows_of(name: str, costs: Costs) -> list[Row]:
    """How what is allowed is kept where most is stored, and how each cost has grown from where least is."""
    smallest, largest = min(costs[POLL]), max(costs[POLL])
    poll, page = costs[POLL][largest], costs[PAGE][largest]
    where = f"{largest:,} stored, {name}"
    rows = [
        by_count(f"{POLL}: {where}", "3", ours=poll.requests, allowed=3, unit="requests"),
        by_count(f"{POLL}: {where}", "20 ms", ours=poll.cpu_ms, allowed=20, unit="ms CPU"),
        by_count(f"{PAGE}: {where}", "12", ours=page.requests, allowed=12, unit="requests"),
        by_count(f"{PAGE}: {where}", "0.3 s", ours=page.wall_ms, allowed=300, unit="ms"),
    ]
    for before, now in ((SLOW_POLL, POLL), (SLOW_PAGE, PAGE)):
        rows.append(
            by_amount(
                f"{now}: {where}",
                "listing all statuses",
                ours=costs[now][largest].wall_ms,
                theirs=costs[before][largest].wall_ms,
                unit="ms",
                goal="≥ 1",
            )
        )
    for what, by_size in costs.items():
        if what not in (SLOW_POLL, SLOW_PAGE):
            work, peer = f"{what}: {where}", f"{smallest:,} stored"
            rows.append(_growth_row(work, peer, by_size[smallest], by_size[largest]))
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


if __name__ == "__main__":
    with filled(Path(sys.argv[1]), FULL):
        pass
