"""What the pages get of a log: the last lines, then what is new."""

from airflow_provider_rayworkflow.plugin.web.logs import MAX_LINES, log_after
from airflow_provider_rayworkflow.workflow.model.log_line import LogLine
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore


def write(store: WorkflowStore, number: int, *texts: object, task_id: str = "load") -> str:
    lines = [LogLine(1.5, "INFO", task_id, 1, str(text)) for text in texts]
    put = store.logs.put("w", 1, number, lines)
    store.bytes.put(put.key, put.data)
    return put.key


def test_the_first_answer_has_the_last_lines_and_the_next_ones_what_is_new():
    store = WorkflowStore(MemoryStore())
    write(store, 1, *range(MAX_LINES + 5))
    first = log_after(store, "w", task_id="", after="")
    assert [line["text"] for line in first["lines"]] == [
        str(number) for number in range(5, MAX_LINES + 5)
    ]
    assert first["is_cut"]
    write(store, 2, "new")
    second = log_after(store, "w", task_id="", after=first["cursor"])
    assert second["lines"] == [
        {"at": 1.5, "level": "INFO", "task_id": "load", "attempt": 1, "text": "new"}
    ]
    assert not second["is_cut"]
    third = log_after(store, "w", task_id="", after=second["cursor"])
    assert (third["lines"], third["cursor"]) == ([], second["cursor"])


def test_lines_of_one_task_and_damage():
    store = WorkflowStore(MemoryStore())
    write(store, 1, "a")
    write(store, 2, "b", task_id="clean")
    key = write(store, 3, "c")
    store.bytes.put(key, b"x")
    found = log_after(store, "w", task_id="clean", after="")
    assert [line["text"] for line in found["lines"]] == ["b"]
    assert key in found["damaged"][0]


def test_a_log_that_is_not_there_is_empty_and_a_bad_cursor_is_its_beginning():
    store = WorkflowStore(MemoryStore())
    empty = log_after(store, "w", task_id="", after="")
    assert empty == {"lines": [], "cursor": "0.0.-1", "damaged": [], "is_cut": False}
    write(store, 1, "a")
    for after in ("0.0.-1", "x", "9"):
        assert len(log_after(store, "w", task_id="", after=after)["lines"]) == 1
