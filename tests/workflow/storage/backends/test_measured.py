"""Figures of writes say what was written, and how it ended."""

import pytest
from faulty import FaultyStore

from airflow_provider_rayworkflow.workflow.exceptions import DataSaveError
from airflow_provider_rayworkflow.workflow.storage import index_keys, keys
from airflow_provider_rayworkflow.workflow.storage.backends.measured import MeasuredStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore


def test_each_write_is_told_with_its_kind_and_size():
    writes = []
    store = MeasuredStore(MemoryStore(), writes.append)
    store.put(keys.journal_key("w", 1, 0), [b"abc", bytearray(b"de"), memoryview(b"f")])
    assert store.put_if_absent(keys.epoch_key("w", 1), b"abcd")
    assert [(write.kind, write.size, write.failed) for write in writes] == [
        ("checkpoints", 6, False),
        ("graph", 4, False),
    ]
    assert all(write.seconds >= 0 for write in writes)
    assert store.get(keys.epoch_key("w", 1)) == b"abcd"


def test_a_write_that_fails_is_told_and_raises():
    writes = []
    store = MeasuredStore(FaultyStore(MemoryStore(), at=0, how="error"), writes.append)
    with pytest.raises(DataSaveError):
        store.put(keys.lease_key("m"), b"abc")
    assert [(write.kind, write.failed) for write in writes] == [("lease", True)]


def test_keys_tell_what_is_in_their_objects():
    kinds = {
        keys.lease_key("m"): "lease",
        keys.epoch_key("lease", 1): "graph",
        keys.journal_key("w", 1, 0): "checkpoints",
        keys.value_key("w", 1, "t", 1, 9): "value",
        keys.owner_key("w"): "other",
        index_keys.index_root_key(1): "index",
        keys.change_log_key("m"): "change",
        f"{keys.status_folder('w.journal')}/00000001-0000-RUNNING-m.json": "status",
    }
    assert {key: keys.kind_of(key) for key in kinds} == kinds
