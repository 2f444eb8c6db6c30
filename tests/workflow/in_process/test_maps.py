"""Maps: a task for each item, their results as one, and what a resume keeps of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import at_once
import effects
import numpy
import pandas
import pytest
import ray
from waiting import wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    WorkflowExecutionError,
)
from airflow_provider_rayworkflow.workflow.model.codec import encode
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.model.stored_map import PIECE_ITEMS
from airflow_provider_rayworkflow.workflow.scheduling.decision import TaskAction
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.journal import JournalWriter
from airflow_provider_rayworkflow.workflow.storage.keys import task_hash
from airflow_provider_rayworkflow.workflow.storage.outline import read_outline
from airflow_provider_rayworkflow.workflow.storage.snapshot import read_snapshot

LARGE = 40_000  # bytes: a value of an object of its own


@workflow.task
def square(x: int) -> int:
    return x * x


@workflow.task
def total(values: Any) -> int:
    return sum(values)


@workflow.task
def listed(values: Any) -> list[Any]:
    return list(values)


@workflow.task
def numbers(count: int) -> list[int]:
    return list(range(count))


@workflow.task
def large(x: int) -> bytes:
    return bytes([x]) * LARGE


class Runs:
    """A task that notes what it is called with, and fails for what is in ``broken``."""

    def __init__(self) -> None:
        self.of: list[Any] = []
        self.broken: set[Any] = set()
        runs = self

        @workflow.task
        def note(item: Any) -> Any:
            runs.of.append(item)
            if item in runs.broken:
                raise ValueError(f"{item} is broken")
            return item

        self.task = note

    def take(self) -> list[Any]:
        """What was called since the last look, sorted."""
        taken, self.of[:] = sorted(self.of), []
        return taken


@pytest.fixture
def runs():
    return Runs()


# ---- items and results


def test_each_item_is_a_task_of_its_key(workflows):
    assert workflows.run(square.map([3, 4]), workflow_id="w") == [9, 16]
    assert workflows.get_output("w", task_id="square[1]") == 16
    assert workflows.get_output("w", task_id="square.map") == [9, 16]


def test_a_map_over_the_result_of_a_task(workflows):
    assert workflows.run(total(square.map(numbers(5)))) == 30


def test_a_dict_gives_its_keys(workflows):
    result = workflows.run(square.map({"a": 2, "b": 3}), workflow_id="w")
    assert dict(result.items()) == {"a": 4, "b": 9}
    assert result.keys == ["a", "b"]
    assert workflows.get_output("w", task_id="square[b]") == 9


@dataclass
class City:
    name: str


@pytest.mark.parametrize(
    ("items", "key"),
    [
        ([{"name": "Oslo"}, {"name": "Rome"}], "name"),
        ([City("Oslo"), City("Rome")], "name"),
        (["oslo", "rome"], str.title),
    ],
    ids=["entry", "field", "function"],
)
def test_key_names_the_items(workflows, items, key):
    result = workflows.run(same.map(items, key=key), workflow_id="w")
    assert result.keys == ["Oslo", "Rome"]
    assert workflows.get_output("w", task_id="same[Rome]") == items[1]


@workflow.task
def same(value: Any) -> Any:
    return value


@workflow.task
def scaled(x: int, factor: int, offsets: list[int]) -> int:
    return x * factor + sum(offsets)


def test_fixed_arguments_are_shared_by_all_items(workflows):
    node = scaled.map([1, 2], factor=total([2, 3]), offsets=numbers(3))
    assert workflows.run(node) == [8, 13]


@workflow.task
def add(a: int, b: int, *, c: int = 0) -> int:
    return a + b + c


def test_starmap_gives_each_item_as_arguments(workflows):
    assert workflows.run(add.starmap(zip([1, 2], [10, 20], strict=True), c=100)) == [111, 122]


def test_a_map_over_the_result_of_a_map_keeps_the_keys(workflows):
    result = workflows.run(total.map(numbers.map({"a": 3, "b": 4})), workflow_id="w")
    assert dict(result.items()) == {"a": 3, "b": 6}
    assert workflows.get_output("w", task_id="total[b]") == 6


def test_large_values_of_a_map_are_mapped_where_they_are(workflows):
    @workflow.task
    def first_byte(value: bytes) -> int:
        return value[0]

    assert workflows.run(first_byte.map(large.map([7, 8]))) == [7, 8]


@workflow.task
def row(count: int) -> Any:
    return square.map(list(range(count)))


def test_items_may_be_maps_themselves(workflows):
    assert workflows.run(listed(total.map(row.map([2, 3])))) == [1, 5]


def test_an_empty_map_gives_no_values(workflows):
    result = workflows.run(square.map([]))
    assert (len(result), list(result), result.failed) == (0, [], {})


def test_options_of_the_function_are_those_of_each_item(workflows):
    named = square.with_options(name="sq", metadata={"of": "item"})
    workflows.run(named.map([3]), workflow_id="w")
    assert workflows.get_metadata("w", "sq[0]")["user_metadata"] == {"of": "item"}


# ---- the result


def test_the_result_is_a_sequence_that_is_read_in_pieces(workflows):
    count = 2 * PIECE_ITEMS + 5
    result = workflows.run(square.map(range(count)), workflow_id="w")
    assert isinstance(result, workflow.MapResult)
    assert len(result) == count
    assert result[PIECE_ITEMS] == PIECE_ITEMS**2
    assert result[-1] == (count - 1) ** 2
    assert result[PIECE_ITEMS - 1 : PIECE_ITEMS + 1] == [(PIECE_ITEMS - 1) ** 2, PIECE_ITEMS**2]
    assert list(result) == [x * x for x in range(count)]
    assert result.keys == list(range(count))
    assert 4 in result
    with pytest.raises(IndexError, match="has no value"):
        result[count]


@pytest.mark.parametrize("index", [1.0, "1", None])
def test_a_value_at_what_is_no_position_is_refused_with_the_remedy(workflows, index):
    result = workflows.run(square.map([1, 2]))
    with pytest.raises(
        TypeError, match=r"no whole number\. By keys they are in dict\(result\.items"
    ):
        result[index]
    assert result[numpy.int64(1)] == 4


def test_values_are_loaded_when_they_are_asked_for(workflows):
    result = workflows.run(large.map([1, 2, 3]), workflow_id="w")
    for file in WorkflowStore(workflows.store).list_files("w"):
        if file.task_hash == task_hash("large[0]"):
            workflows.store.delete([file.key])
    assert result[2][:1] == b"\3"
    with pytest.raises(CorruptedDataError, match="it is missing"):
        result[0]


@workflow.task
def sizes_later(values: Any) -> list[int]:
    effects.note("begun")
    effects.gate.wait(30)
    return [len(value) for value in values]


@pytest.mark.usefixtures("fresh")
def test_a_value_that_is_gone_is_no_failure_of_the_task_that_reads_it(workflows):
    ref = workflows.run_async(sizes_later(large.map([1, 2])), workflow_id="w")
    wait_until(lambda: effects.calls == ["begun"])
    for file in WorkflowStore(workflows.store).list_files("w"):
        if file.task_hash == task_hash("large[0]"):
            workflows.store.delete([file.key])
    effects.gate.set()
    with pytest.raises(WorkflowExecutionError, match="it is missing"):
        ray.get(ref)
    assert workflows.get_status("w") == "RESUMABLE"
    assert workflows.resume("w") == [LARGE, LARGE]


def test_an_output_of_which_a_value_is_gone_is_made_again(workflows):
    node, store = large.map([1, 2]), WorkflowStore(workflows.store)
    workflows.run(node, workflow_id="w")
    for file in store.list_files("w"):
        if file.task_hash == task_hash("large[1]"):
            workflows.store.delete([file.key])
    assert [value[0] for value in workflows.run(node, workflow_id="w")] == [1, 2]
    assert read_snapshot(store, store.read_status("w")).output


@workflow.task
def fragile_size(value: bytes) -> int:
    effects.note("size")
    return len(value)


@workflow.task
def mapped_again(values: Any) -> Any:
    return fragile_size.map(values)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("map_over", [fragile_size.map, mapped_again], ids=["map", "in a task"])
def test_a_map_over_a_map_of_which_a_value_is_gone_takes_the_one_that_is_made_again(
    workflows, map_over
):
    effects.broken.add("size")
    node = listed(map_over(large.map([1, 2])))
    with pytest.raises(WorkflowExecutionError, match="is broken"):
        workflows.run(node, workflow_id="w", on_failure="finish")
    effects.broken.clear()
    for file in WorkflowStore(workflows.store).list_files("w"):
        if file.task_hash == task_hash("large[1]"):
            workflows.store.delete([file.key])
    assert workflows.run(node, workflow_id="w", on_change="refuse") == [LARGE, LARGE]
    assert workflows.run(node, workflow_id="w", on_change="refuse") == [LARGE, LARGE]
    assert effects.calls == ["size"] * 4


@pytest.mark.usefixtures("fresh")
def test_a_map_that_a_crash_kept_from_being_made_again_is_made_again_later(workflows):
    @workflow.task
    def fails(values: Any) -> int:
        effects.note("fails")
        return len(values[1])

    effects.broken.add("fails")
    with pytest.raises(WorkflowExecutionError):
        workflows.run(fails(large.map([1, 2])), workflow_id="w")
    store = WorkflowStore(workflows.store)
    record = store.read_status("w")
    committed = read_snapshot(store, record).checkpoints.records
    again = committed["large[1]"]._replace(task_id="large[1]")
    for file in store.list_files("w"):
        if file.task_hash == task_hash("large[1]"):
            workflows.store.delete([file.key])
    blob = store.values.write(
        "w", epoch=record.epoch, task_id="large[1]", attempt=9, parts=encode(b"2" * LARGE).parts
    )
    JournalWriter(workflows.store, "w", record.epoch + 1).commit(
        [again._replace(result=again.result._replace(blob=blob))]
    )
    effects.broken.clear()
    assert workflows.resume("w") == LARGE


def test_a_task_of_ray_takes_the_result(workflows):
    @ray.remote
    def added(values: Any, more: int) -> int:
        return sum(values) + more

    assert workflows.run(added.bind(square.map([1, 2]), square(3))) == 14


def test_parts_of_the_result_may_be_taken(workflows):
    node = square.map([1, 2, 3])
    assert workflows.run(listed([node[2], node[0]])) == [9, 1]


def test_a_task_may_return_the_result_as_it_is(workflows):
    assert workflows.run(total(same(square.map([1, 2])))) == 5


def test_a_task_that_puts_the_result_into_something_is_told_the_remedy(workflows):
    @workflow.task
    def wrapped(values: Any) -> Any:
        return {"values": values}

    with pytest.raises(WorkflowExecutionError, match=r"list\(result\)"):
        workflows.run(wrapped(square.map([1])))


def test_the_result_of_another_workflow_is_refused_with_the_remedy(workflows):
    result = workflows.run(large.map({"a": 1}), workflow_id="other")
    nodes = [total(result), total([result]), listed.map(result), listed(lambda: result)]

    @workflow.task
    def uses(value: int) -> Any:
        return result[value]

    nodes.append(uses(0))
    for node in nodes:
        with pytest.raises(
            TypeError, match=r"map of workflow 'other' is no argument.*list\(result\)"
        ):
            workflows.run(node, workflow_id="w")
    assert workflows.list_all() == [("other", WorkflowStatus.SUCCESSFUL)]
    assert workflows.run(listed(list(result)), workflow_id="w") == [bytes([1]) * LARGE]


@workflow.task
def returns_another(workflow_id: str, *, is_in_graph: bool) -> Any:
    result = workflow.get_output(workflow_id)
    return listed(result) if is_in_graph else result


@pytest.mark.parametrize("is_in_graph", [True, False], ids=["in its graph", "as it is"])
def test_a_task_that_returns_the_result_of_another_workflow_is_told_the_remedy(
    workflows, is_in_graph
):
    workflows.run(large.map({"a": 1}), workflow_id="other")
    with pytest.raises(WorkflowExecutionError, match=r"workflow 'other'.*list\(result\)"):
        workflows.run(returns_another("other", is_in_graph=is_in_graph), workflow_id="w")


def test_the_values_of_another_workflow_that_are_maps_themselves_are_refused(workflows):
    @workflow.task
    def maps(count: int) -> Any:
        return large.map([count])

    result = workflows.run(maps.map([1]), workflow_id="other")
    with pytest.raises(TypeError, match="map of workflow 'other'"):
        workflows.run(listed(result[0]), workflow_id="w")


def test_a_task_may_give_the_result_to_the_graph_that_it_returns(workflows):
    @workflow.task
    def decide(values: Any) -> Any:
        return total(square.map(values))

    assert workflows.run(decide(square.map([1, 2]))) == 17


def test_the_output_is_a_list_as_json_while_it_is_small(workflows):
    workflows.run(square.map([1, 2]), workflow_id="small")
    assert WorkflowStore(workflows.store).read_status("small").output.value == [1, 4]
    workflows.run(same.map([b"1"]), workflow_id="no JSON")
    output = WorkflowStore(workflows.store).read_status("no JSON").output
    assert "the result of a map with 1 values" in output.problem


def test_pages_decide_about_a_map_as_a_run_does(workflows, runs):
    workflows.run(total(runs.task.map([1, 2], max_failed=1)), workflow_id="w")
    store = WorkflowStore(workflows.store)
    record = replace(store.read_status("w"), status=WorkflowStatus.RESUMABLE)
    for read in (read_snapshot, read_outline):
        actions = {name: one.action for name, one in read(store, record).decisions.items()}
        assert actions == dict.fromkeys(
            ["note.map", "total", "note[0]", "note[1]", "note.map[result]"], TaskAction.REUSED
        )


# ---- refused


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: square.map("abc"), "not a str"),
        (lambda: square.map({1, 2}), "sorted"),
        (lambda: square.map(3), "takes a list, a dict, or a node"),
        (lambda: square.map(pandas.DataFrame({"a": [1]})), "to_dict"),
        (lambda: square.map([1], key=3), "key of square.map must be"),
        (lambda: square.map({"a": 1}, key=str), "take key= away"),
        (lambda: square.map([1], z=3), "can't call square"),
        (lambda: add.map([1]), "can't call add"),
    ],
    ids=[
        "text",
        "set",
        "number",
        "table",
        "key",
        "key of a dict",
        "unknown argument",
        "missing argument",
    ],
)
def test_bad_items_are_refused_with_the_remedy(make, told):
    with pytest.raises(TypeError, match=told):
        make()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_failed": "200%"}, 'from "0%" to "100%", not \'200%\''),
        ({"max_failed": -1}, "max_failed must be"),
        ({"max_failed": 0.5}, "max_failed must be"),
        ({"max_failed": True}, "max_failed must be"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1 on, not 0"),
        ({"max_concurrency": 0}, "max_concurrency must be a whole number from 1 on"),
    ],
    ids=["share", "negative", "float", "bool", "batch", "concurrency"],
)
def test_bad_limits_are_refused_with_the_remedy(options, told):
    with pytest.raises(ValueError, match=told):
        square.map([1], **options)


@pytest.mark.parametrize(
    "options", [{"checkpoint": False}, {"when": "all_done"}], ids=["checkpoint", "when"]
)
def test_options_that_make_no_sense_in_a_map_are_refused(options):
    with pytest.raises(ValueError, match=f"square.map can't have {next(iter(options))}"):
        square.with_options(**options).map([1])


def test_two_items_of_one_key_are_refused_by_name(workflows):
    told = r"square.map has two items with the key '3': numbers 0 and 2"
    with pytest.raises(ValueError, match=told):
        square.map([3, 4, 3], key=str)
    with pytest.raises(ValueError, match="two items with the key '1'"):
        square.map({1: 1, "1": 2})
    with pytest.raises(WorkflowExecutionError, match=told):
        workflows.run(square.map(same([3, 4, 3]), key=str))


def test_an_item_of_a_starmap_that_is_no_tuple_is_refused_by_name(workflows):
    told = r"add.starmap takes items that are tuples.*that of 1 is a int: 3"
    with pytest.raises(TypeError, match=told):
        add.starmap([(1, 2), 3])
    with pytest.raises(WorkflowExecutionError, match=told):
        workflows.run(add.starmap(same([[1, 2], 3])))


def test_a_result_that_has_no_items_fails_the_map_by_name(workflows):
    with pytest.raises(WorkflowExecutionError, match=r"square.map takes a list, a dict"):
        workflows.run(square.map(total([1, 2])))


# ---- resumes


def test_a_resume_runs_the_failed_items_only(workflows, runs):
    runs.broken = {2}
    with pytest.raises(WorkflowExecutionError, match="2 is broken"):
        workflows.run(runs.task.map([1, 2, 3]), workflow_id="w", on_failure="finish")
    assert runs.take() == [1, 2, 3]
    runs.broken.clear()
    assert workflows.resume("w") == [1, 2, 3]
    assert runs.take() == [2]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"a": 1, "c": 3}, []),
        ({"a": 1, "x": 9, "b": 2, "c": 3}, [9]),
        ({"c": 3, "a": 1, "b": 2}, []),
        ({"a": 1, "b": 7, "c": 3}, [7]),
        ({}, []),
    ],
    ids=["removed", "added in the middle", "reordered", "value changed", "none left"],
)
def test_items_are_found_again_by_their_keys(workflows, runs, changed, expected):
    workflows.run(runs.task.map({"a": 1, "b": 2, "c": 3}), workflow_id="w")
    runs.take()
    result = workflows.run(runs.task.map(changed), workflow_id="w")
    assert dict(result.items()) == changed
    assert list(result) == list(changed.values())
    assert runs.take() == expected
    for key, value in changed.items():
        assert workflows.get_output("w", task_id=f"note[{key}]") == value


def test_items_without_keys_are_found_again_by_their_numbers(workflows, runs):
    workflows.run(runs.task.map([1, 2, 3]), workflow_id="w")
    runs.take()
    assert workflows.run(runs.task.map([1, 2, 3, 4]), workflow_id="w") == [1, 2, 3, 4]
    assert runs.take() == [4]
    assert workflows.run(runs.task.map([2, 3, 4]), workflow_id="w") == [2, 3, 4]
    assert runs.take() == [2, 3, 4]


def test_a_list_changes_twice_and_keeps_its_keys(workflows, runs):
    for items in ({"a": 1, "b": 2}, {"b": 2}, {"a": 1, "b": 5}):
        result = workflows.run(runs.task.map(items), workflow_id="w")
        assert dict(result.items()) == items
    assert runs.take() == [1, 1, 2, 5]


def test_nested_maps_find_their_items_by_keys(workflows):
    called: list[int] = []

    @workflow.task
    def inner(x: int) -> int:
        called.append(x)
        return x

    @workflow.task
    def outer(values: dict[str, int]) -> Any:
        return inner.map(values)

    first = {"p": {"a": 1, "b": 2}, "q": {"a": 3}}
    assert workflows.run(listed(total.map(outer.map(first))), workflow_id="w") == [3, 3]
    called.clear()
    second = {"p": {"b": 2, "c": 4}, "q": {"a": 3}}
    assert workflows.run(listed(total.map(outer.map(second))), workflow_id="w") == [6, 3]
    assert called == [4]


def test_what_takes_a_map_runs_again_only_if_values_have_changed(workflows):
    called: list[int] = []

    @workflow.task
    def count(values: Any) -> int:
        called.append(values[0])
        return len(values)

    for value in (2, -2, 3):
        workflows.run(count(square.map({"a": value})), workflow_id="w")
    assert workflows.get_output("w", task_id="square[a]") == 9
    assert called == [4, 9]


def test_a_mended_function_runs_the_failed_items(workflows, tmp_path: Path):
    with pytest.raises(WorkflowExecutionError, match="no such"):
        workflows.run(reads.map([str(tmp_path / "a")]), workflow_id="w")
    (tmp_path / "a").write_text("here")
    assert workflows.resume("w") == ["here"]


_DAG_FILE = """
from airflow_provider_rayworkflow import workflow

@workflow.task
def number(x):
    if x == 2 and not {is_mended}:
        raise ValueError("a bug")
    return x * {factor}
"""


@pytest.mark.parametrize(
    ("on_change", "expected"), [("reuse", [1, 20, 3]), ("rerun_changed", [10, 20, 30])]
)
def test_a_corrected_function_reaches_the_items(workflows, monkeypatch, on_change, expected):
    def mapped(**source: Any) -> Any:
        module = ModuleType("a_dag_file")
        monkeypatch.setitem(sys.modules, "a_dag_file", module)
        exec(compile(_DAG_FILE.format(**source), "a_dag_file.py", "exec"), vars(module))
        return module.number.map([1, 2, 3])

    with pytest.raises(WorkflowExecutionError, match="a bug"):
        workflows.run(mapped(is_mended=False, factor=1), workflow_id="w", on_failure="finish")
    node = mapped(is_mended=True, factor=10)
    assert workflows.run(node, workflow_id="w", on_change=on_change) == expected


@workflow.task
def reads(path: str) -> str:
    if not Path(path).exists():
        raise ValueError("no such file")
    return Path(path).read_text()


# ---- failures


def test_some_items_may_fail(workflows, runs):
    runs.broken = {2, 5}
    result = workflows.run(runs.task.map(range(100), max_failed="2%"), workflow_id="w")
    assert len(result) == 98
    assert list(result)[:3] == [0, 1, 3]
    assert result.keys[:3] == [0, 1, 3]
    assert result.failed == {2: "ValueError: 2 is broken", 5: "ValueError: 5 is broken"}
    assert workflows.get_status("w") == "SUCCESSFUL"


def test_what_takes_a_map_with_failed_items_goes_on(workflows, runs):
    runs.broken = {3}
    assert workflows.run(total(runs.task.map([1, 2, 3], max_failed=1))) == 3


def test_failed_items_of_large_maps_are_listed(workflows, runs):
    count = PIECE_ITEMS + 10
    runs.broken = {1, PIECE_ITEMS + 1}
    result = workflows.run(runs.task.map(range(count), max_failed=2))
    assert len(result) == count - 2
    assert list(result.failed) == [1, PIECE_ITEMS + 1]
    assert result[PIECE_ITEMS - 1] == PIECE_ITEMS


def test_more_failed_items_than_may_fail_the_map_with_the_first_ones(workflows, runs):
    runs.broken = {1, 2}
    with pytest.raises(
        WorkflowExecutionError, match=r"2 of the 4 items of note\.map failed"
    ) as told:
        workflows.run(runs.task.map([0, 1, 2, 3], max_failed=1), workflow_id="w")
    assert "note[1]: ValueError: 1 is broken" in str(told.value)
    assert told.value.__cause__.max_failed == 1
    assert workflows.get_status("w") == "FAILED"


def test_a_map_that_has_failed_begins_no_other_item(workflows, runs):
    runs.broken = {0, 1, 2}
    with pytest.raises(WorkflowExecutionError, match=r"3 of the 50 items"):
        workflows.run(
            runs.task.map(range(50), max_failed=2, max_concurrency=1), on_failure="finish"
        )
    assert runs.take() == [0, 1, 2]


def test_a_resume_of_a_failed_map_runs_the_failed_items_and_the_rest(workflows, runs):
    runs.broken = {1, 2}
    with pytest.raises(WorkflowExecutionError):
        workflows.run(
            total(runs.task.map([0, 1, 2, 3], max_failed=1, max_concurrency=1)), workflow_id="w"
        )
    assert runs.take() == [0, 1, 2]
    runs.broken.clear()
    assert workflows.resume("w") == 6
    assert runs.take() == [1, 2, 3]


def test_a_successful_workflow_keeps_its_failed_items(workflows, runs):
    runs.broken = {1}
    node = runs.task.map([0, 1], max_failed=1)
    workflows.run(node, workflow_id="w")
    assert runs.take() == [0, 1]
    assert workflows.run(node, workflow_id="w") == [0]
    assert runs.take() == []


def test_failed_items_run_again_after_another_task_failed(workflows, runs):
    is_mended: list[bool] = []

    @workflow.task
    def after(values: Any) -> int:
        if not is_mended:
            raise ValueError("not yet")
        return len(values)

    runs.broken = {1}
    with pytest.raises(WorkflowExecutionError, match="not yet"):
        workflows.run(after(runs.task.map([0, 1, 2], max_failed=1)), workflow_id="w")
    assert runs.take() == [0, 1, 2]
    runs.broken.clear()
    is_mended.append(True)
    assert workflows.resume("w") == 3
    assert runs.take() == [1]


def test_an_item_fails_with_a_task_of_its_own_graph(workflows, runs):
    runs.broken = {2}

    @workflow.task
    def chain(x: int) -> Any:
        return same(runs.task(x))

    result = workflows.run(chain.map([1, 2, 3], max_failed=1))
    assert list(result) == [1, 3]
    assert list(result.failed) == [1]


def test_an_item_fails_with_the_map_that_it_has_made(workflows, runs):
    runs.broken = {2, 3}

    @workflow.task
    def inner(values: list[int]) -> Any:
        return total(runs.task.map(values, max_failed=1, max_concurrency=1))

    result = workflows.run(
        inner.map([[1, 2], [2, 3, 4], [5]], max_failed=1, max_concurrency=1), workflow_id="w"
    )
    assert list(result) == [1, 5]
    assert "2 of the 3 items of note.map failed" in result.failed[1]
    assert 4 not in runs.of
    assert workflows.get_status("w") == "SUCCESSFUL"


def test_a_task_catches_the_failure_of_the_map_that_it_has_made(workflows, runs):
    runs.broken = {1, 2}

    @workflow.task(catch_exceptions=True)
    def tries() -> Any:
        return total(runs.task.map([0, 1, 2, 3], max_failed=1, max_concurrency=1))

    @workflow.task
    def told(result: Any) -> str:
        return str(result[1])

    assert "2 of the 4 items" in workflows.run(told(tries()), workflow_id="w")
    assert 3 not in runs.of
    assert workflows.get_status("w") == "SUCCESSFUL"


def test_a_failed_map_gives_its_error_to_what_takes_failures(workflows, runs):
    runs.broken = {0, 1}

    @workflow.task(when="all_done")
    def kind(result: Any) -> str:
        return type(result).__name__

    with pytest.raises(WorkflowExecutionError, match="2 of the 2 items"):
        workflows.run(kind(runs.task.map([0, 1], max_failed=1)), workflow_id="w")
    assert workflows.get_output("w", task_id="kind") == "MapFailedError"


def test_items_are_retried_each_by_itself(workflows):
    tries: list[int] = []

    @workflow.task(retry=workflow.Retry(attempts=3, wait_initial=0))
    def shaky(x: int) -> int:
        tries.append(x)
        if tries.count(x) < 3 and x == 1:
            raise ValueError("once more")
        return x

    assert workflows.run(shaky.map([0, 1, 2], batch_size=3)) == [0, 1, 2]
    assert sorted(tries) == [0, 1, 1, 1, 2]


def test_items_that_catch_their_exceptions_do_not_fail(workflows, runs):
    runs.broken = {2}
    result = workflows.run(runs.task.with_options(catch_exceptions=True).map([1, 2]))
    assert result[0] == (1, None)
    assert [type(part) for part in result[1]] == [type(None), ValueError]
    assert result.failed == {}


# ---- how many at once


def test_max_concurrency_holds_for_the_items_of_each_map(workflows):
    @workflow.task
    def busy(x: int) -> int:
        at_once.enter()
        at_once.leave()
        return x

    with at_once.of(3):
        assert workflows.run(busy.map(range(12), max_concurrency=3)) == list(range(12))
        assert at_once.most() == 3


def test_an_item_that_waits_for_its_retry_leaves_its_place(workflows):
    tries: list[int] = []

    @workflow.task(retry=workflow.Retry(attempts=2, wait_initial=0))
    def shaky(x: int) -> int:
        tries.append(x)
        if tries.count(x) == 1:
            raise ValueError("once more")
        return x

    assert workflows.run(shaky.map([0, 1, 2], max_concurrency=1)) == [0, 1, 2]
    assert sorted(tries) == [0, 0, 1, 1, 2, 2]


def test_an_item_that_returns_a_graph_leaves_its_place(workflows):
    assert [list(one) for one in workflows.run(row.map([2, 3], max_concurrency=1))] == [
        [0, 1],
        [0, 1, 4],
    ]


# ---- reduce and gather


def test_reduce_combines_some_values_at_a_time(workflows):
    sizes: list[int] = []

    @workflow.task
    def plus(values: list[int]) -> int:
        sizes.append(len(values))
        return sum(values)

    assert workflows.run(square.map(range(10)).reduce(plus, tree=3), workflow_id="w") == 285
    assert sorted(sizes) == [1, 1, 2, 3, 3, 3, 3]
    assert workflows.get_output("w", task_id="plus[0.0]") == 5


def test_reduce_keeps_the_order(workflows):
    @workflow.task
    def joined(values: list[str]) -> str:
        return "".join(values)

    assert workflows.run(same.map(["a", "b", "c", "d", "e"]).reduce(joined, tree=2)) == "abcde"


def test_reduce_of_no_values_fails_by_name(workflows):
    with pytest.raises(WorkflowExecutionError, match=r"total\.reduce has nothing to reduce"):
        workflows.run(square.map([]).reduce(total))


def test_bad_reductions_are_refused():
    with pytest.raises(ValueError, match="tree must be a whole number from 2 on"):
        square.map([1]).reduce(total, tree=1)
    with pytest.raises(TypeError, match=r"takes a @workflow\.task"):
        square.map([1]).reduce(sum)
    with pytest.raises(TypeError, match="with one argument"):
        square.map([1]).reduce(add)


def test_a_map_takes_what_a_bound_task_gives(workflows):
    @ray.remote
    def bound(count):
        return list(range(count))

    assert workflows.run(square.map(bound.bind(3))) == [0, 1, 4]
    assert workflows.run(add.starmap([bound.bind(2)])) == [1]


def test_gather_gives_the_results_of_nodes_as_one(workflows):
    result = workflows.run(workflow.gather([square(2), same({"a": 5})["a"], large(1)]))
    assert result == [4, 5, bytes([1]) * LARGE]
    result = workflows.run(workflow.gather({"x": square(2), "y": square(3)}))
    assert dict(result.items()) == {"x": 4, "y": 9}


def test_gather_of_what_is_no_node_is_refused():
    with pytest.raises(TypeError, match="gather takes nodes"):
        workflow.gather([square(2), 3])


def test_gather_of_a_large_value_without_a_checkpoint_fails_by_name(workflows):
    with pytest.raises(WorkflowExecutionError, match="checkpoint=False away"):
        workflows.run(workflow.gather([large.with_options(checkpoint=False)(1)]))


# ---- what deletes and copies


def test_prune_keeps_the_values_of_an_output_that_is_a_map(workflows):
    count = PIECE_ITEMS + 1
    workflows.run(same.map([b"x" * LARGE, *range(count)]), workflow_id="w")
    assert workflows.prune(0, keep_outputs=True)
    result = workflows.get_output("w")
    assert (len(result), len(result[0]), result[-1]) == (count + 1, LARGE, count - 1)
    assert not workflows.prune(0, keep_outputs=True)


def test_a_fork_reads_no_values_of_its_source(workflows, runs):
    node = total(large_sizes.map(large.map([1, 2, 3])))
    assert workflows.run(node, workflow_id="w") == 3 * LARGE
    workflows.fork("w", "v", from_task="total")
    workflows.delete("w")
    assert workflows.resume("v") == 3 * LARGE


@workflow.task
def large_sizes(value: bytes) -> int:
    return len(value)


def test_a_fork_runs_no_item_again(workflows, runs):
    workflows.run(listed(runs.task.map([1, 2])), workflow_id="w")
    runs.take()
    workflows.fork("w", "v")
    workflows.delete("w")
    assert workflows.resume("v") == [1, 2]
    assert runs.take() == []
