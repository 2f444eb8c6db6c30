"""``cache=``: a result of the same code on the same inputs is taken from another workflow, and never another one."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import runpy
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import effects
import pytest
import ray
from effects import calls
from noting_store import NotingStore
from waiting import wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError, WorkflowExecutionError
from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.model.records import ORIGIN_KEY
from airflow_provider_rayworkflow.workflow.runtime.testing.in_process import InProcessManager
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.cached_keys import CACHE
from airflow_provider_rayworkflow.workflow.testing import InProcessWorkflows

pytestmark = [pytest.mark.usefixtures("fresh"), pytest.mark.timeout(60)]

KEPT = workflow.Cache()
DAY_S = 86_400.0


@workflow.task(cache=KEPT)
def double(x: Any) -> Any:
    effects.note("double")
    return x * 2


@workflow.task(cache=KEPT)
def plus(x: Any, y: Any = 0) -> Any:
    effects.note("plus")
    return x + y


@workflow.task(cache=KEPT)
def large(letter: str) -> bytes:
    effects.note("large")
    return letter.encode() * 50_000


@workflow.task
def length(data: bytes) -> int:
    return len(data)


@workflow.task
def second(_: Any, value: Any) -> Any:
    return value


@workflow.task
def listed(values: Any) -> list[Any]:
    return list(values)


@workflow.task
def same(value: Any) -> Any:
    return value


def entries(store: MemoryStore) -> list[str]:
    return sorted(one.key for one in store.list(CACHE) if one.key.endswith(".entry"))


def values(store: MemoryStore) -> list[str]:
    return sorted(one.key for one in store.list(CACHE) if one.key.endswith(".value"))


def log_of(workflows: InProcessWorkflows, workflow_id: str) -> str:
    lines = WorkflowStore(workflows.store).logs.read(workflow_id).lines
    return "\n".join(line.text for line in lines)


# ---- what is taken


def test_a_tuple_is_not_taken_for_what_stands_for_a_result(workflows: InProcessWorkflows):
    rows = same({"rows": 5})
    literal = ("input", 0, (("item", "rows"),))
    kept = second.with_options(cache=KEPT)
    assert workflows.run(kept(rows, rows["rows"]), workflow_id="a part") == 5
    assert workflows.run(kept(rows, literal), workflow_id="a literal") == literal


def test_the_order_of_a_dict_counts(workflows: InProcessWorkflows):
    @workflow.task(cache=KEPT)
    def names(rows: Any) -> list[str]:
        return list(rows)

    for order in ("ab", "ba"):
        rows = dict.fromkeys(order, 1)
        assert workflows.run(names(rows), workflow_id=order) == list(order)
        assert workflows.run(names.map([rows]), workflow_id=f"map {order}") == [list(order)]
    resumed = workflows.run(names.with_options(cache=None)({"a": 1, "b": 1}), workflow_id="plain")
    again = names.with_options(cache=None)({"b": 1, "a": 1})
    assert workflows.run(again, workflow_id="plain") == resumed == ["a", "b"]


def test_the_result_of_another_workflow_is_taken(workflows: InProcessWorkflows):
    assert workflows.run(same(double(4)), workflow_id="first") == 8
    assert workflows.run(same(double(4)), workflow_id="second") == 8
    assert calls == ["double"]
    assert workflows.get_output("second", task_id="double") == 8


def test_it_is_taken_by_a_later_manager_and_of_a_workflow_that_is_deleted():
    store = MemoryStore()
    with testing.in_process(store) as workflows:
        assert workflows.run(length(large("a")), workflow_id="first") == 50_000
        workflows.delete("first")
    with testing.in_process(store) as workflows:
        assert workflows.run(length(large("a")), workflow_id="second") == 50_000
        assert workflows.get_output("second", task_id="large") == b"a" * 50_000
    assert calls == ["large"]


def test_a_taken_value_is_the_workflows_own(workflows: InProcessWorkflows):
    workflows.run(large("a"), workflow_id="first")
    workflows.run(large("a"), workflow_id="second")
    workflows.delete("first")
    workflows.store.delete_folder(CACHE)
    assert workflows.get_output("second") == b"a" * 50_000
    assert calls == ["large"]


def test_a_prune_leaves_the_cache(workflows: InProcessWorkflows):
    workflows.run(large("a"), workflow_id="first")
    workflows.run(length(large("b")), workflow_id="second")
    workflows.prune(older_than=timedelta(0))
    assert workflows.list_all() == []
    assert len(entries(workflows.store)) == len(values(workflows.store)) == 2


def test_tasks_that_take_what_was_taken_find_theirs(workflows: InProcessWorkflows):
    for name in ("first", "second"):
        assert workflows.run(plus(double(2), double(3)), workflow_id=name) == 10
    assert Counter(calls) == {"double": 2, "plus": 1}


def test_an_output_that_is_taken_is_json_for_readers_who_must_not_unpickle(
    workflows: InProcessWorkflows,
):
    texts = same.with_options(cache=KEPT, name="texts")(["x" * 40_000])
    for name in ("first", "second"):
        workflows.run(texts, workflow_id=name)
        record = WorkflowStore(workflows.store).read_status(name)
        assert record is not None
        assert record.output is not None
        assert record.output.value == ["x" * 40_000]


def test_a_bound_task_takes_results_too(workflows: InProcessWorkflows):
    @ray.remote(**workflow.options(cache=KEPT))
    def triple(x: int) -> int:
        effects.note("triple")
        return x * 3

    for name in ("first", "second"):
        assert workflows.run(triple.bind(5), workflow_id=name) == 15
    assert calls == ["triple"]


def test_a_task_that_catches_exceptions_takes_the_value(workflows: InProcessWorkflows):
    workflows.run(double(3), workflow_id="first")
    caught = double.with_options(catch_exceptions=True)(3)
    assert workflows.run(same(caught), workflow_id="second") == (6, None)
    assert workflows.run(double(3), workflow_id="third") == 6
    assert calls == ["double"]


def test_a_resume_needs_no_cache(workflows: InProcessWorkflows):
    workflows.run(double(3), workflow_id="first")
    workflows.run(double(3), workflow_id="second")
    workflows.store.delete_folder(CACHE)
    assert workflows.resume("second") == 6
    assert workflows.get_metadata("second", "double")["from_cache"]["workflow_id"] == "first"
    assert calls == ["double"]


def test_many_tasks_are_looked_up_at_once(workflows: InProcessWorkflows):
    graph = same([double(number) for number in range(300)])
    first = workflows.run(graph, workflow_id="first")
    assert workflows.run(graph, workflow_id="second") == first
    assert len(calls) == 300


# ---- which is told


def test_metadata_and_log_say_where_a_result_is_from(workflows: InProcessWorkflows):
    workflows.run(same(double(4)), workflow_id="first")
    workflows.run(same(double(4)), workflow_id="second")
    found = workflows.get_metadata("second", "double")["from_cache"]
    assert (found["workflow_id"], found["task_id"]) == ("first", "double")
    assert "from_cache" not in workflows.get_metadata("first", "double")
    assert "from the cache: task double of workflow first" in log_of(workflows, "second")


# ---- what is not taken


def scaled(factor: int, **options: Any) -> Any:
    def scale(x: int) -> int:
        effects.note(factor)
        return x * factor

    scale.__qualname__ = "scale"  # as a function of the module, which has been edited
    return workflow.task(cache=workflow.Cache(**options))(scale)


def test_other_code_is_another_result(workflows: InProcessWorkflows):
    assert workflows.run(scaled(2)(5)) == 10
    assert workflows.run(scaled(3)(5)) == 15
    assert workflows.run(scaled(2)(5)) == 10
    assert calls == [2, 3]


def test_a_version_stands_for_the_code(workflows: InProcessWorkflows):
    assert workflows.run(scaled(2, version="1")(5)) == 10
    assert workflows.run(scaled(3, version="1")(5)) == 10
    assert workflows.run(scaled(3, version=2)(5)) == 15
    assert calls == [2, 3]


def test_a_version_of_a_function_that_others_have_the_name_of_is_refused(
    workflows: InProcessWorkflows,
):
    @workflow.task(cache=workflow.Cache(version="1"))
    def local(x: int) -> int:
        return x

    for node in (local(1), workflow.task(cache=workflow.Cache(version=2))(lambda x: x)(1)):
        with pytest.raises(ValueError, match="Write a function of the module"):
            workflows.run(node)
    assert workflows.run(local.with_options(cache=KEPT)(1)) == 1


def test_a_version_of_a_function_that_has_the_name_of_another_one_is_refused(
    workflows: InProcessWorkflows,
):
    def times(factor: int) -> Any:
        return functools.wraps(length.fn)(lambda data: factor * len(data))

    for node in (
        workflow.task(cache=workflow.Cache(version="1"))(times(2))(b""),
        workflow.task(cache=KEPT, version="1")(times(2))(b""),
        workflow.task(cache=KEPT, version="1")(lambda x: x)(1),
    ):
        with pytest.raises(ValueError, match="Write a function of the module"):
            workflows.run(node)
    for factor in (2, 3):
        assert workflows.run(workflow.task(cache=KEPT)(times(factor))(b"ab")) == 2 * factor


class Counted:
    def __init__(self, size: int) -> None:
        self.size = size


counted = [Counted(1)]


@workflow.task(cache=KEPT)
def first_size(name: str) -> int:
    effects.note(name)
    return counted[0].size


def test_what_a_variable_holds_counts(workflows: InProcessWorkflows, monkeypatch):
    sizes = []
    for size in (1, 1, 2):
        if counted[0].size != size:
            monkeypatch.setattr(sys.modules[__name__], "counted", [Counted(size)])
        sizes.append(workflows.run(first_size("size")))
    assert sizes == [1, 1, 2]
    assert calls == ["size", "size"]


def test_what_variables_of_other_packages_hold_does_not_count(workflows: InProcessWorkflows):
    kept = listed.with_options(cache=KEPT)
    for number in range(3):
        path = Path("a") / str(number)  # pathlib keeps parts of paths in its own variables
        assert workflows.run(kept([Path("a/b"), os.path.join])) == [Path("a/b"), os.path.join]
        assert str(path) == f"a/{number}"
    assert len(entries(workflows.store)) == 1


def test_other_functions_of_the_same_version_are_other_tasks(workflows: InProcessWorkflows):
    versioned = workflow.Cache(version="1")
    assert workflows.run(double.with_options(cache=versioned)(5)) == 10
    assert workflows.run(plus.with_options(cache=versioned)(5)) == 5
    assert workflows.run(double.with_options(version="1")(7)) == 14
    assert workflows.run(plus.with_options(version="1")(7)) == 7


def test_functions_of_two_programs_are_other_tasks(workflows: InProcessWorkflows, tmp_path: Path):
    program = """
from airflow_provider_rayworkflow import workflow

@workflow.task(cache=workflow.Cache(version="1"))
def load(x):
    return NUMBER * x

print(workflow.run(load(2)))
"""
    printed = []
    for name, number in (("one.py", "1"), ("two.py", "2"), ("one.py", "3")):
        (tmp_path / name).write_text(program.replace("NUMBER", number))
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            runpy.run_path(str(tmp_path / name), run_name="__main__")
        printed += [line for line in out.getvalue().splitlines() if line.isdigit()]
    assert printed == ["2", "4", "2"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda: plus(1, 2), lambda: plus(2, 1)),
        (lambda: plus(1, y=2), lambda: plus(1, y=3)),
        (lambda: plus(same(1), same(2)), lambda: plus(same(2), same(1))),
        (lambda: plus([1], [same(2)]), lambda: plus([1], [same(3)])),
        (lambda: plus(same([1, 2])[0], 5), lambda: plus(same([1, 2])[1], 5)),
        (lambda: plus(1, 2), lambda: plus(1.0, 2)),
    ],
    ids=["order", "keyword", "taken order", "nested", "part", "type"],
)
def test_other_inputs_are_another_result(workflows: InProcessWorkflows, first, second):
    workflows.run(first(), workflow_id="first")
    workflows.run(second(), workflow_id="second")
    assert calls == ["plus", "plus"]


def test_results_that_only_memory_has_name_no_entry(workflows: InProcessWorkflows):
    for name, letter in (("first", "a"), ("second", "b")):
        data = same.with_options(checkpoint=False, name="data", version="1")(letter * 50_000)
        assert workflows.run(plus(data, ""), workflow_id=name) == letter * 50_000
    assert calls == ["plus", "plus"]
    assert entries(workflows.store) == []


class Odd:
    """Can be pickled, and fails when it is asked for its content once more."""

    def __init__(self) -> None:
        self.asked = 0

    def __reduce_ex__(self, protocol: Any) -> Any:
        self.asked += 1
        if self.asked == 2:
            raise TypeError("once is enough")
        return Odd, ()


def test_arguments_without_a_fingerprint_name_no_entry(workflows: InProcessWorkflows):
    kept = same.with_options(cache=KEPT, name="kept")
    for name in ("first", "second"):
        workflows.run(kept(Odd()), workflow_id=name)
    assert entries(workflows.store) == []


@workflow.task(cache=KEPT, retry=workflow.Retry(attempts=1))
def breaks(x: int) -> int:
    effects.note("breaks")
    if "breaks" in effects.broken:
        raise OSError("it is broken")
    return x


def test_a_failed_task_is_not_kept(workflows: InProcessWorkflows):
    effects.broken.add("breaks")
    with pytest.raises(WorkflowExecutionError):
        workflows.run(breaks(1), workflow_id="first")
    effects.broken.clear()
    assert entries(workflows.store) == []
    assert workflows.run(breaks(1), workflow_id="second") == 1


def test_a_caught_exception_is_not_kept(workflows: InProcessWorkflows):
    effects.broken.add("breaks")
    caught = breaks.with_options(catch_exceptions=True)(1)
    value, error = workflows.run(same(caught), workflow_id="first")
    assert value is None
    assert isinstance(error, OSError)
    effects.broken.clear()
    assert entries(workflows.store) == []
    assert workflows.run(same(caught), workflow_id="second") == (1, None)


def test_a_task_that_returns_a_graph_is_not_kept(workflows: InProcessWorkflows):
    @workflow.task(cache=KEPT)
    def branch(x: int) -> Any:
        effects.note("branch")
        return double(x)

    for name in ("first", "second"):
        assert workflows.run(branch(2), workflow_id=name) == 4
    assert calls == ["branch", "double", "branch"]


def test_the_result_of_a_map_is_not_kept_and_those_of_its_items_are(
    workflows: InProcessWorkflows,
):
    passed = same.with_options(cache=KEPT, name="passed")
    for name in ("first", "second"):
        doubled = workflows.run(same(passed(double.map([1, 2, 3]))), workflow_id=name)
        assert list(doubled) == [2, 4, 6]
        workflows.delete(name)
    assert calls == ["double"] * 3
    assert len(entries(workflows.store)) == 3


class Clock:
    """Seconds since the epoch, as a test sets them."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def at(store: MemoryStore, clock: Clock) -> Any:
    return InProcessManager(store, make_manager=lambda **given: Manager(**given, clock=clock))


def test_what_is_too_old_is_not_taken():
    store, clock = MemoryStore(), Clock()
    week = scaled(2, max_age=timedelta(days=7))
    for days, runs in ((0, 1), (6, 1), (7.1, 2), (13, 2)):
        clock.now = Clock.now + days * DAY_S
        with at(store, clock).running():
            assert workflow.run(week(5), workflow_id=f"day {days}") == 10
        assert len(calls) == runs


def test_what_a_clock_far_ahead_has_made_is_not_taken():
    store, clock = MemoryStore(), Clock()
    week = scaled(2, max_age=timedelta(days=7))
    for days in (30, 0):
        clock.now = Clock.now + days * DAY_S
        with at(store, clock).running():
            workflow.run(week(5), workflow_id=f"day {days}")
    assert calls == [2, 2]


def test_a_restart_from_a_task_runs_it_and_keeps_what_it_gives(workflows: InProcessWorkflows):
    workflows.run(same(double(4)), workflow_id="first")
    assert workflows.run(same(double(4)), workflow_id="first", from_task="double") == 8
    assert calls == ["double", "double"]
    assert len(entries(workflows.store)) == 2
    workflows.run(same(double(4)), workflow_id="second")
    assert calls == ["double", "double"]


@workflow.task
def continues(x: int) -> Any:
    effects.note("continues")
    return double(x)


@pytest.mark.parametrize(
    ("node", "from_task", "again"),
    [
        pytest.param(lambda: listed(double.map([1, 2])), "double.map", "double", id="a map"),
        pytest.param(lambda: same(continues(1)), "continues", "double", id="a continuation"),
    ],
)
def test_tasks_of_what_is_restarted_run(workflows: InProcessWorkflows, node, from_task, again):
    workflows.run(node(), workflow_id="first")
    before = calls.count(again)
    workflows.run(node(), workflow_id="first", from_task=from_task)
    assert calls.count(again) == 2 * before
    workflows.run(node(), workflow_id="second")
    assert calls.count(again) == 2 * before


def test_a_fork_from_a_task_runs_it(workflows: InProcessWorkflows):
    workflows.run(same(double(4)), workflow_id="first")
    workflows.fork("first", "forked", from_task="double")
    plan = workflows.plan(same(double(4)), "forked")
    assert "cache" not in plan.tasks[0].reason
    assert workflows.run(same(double(4)), workflow_id="forked") == 8
    assert calls == ["double", "double"]
    workflows.run(same(double(5)), workflow_id="first")
    assert workflows.run(same(double(5)), workflow_id="forked") == 10  # it has run since
    assert calls == ["double"] * 3


def test_a_run_of_a_stored_graph_takes_and_keeps_nothing(workflows: InProcessWorkflows):
    effects.broken.add("breaks")
    with pytest.raises(WorkflowExecutionError):
        workflows.run(breaks(1), workflow_id="first")
    effects.broken.clear()
    assert workflows.resume("first") == 1
    assert entries(workflows.store) == []


@pytest.mark.parametrize(("version", "kept"), [(None, 0), ("1", 1)], ids=["code", "version"])
def test_tasks_of_a_stored_continuation_are_kept_by_their_version_only(
    workflows: InProcessWorkflows, version: str | None, kept: int
):
    task = breaks.with_options(cache=workflow.Cache(version=version))

    @workflow.task
    def branch(x: int) -> Any:
        return same(task(x))

    effects.broken.add("breaks")
    with pytest.raises(WorkflowExecutionError):
        workflows.run(branch(1), workflow_id="first")
    effects.broken.clear()
    assert workflows.run(branch(1), workflow_id="first") == 1
    wait_until(lambda: len(entries(workflows.store)) >= kept)
    assert len(entries(workflows.store)) == kept
    assert workflows.run(branch(1), workflow_id="second") == 1
    assert len(calls) == 3 - kept


# ---- scopes


def test_the_scope_of_a_dag_has_its_own_results(workflows: InProcessWorkflows):
    task = scaled(2, scope="dag")
    for dag_id in ("a", "b", "a"):
        metadata = {ORIGIN_KEY: {"dag_id": dag_id}}
        assert workflows.run(task(5), metadata=metadata) == 10
    workflows.run(task(5))
    workflows.run(scaled(2)(5))
    assert calls == [2, 2, 2, 2]


# ---- keys


@workflow.task(cache=workflow.Cache(key=lambda row: row["day"]))
def count(row: dict[str, Any]) -> int:
    effects.note("count")
    return len(row)


def test_a_key_stands_for_the_arguments(workflows: InProcessWorkflows):
    rows = [{"day": "1", "n": 1}, {"day": "1", "n": 2, "m": 3}, {"day": "2", "n": 1}]
    assert [workflows.run(count(row)) for row in rows] == [2, 2, 2]
    assert calls == ["count", "count"]


def test_calls_of_one_graph_have_a_key_each(workflows: InProcessWorkflows):
    rows = [{"day": str(number)} for number in range(3)]
    workflows.run(same([count(row) for row in rows]))
    workflows.run(same([count(row) for row in rows]))
    assert calls == ["count"] * 3


def test_a_key_of_what_is_not_known_yet_is_refused(workflows: InProcessWorkflows):
    with pytest.raises(ValueError, match="Leave key out"):
        workflows.run(count(same({"day": "1"})))


def test_a_key_whose_function_does_not_take_the_arguments_is_told_as_such(
    workflows: InProcessWorkflows,
):
    told = r"function of the cache key of task .*count is called with .*missing a required argument: 'x'"
    renamed = count.with_options(cache=workflow.Cache(key=lambda x: x))
    with pytest.raises(TypeError, match=told):
        workflows.run(renamed(row={"day": "1"}))


def test_a_key_whose_function_fails_is_told_as_such(workflows: InProcessWorkflows):
    with pytest.raises(KeyError, match="day") as raised:
        workflows.run(count({}))
    assert raised.value.__notes__ == [
        f"That was the function of the cache key of task {__name__}.count."
    ]


def test_a_key_that_is_no_text_is_refused(workflows: InProcessWorkflows):
    with pytest.raises(ValueError, match=r"cache key of task .*count must be a string"):
        workflows.run(count({"day": 1}))


# ---- options that make no sense


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_age": 0}, "max_age must be more than 0"),
        ({"max_age": float("inf")}, "max_age must be more than 0, and have an end"),
        ({"version": True}, "version must be a string or a whole number"),
        ({"key": "day"}, "key must be a function"),
        ({"scope": "cluster"}, "scope must be one of"),
    ],
    ids=["age", "endless", "version", "key", "scope"],
)
def test_values_that_make_no_sense_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        workflow.Cache(**options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"cache": True}, "cache must be a workflow.Cache"),
        ({"cache": KEPT, "checkpoint": False}, "keeps a checkpoint"),
        ({"cache": KEPT, "when": "all_done"}, "not when='all_done'"),
    ],
    ids=["no cache", "no checkpoint", "rule"],
)
def test_options_that_do_not_go_together_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        same.with_options(**options)
    with pytest.raises(ValueError, match=told):
        workflow.options(**options)


# ---- damage


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    at = len(data) - 20
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("ending", ["entry", "value"])
@pytest.mark.parametrize("damage", [cut, flipped, lambda data: b"", None])
def test_a_damaged_entry_is_never_taken(workflows: InProcessWorkflows, ending: str, damage):
    store = workflows.store
    workflows.run(large("a"), workflow_id="first")
    wait_until(lambda: len(entries(store)) == 1)
    [key] = [one.key for one in store.list(CACHE) if one.key.endswith(ending)]
    if damage is None:
        store.delete([key])
    else:
        store.put(key, damage(store.get(key)))
    workflows.run(large("a"), workflow_id="second")
    assert calls == ["large", "large"]
    assert workflows.get_output("second") == b"a" * 50_000
    workflows.run(large("a"), workflow_id="third")
    assert calls == ["large", "large"]  # what the second one has put there counts


def test_an_entry_of_another_key_is_never_taken(workflows: InProcessWorkflows):
    store = workflows.store
    workflows.run(double(1), workflow_id="first")
    workflows.run(double(2), workflow_id="second")
    wait_until(lambda: len(entries(store)) == 2)
    one, other = entries(store)
    content = store.get(one), store.get(other)
    store.put(one, content[1])
    store.put(other, content[0])
    assert workflows.run(double(1), workflow_id="third") == 2
    assert len(calls) == 3


def test_foreign_files_in_the_cache_change_nothing(workflows: InProcessWorkflows):
    store = workflows.store
    workflows.run(double(1), workflow_id="first")
    wait_until(lambda: len(entries(store)) == 1)
    folder = entries(store)[0].rpartition("/")[0]
    for name in ("x.entry", "1-2-.entry", "a-b-c.entry", "readme.txt", "9.claims"):
        store.put(f"{folder}/{name}", b"foreign")
    assert workflows.run(double(1), workflow_id="second") == 2
    assert calls == ["double"]


@pytest.mark.parametrize("task", [double, large], ids=["small", "large"])
def test_with_a_key_only_what_is_signed_is_taken(monkeypatch: pytest.MonkeyPatch, task: Any):
    store = MemoryStore()
    for secret, runs in (("", 1), ("secret", 2), ("secret", 2), ("other", 3)):
        monkeypatch.setenv("RAY_WORKFLOW_SIGNING_KEY", secret)
        with testing.in_process(store) as workflows:
            workflows.run(task("a"))
        assert len(calls) == runs
    assert not any(b"secret" in store.get(entry.key) for entry in store.list("v1"))


class DamagingStore(MemoryStore):
    """Damages a value on its way from the cache to a workflow."""

    def copy(self, source: str, target: str) -> None:
        super().copy(source, target)
        if source.startswith(CACHE):
            self.put(target, flipped(self.get(target)))


def test_a_taken_value_that_proves_to_be_damaged_is_computed():
    store = DamagingStore()
    with testing.in_process(store) as workflows:
        for name in ("first", "second"):
            assert workflows.run(length(large("a")), workflow_id=name) == 50_000
    assert calls == ["large", "large"]


# ---- a storage that fails


class FailingCache(MemoryStore):
    """Fails calls about the cache while a test wants that."""

    fails = True

    def _check(self, key: str, method: str) -> None:
        if self.fails and key.startswith(CACHE):
            raise DataLoadError(f"{method} {key}", key=key)

    def list(self, folder: str) -> Any:
        self._check(folder, "list")
        return super().list(folder)

    def put(self, key: str, data: Any) -> None:
        self._check(key, "put")
        super().put(key, data)

    def put_if_absent(self, key: str, data: Any) -> bool:
        self._check(key, "put")
        return super().put_if_absent(key, data)


def test_a_cache_that_fails_costs_a_run_and_nothing_else():
    store = FailingCache()
    with testing.in_process(store) as workflows:
        assert workflows.run(double(1), workflow_id="first") == 2
        assert workflows.run(double(1), workflow_id="second") == 2
        store.fails = False
        assert workflows.run(double(1), workflow_id="third") == 2
    assert len(calls) == 3
    assert len(entries(store)) == 1


# ---- what it costs


@workflow.task
def number_of(*values: int) -> int:
    return len(values)


def test_each_of_many_missing_results_is_claimed_and_given_back_once():
    store = NotingStore()
    with testing.in_process(store) as workflows:
        assert workflows.run(number_of(*[double(x) for x in range(120)])) == 120
    assert store.count("put_if_absent", ".claim") == 120
    assert store.count("delete", ".claim") == 120
    assert store.count("put", ".entry") == 120


# ---- at the same time


@workflow.task(cache=KEPT)
def slow(x: int) -> int:
    effects.note("slow")
    effects.gate.wait()
    if len(calls) == 1 and "first" in effects.broken:
        raise OSError("the first one is broken")
    return x


def are_running(workflows: InProcessWorkflows, names: list[str]) -> bool:
    return all(workflows.get_status(name) == workflow.RUNNING for name in names)


def test_of_ten_workflows_at_the_same_time_one_computes(workflows: InProcessWorkflows):
    names = [f"w{number}" for number in range(10)]
    refs = [workflows.run_async(slow(1), workflow_id=name) for name in names]
    wait_until(lambda: are_running(workflows, names) and len(calls) > 0)
    effects.gate.set()
    assert ray.get(refs) == [1] * 10
    assert calls == ["slow"]


def test_of_tasks_of_one_graph_one_computes(workflows: InProcessWorkflows):
    effects.gate.set()
    assert workflows.run(same([slow(1) for _ in range(10)])) == [1] * 10
    assert calls == ["slow"]


def test_if_the_first_fails_another_one_computes(workflows: InProcessWorkflows):
    effects.broken.add("first")
    refs = {name: workflows.run_async(slow(1), workflow_id=name) for name in ("a", "b", "c")}
    wait_until(lambda: are_running(workflows, list(refs)) and len(calls) > 0)
    effects.gate.set()
    outcomes = Counter(_outcome_of(ref) for ref in refs.values())
    assert outcomes == {"1": 2, "WorkflowExecutionError": 1}
    assert calls == ["slow", "slow"]


@pytest.mark.parametrize("stop", ["cancel", "suspend"])
def test_if_the_first_is_stopped_another_one_computes(workflows: InProcessWorkflows, stop: str):
    workflows.run_async(slow(1), workflow_id="first")
    wait_until(lambda: len(calls) == 1)
    second = workflows.run_async(slow(1), workflow_id="second")
    wait_until(lambda: are_running(workflows, ["first", "second"]))
    getattr(workflows, stop)("first")
    wait_until(lambda: len(calls) == 2)
    effects.gate.set()
    assert ray.get(second) == 1


def test_one_that_waits_may_be_stopped(workflows: InProcessWorkflows):
    first = workflows.run_async(slow(1), workflow_id="first")
    wait_until(lambda: len(calls) == 1)
    workflows.run_async(slow(1), workflow_id="second")
    wait_until(lambda: are_running(workflows, ["first", "second"]))
    wait_until(lambda: "task slow of workflow first computes" in log_of(workflows, "second"))
    workflows.cancel("second")
    effects.gate.set()
    assert ray.get(first) == 1
    assert workflows.get_status("second") == workflow.CANCELED
    assert calls == ["slow"]


def test_no_claim_is_left(workflows: InProcessWorkflows):
    workflows.run(same([double(number) for number in range(5)]))
    wait_until(lambda: not [one for one in workflows.store.list(CACHE) if "claim" in one.key])


def _outcome_of(ref: Any) -> str:
    try:
        return str(ray.get(ref))
    except WorkflowExecutionError as exc:
        return type(exc).__name__


# ---- a backfill


@workflow.task(cache=KEPT)
def load(day: int) -> list[int]:
    effects.note("load")
    return list(range(day + 1))


@workflow.task(cache=KEPT)
def clean(rows: list[int]) -> list[int]:
    effects.note("clean")
    return rows[1:]


def report(factor: int) -> Any:
    @workflow.task(cache=KEPT)
    def summary(rows: list[int]) -> int:
        effects.note("summary")
        return factor * sum(rows)

    return summary


def test_a_second_backfill_runs_only_what_has_changed(workflows: InProcessWorkflows):
    for factor in (1, 2):
        for day in range(30):
            name = f"backfill {factor}, day {day}"
            workflows.run(report(factor)(clean(load(day))), workflow_id=name)
    assert Counter(calls) == {"load": 30, "clean": 30, "summary": 60}
