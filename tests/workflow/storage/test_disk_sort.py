"""More items than are held come back in their order, from a temporary file."""

import tempfile
import weakref
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayworkflow.workflow.exceptions import DataSaveError
from airflow_provider_rayworkflow.workflow.storage.disk_sort import DiskSort


@given(st.lists(st.text(max_size=3), max_size=500), st.integers(1, 50))
def test_items_come_back_by_key_as_often_as_they_are_asked_for(keys: list[str], most: int):
    with DiskSort(most) as sorted_on_disk:
        for number, key in enumerate(keys):
            sorted_on_disk.add(key, {"number": number})
        for _ in range(2):
            found = [(key, value["number"]) for key, value in sorted_on_disk]
            assert [key for key, _ in found] == sorted(keys)
            assert sorted(number for _, number in found) == [*range(len(keys))]


class Value(dict[str, Any]):
    """A value that can be counted."""


def test_no_more_items_are_held_than_it_is_told():
    values = []
    most = 0
    with DiskSort(10) as sorted_on_disk:
        for number in range(1000):
            value = Value(number=number)
            values.append(weakref.ref(value))
            sorted_on_disk.add(f"{number % 7}", value)
            most = max(most, sum(one() is not None for one in values))
        assert most <= 10 + 1
        assert len([*sorted_on_disk]) == 1000


def test_a_folder_without_room_is_told_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with DiskSort(1) as sorted_on_disk, pytest.raises(DataSaveError, match="Give TMPDIR a folder"):
        sorted_on_disk.add("a", None)
