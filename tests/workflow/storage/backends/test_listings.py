"""Long listings: they are whole, and take little memory."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError
from airflow_provider_rayworkflow.workflow.storage import Entry
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.backends.retrying import RetryingStore

LONG = "w" * 150


def most_bytes(entries: Iterator[Entry]) -> int:
    """What is held at most while a listing is read on, and before."""
    tracemalloc.start()
    for _ in entries:
        continue
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


class Many(MemoryStore):
    """A listing of many objects, and of a folder that can't be listed."""

    objects = 100_000
    problem = Entry("v1/locked/", 0, problem=DataLoadError("denied"))

    def list(self, folder: str) -> Iterator[Entry]:
        for number in range(self.objects):
            yield Entry(f"{folder}/{LONG}{number:06}", number)
        yield self.problem


def test_a_long_listing_that_may_be_tried_again_is_whole_and_not_held_as_it_is():
    many = Many()
    store = RetryingStore(many)
    assert [*store.list("v1")] == [*many.list("v1")]

    def entries() -> Iterator[Entry]:
        yield from store.list("v1")

    assert most_bytes(entries()) < many.objects * 100


def test_the_names_in_a_local_folder_are_not_held(tmp_path: Path):
    for number in range(500):
        (tmp_path / "v1" / f"{number:06}{LONG}").mkdir(parents=True)
        (tmp_path / "v1" / f"{number:06}{LONG}" / "status.json").touch()
    store = LocalStore(tmp_path)
    assert len({entry.key for entry in store.list("v1")}) == 500
    assert most_bytes(store.list("v1")) < 500 * 100
