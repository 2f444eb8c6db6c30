"""What a reader of a change log is given."""

from __future__ import annotations

from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.change_logs import Change, ChangeLog, ChangeLogs


def written(**fields: int) -> ChangeLogs:
    """A log with the changes 3, 4 and 5."""
    logs = ChangeLogs(MemoryStore())
    changes = [Change(seq=seq, segment=f"w{seq}") for seq in (3, 4, 5)]
    logs.write(ChangeLog(writer="m", changes=changes, seq=5, **fields))
    return logs


def test_what_stands_in_the_index_can_be_left_out():
    read = written(taken=4).read("m", only_untaken=True)
    assert [change.seq for change in read.changes] == [5]
    assert read.untaken == [*read.changes]


def test_nothing_is_left_of_a_log_that_stands_in_the_index_as_a_whole():
    read = written(taken=5).read("m", only_untaken=True)
    assert (read.changes, read.seq) == ((), 5)


def test_what_a_reader_knows_is_left_out_unless_later_changes_have_left_the_log():
    assert [change.seq for change in written(forgotten=2).read("m", since=4).changes] == [5]
    assert [change.seq for change in written(forgotten=2).read("m", since=1).changes] == [3, 4, 5]
