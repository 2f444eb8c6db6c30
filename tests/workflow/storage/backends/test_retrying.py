"""What is tried again of a listing, which is never held whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.backends.retrying import RetryingStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Entry

STORED = 25_000
KEYS = [f"v1/{number:05}" for number in range(STORED)]


class Failing(MemoryStore):
    """Fails once after so many entries of a listing, in this order.

    :ivar given: how many entries it has given.
    """

    def __init__(self, keys: list[str], fails_after: int) -> None:
        super().__init__()
        self._keys = keys
        self._fails_after = fails_after
        self._has_failed = False
        self.given = 0

    def list(self, folder: str) -> Iterator[Entry]:
        for number, key in enumerate(self._keys):
            if number == self._fails_after and not self._has_failed:
                self._has_failed = True
                raise DataLoadError("no answer", key=folder, is_transient=True)
            self.given += 1
            yield Entry(key, 1)


def retrying(store: MemoryStore) -> RetryingStore:
    return RetryingStore(store, sleep=lambda _: None)


@pytest.mark.parametrize("fails_after", [0, 5, 12_345, STORED])
def test_a_listing_by_name_goes_on_where_it_was(fails_after: int):
    found = [entry.key for entry in retrying(Failing(KEYS, fails_after)).list("v1")]
    assert found == KEYS


def test_a_short_listing_in_no_order_is_tried_again():
    keys = KEYS[5_000::-1]
    assert [entry.key for entry in retrying(Failing(keys, 4_000)).list("v1")] == keys


def test_a_long_listing_in_no_order_fails_and_is_never_cut():
    with pytest.raises(DataLoadError, match="no answer"):
        list(retrying(Failing(KEYS[::-1], 12_345)).list("v1"))


def test_a_listing_is_read_on_the_way():
    store = Failing(KEYS, STORED + 1)
    next(iter(retrying(store).list("v1")))
    assert store.given < STORED
