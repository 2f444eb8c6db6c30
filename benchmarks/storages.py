"""The storages of the benchmark ``scale``: each with a folder of its own, where they may stay for another run."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from airflow_provider_rayworkflow.workflow.model.index_row import counted_as
from airflow_provider_rayworkflow.workflow.storage import ByteStore, WorkflowStore, open_store
from airflow_provider_rayworkflow.workflow.storage.index import Index
from airflow_provider_rayworkflow.workflow.storage.index_nodes import node_cache
from benchmarks.costs import CountingStore, Meter
from benchmarks.slow_s3 import BUCKET, SeaweedFS, Wire, make_buckets, s3_address
from benchmarks.stored_workflows import Filling, fill, fill_again

DELAY_S = 0.02
# In the folder of a storage that is filled.
_MARK = "filled.json"
_PATH = "scale"
FILES = "local files"
S3 = f"S3 with {DELAY_S * 1000:g} ms a request"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A storage, filled or not.

    :ivar folder: its own; the storage is below it.
    :ivar uri: for those who are not measured.
    :ivar open: for those who are.
    :ivar filer: see :func:`benchmarks.stored_workflows.generate`.
    """

    name: str
    folder: Path
    uri: str
    open: Callable[[], ByteStore]
    meter: Meter
    filer: str = ""

    def store(self) -> WorkflowStore:
        """For a process that has read nothing yet."""
        store = WorkflowStore(self.open())
        store.index = Index(store.bytes, tally=counted_as, cache=node_cache(16 * 2**20))
        return store


@contextmanager
def opened(folder: Path, name: str, sizes: Sequence[int]) -> Iterator[dict[int, Place]]:
    """A place for each size; those on S3 are there while this lasts."""
    with ExitStack() as stack:
        found = {}
        for stored in sizes:
            own = folder / f"{name.split()[0].lower()}-{stored}"
            if not (own / _MARK).exists():
                shutil.rmtree(own, ignore_errors=True)  # it was not filled to the end
            own.mkdir(parents=True, exist_ok=True)
            found[stored] = _on_files(own) if name == FILES else stack.enter_context(_on_s3(own))
        yield found


def _on_files(folder: Path) -> Place:
    calls: Counter[str] = Counter()
    uri = str(folder / "storage")
    return Place(
        name=FILES,
        folder=folder,
        uri=uri,
        open=lambda: CountingStore(uri, calls),
        meter=Meter(requests=calls.total),
    )


@contextmanager
def _on_s3(folder: Path) -> Iterator[Place]:
    # What is small stays in the filer's database, so that a million can be written in minutes.
    server = SeaweedFS(folder, "-filer.saveToFilerLimit=4096", "-volume.max=200")
    try:
        server.start()
        make_buckets(server.port)
        wire = Wire(server.port, DELAY_S)
        uri = s3_address(wire.port, path=_PATH)
        yield Place(
            name=S3,
            folder=folder,
            uri=s3_address(server.port, path=_PATH),
            open=lambda: open_store(uri),
            meter=Meter(requests=wire.counts.total, cpu_s=lambda: time.process_time() - wire.cpu_s),
            filer=f"http://127.0.0.1:{server.filer_port}/buckets/{BUCKET}/{_PATH}",
        )
    finally:
        server.kill()


def fill_all(places: Mapping[str, Mapping[int, Place]], fillings: Mapping[int, Filling]) -> None:
    """Fill storages, as many at once as there are CPUs; those that are filled lose what was measured in them."""
    # The largest ones first: these take longest.
    sizes = sorted(fillings, reverse=True)
    todo = [
        (own[stored], fillings[stored])
        for stored in sizes
        for own in places.values()
        if stored in own
    ]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(lambda one: _fill(*one), todo))


def _fill(place: Place, filling: Filling) -> None:
    begun, mark = time.monotonic(), place.folder / _MARK
    if mark.exists():
        fill_again(place.uri, filling)
    else:
        fill(place.uri, replace(filling, filer=place.filer))
        mark.write_text(json.dumps(asdict(filling)))
    seconds = time.monotonic() - begun
    print(f"{place.folder.name} filled in {seconds:.0f} s", file=sys.stderr, flush=True)
