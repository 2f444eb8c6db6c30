"""States that tasks save: which one counts, who may write, what is deleted, what is believed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayworkflow.workflow.exceptions import DataSaveError, OwnershipLostError
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.model.records import Encoding
from airflow_provider_rayworkflow.workflow.storage import ByteStore, open_store
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.keys import epoch_key
from airflow_provider_rayworkflow.workflow.storage.saved_keys import (
    Version,
    parse_saved_file,
    saved_file,
    saved_workflow_file,
    task_folder,
)
from airflow_provider_rayworkflow.workflow.storage.saved_states import SavedStates
from airflow_provider_rayworkflow.workflow.storage.saved_versions import SavingAttempt


@pytest.fixture(params=["memory", "files", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ByteStore]:
    if request.param == "memory":
        yield MemoryStore()
    else:
        uri = str(tmp_path) if request.param == "files" else request.getfixturevalue("s3_uri")
        yield open_store(uri)


def claim(store: ByteStore, epoch: int, *, by: bytes = b"m") -> None:
    store.put(epoch_key("w", epoch), b"claim of %d by %b" % (epoch, by))


def states(
    store: ByteStore,
    epoch: int = 1,
    attempt: int = 1,
    *,
    since_epoch: int = 0,
    signing: SigningKeys | None = None,
) -> SavedStates:
    saving = SavingAttempt(
        workflow_id="w", task_id="t", epoch=epoch, attempt=attempt, since_epoch=since_epoch
    )
    return SavedStates(store, saving, signing=signing)


def save(states: SavedStates, text: bytes) -> None:
    states.write(Encoding.JSON, [text])


def text(states: SavedStates) -> bytes | None:
    found = states.read()
    return None if found is None else bytes(found[1])


def stored(store: ByteStore) -> list[str]:
    return sorted(entry.key.rpartition("/")[2] for entry in store.list(task_folder("w", "t")))


def test_a_task_that_has_saved_nothing_has_no_state(store: ByteStore):
    assert states(store).read() is None


def test_the_latest_state_counts_and_earlier_ones_are_deleted(store: ByteStore):
    claim(store, 1)
    mine = states(store)
    save(mine, b"1")
    save(mine, b"2")
    assert text(mine) == b"2"
    assert text(states(store, attempt=2)) == b"2"
    assert stored(store) == ["00000001-000001-00000002.state"]


def test_a_later_attempt_goes_on_and_deletes_what_the_earlier_one_saved(store: ByteStore):
    claim(store, 1)
    save(states(store), b"1")
    claim(store, 2)
    later = states(store, epoch=2)
    assert text(later) == b"1"
    save(later, b"2")
    assert stored(store) == ["00000002-000001-00000001.state"]


@pytest.mark.invariant(3)
def test_an_attempt_of_an_earlier_epoch_saves_nothing_and_overwrites_nothing(store: ByteStore):
    claim(store, 1)
    old = states(store)
    save(old, b"1")
    claim(store, 2)
    new = states(store, epoch=2)
    save(new, b"2")
    with pytest.raises(OwnershipLostError, match="a later run of its workflow has begun"):
        save(old, b"3")
    assert text(new) == text(states(store, epoch=2, attempt=2)) == b"2"
    assert stored(store) == ["00000002-000001-00000001.state"]


@pytest.mark.parametrize("again", [False, True], ids=["gone", "made_anew"])
def test_nothing_is_saved_for_a_workflow_that_was_deleted(store: ByteStore, again: bool):
    claim(store, 1)
    old = states(store)
    save(old, b"1")
    store.delete_folder("v1/workflows/w")
    if again:
        claim(store, 1, by=b"other")
    with pytest.raises(OwnershipLostError, match="deleted"):
        save(old, b"2")
    assert stored(store) == []


def test_an_earlier_attempt_that_still_runs_does_not_outdo_a_later_one(store: ByteStore):
    claim(store, 1)
    first, second = states(store), states(store, attempt=2)
    save(first, b"1")
    save(second, b"2")
    save(first, b"3")
    assert text(states(store, attempt=3)) == b"2"


def test_a_reader_whose_state_was_deleted_meanwhile_gets_the_later_one(store: ByteStore):
    claim(store, 1)
    first, second = states(store), states(store, attempt=2)
    save(first, b"1")
    assert text(second) == b"1"
    save(first, b"2")
    assert text(second) == b"2"


def test_states_of_a_run_that_was_given_up_do_not_count(store: ByteStore):
    claim(store, 1)
    save(states(store), b"1")
    claim(store, 2)
    assert states(store, epoch=2, since_epoch=2).read() is None


def test_a_torn_state_is_named_and_not_loaded(caplog: pytest.LogCaptureFixture):
    store = MemoryStore()
    claim(store, 1)
    save(states(store), b"12345678")
    (entry,) = store.list(task_folder("w", "t"))
    whole = store.get(entry.key)
    for torn in (whole[:-4], whole.replace(b"345", b"354"), b""):
        store.put(entry.key, torn)
        assert states(store, attempt=2).read() is None
        assert entry.key in caplog.text


def test_a_state_that_is_not_signed_with_our_key_is_not_loaded(caplog: pytest.LogCaptureFixture):
    store = MemoryStore()
    claim(store, 1)
    ours, others = SigningKeys.from_text("o" * 40), SigningKeys.from_text("x" * 40)
    save(states(store, signing=others), b"1")
    assert states(store, attempt=2, signing=ours).read() is None
    assert "not signed" in caplog.text
    save(states(store, attempt=2, signing=ours), b"2")
    assert text(states(store, attempt=3, signing=ours)) == b"2"


VERSIONS = st.tuples(st.integers(1, 99_999_999), st.integers(1, 999_999), st.integers(1, 99))


@given(VERSIONS, VERSIONS)
def test_names_say_what_they_are_and_sort_as_versions_do(one: tuple[int, int, int], other: tuple):
    folder = task_folder("w", "t")
    files = [saved_file(folder, Version(*version), "state") for version in (one, other)]
    assert (files[0].key < files[1].key) == (one < other)
    assert parse_saved_file(files[0].key, 0) == files[0]
    found = saved_workflow_file(files[0].key, 7)
    assert found is not None
    assert (found.epoch, found.number, found.kind, found.size) == (*one[:2], "saved", 7)


@pytest.mark.parametrize(
    "name",
    [
        *("1-1.state", "1-1-x.state", "1-1-1.other", "1-1-1", "-1-1-1.state", "1-1-1.piece"),
        *("1-1-1-1.files", "..state", "state"),
    ],
)
def test_foreign_files_are_ignored(name: str):
    assert parse_saved_file(f"{task_folder('w', 't')}/{name}", 1) is None
    assert saved_workflow_file(f"v1/workflows/w/{name}", 1) is None


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))), ids=str)
def test_the_greatest_version_counts_in_whatever_order_they_were_written(order: tuple[int, ...]):
    store = MemoryStore()
    claim(store, 1)
    writers = {attempt: states(store, attempt=attempt) for attempt in order}
    for attempt in order:
        save(writers[attempt], b"%d" % attempt)
    assert text(states(store, attempt=4)) == b"3"


# ---- a storage that deletes nothing


class KeepingStore(MemoryStore):
    """A store that refuses deletions."""

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            raise DataSaveError(f"Can't delete {key!r}: access denied.", key=key)


def test_a_state_is_saved_though_the_earlier_one_can_not_be_deleted(
    caplog: pytest.LogCaptureFixture,
):
    store = KeepingStore()
    claim(store, 1)
    first = states(store)
    save(first, b"1")
    save(first, b"2")
    assert states(store, attempt=2).read() == (Encoding.JSON, b"2")
    assert "access denied" in caplog.text


def test_a_state_that_came_too_late_is_refused_though_it_can_not_be_deleted():
    store = KeepingStore()
    claim(store, 1)
    old = states(store)
    save(old, b"1")
    claim(store, 2)
    with pytest.raises(OwnershipLostError):
        save(old, b"2")
