"""Limits as authors declare and name them, kept over several workflows of one manager."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import ray

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowExecutionError
from airflow_provider_rayworkflow.workflow.model.task_limits import TaskLimit
from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import encode_graph

vendor_api = workflow.limit("vendor_api", max_concurrency=2)
database = workflow.limit("database", max_concurrency=1, rate="1000/second")


class Calls:
    """How many calls of a vendor's API run at once."""

    def __init__(self) -> None:
        self.reset()

    def __reduce__(self) -> str:
        return "calls"  # tasks in this process use the one that is here

    def reset(self) -> None:
        self.count = self.now = self.most = 0
        self._lock = threading.Lock()
        self._two = threading.Barrier(2)

    @contextmanager
    def call(self) -> Iterator[None]:
        with self._lock:
            self.count += 1
            self.now += 1
            self.most = max(self.most, self.now)
        self._two.wait(timeout=30)  # each meets another one: two are let in
        with self._lock:
            self.now -= 1
        yield


calls = Calls()


@workflow.task(limits=["vendor_api"])
def fetch(page: int) -> int:
    with calls.call():
        return page


@workflow.task
def total(pages: list[int]) -> int:
    return sum(pages)


@ray.remote
def fetch_remote(page):
    with calls.call():
        return page


@workflow.task
def more(pages: int) -> int:
    return workflow.continuation(total([fetch(page) for page in range(pages)]))


@pytest.fixture
def workflows():
    calls.reset()
    with testing.in_process() as found:
        yield found


def test_workflows_share_a_limit_however_their_tasks_are_written(workflows):
    bound = fetch_remote.options(**workflow.options(limits=[vendor_api]))
    graphs = {
        "calls": total([fetch(page) for page in range(4)]),
        "bound": total([bound.bind(page) for page in range(4)]),
        "continued": more(4),
    }
    refs = [workflow.run_async(graph, workflow_id=name) for name, graph in graphs.items()]
    assert ray.get(refs) == [6, 6, 6]
    assert (calls.count, calls.most) == (12, 2)


def test_a_task_may_have_several_limits(workflows):
    @workflow.task(limits=["vendor_api", database])
    def both(number: int) -> int:
        return number

    graph = total([both.with_options(limits=limits)(n) for n, limits in enumerate(MANY)])
    assert workflow.run(graph, workflow_id="w") == 15


MANY = [[vendor_api, database], [database], [vendor_api], [database, vendor_api], [], None]


def test_the_graph_carries_the_numbers_of_a_limit_that_a_task_names():
    (task,) = encode_graph(fetch(1)).tasks
    assert task.options.limits == (TaskLimit(name="vendor_api", max_concurrency=2),)


def test_a_limit_may_be_declared_after_the_task_that_names_it():
    @workflow.task(limits=["declared later"])
    def task() -> int:
        return 1

    later = workflow.limit("declared later", rate="5/s")
    (found,) = encode_graph(task()).tasks
    assert found.options.limits == (later,)


def test_a_name_without_a_limit_is_refused_with_the_remedy(workflows):
    @workflow.task(limits=["unheard_of"])
    def task() -> int:
        return 1

    with pytest.raises(ValueError, match="limits=\\[unheard_of\\]") as refused:
        workflow.run(task(), workflow_id="w")
    assert "no limit of that name was declared in this process" in str(refused.value)
    assert workflow.list_all() == []


def test_two_limits_of_one_name_in_a_task_are_refused():
    other = TaskLimit(name="vendor_api", max_concurrency=3)
    task = fetch.with_options(limits=[vendor_api, other])
    with pytest.raises(ValueError, match="two limits of one name"):
        encode_graph(task(1))


@pytest.mark.parametrize("limits", ["vendor_api", [3], [""], {"a": 1}, 5], ids=repr)
def test_what_are_no_limits_is_refused(limits: object):
    with pytest.raises(ValueError, match="limits must be a list of limits"):
        workflow.task(limits=limits)
    with pytest.raises(ValueError, match="limits must be a list of limits"):
        workflow.options(limits=limits)


@pytest.mark.parametrize(
    ("name", "numbers", "reason"),
    [
        ("a", {}, "max_concurrency, rate, or both"),
        ("", {"max_concurrency": 1}, "not empty"),
        ("a", {"max_concurrency": 0}, "from 1"),
        ("a", {"rate": "fast"}, "rate must be"),
        ("a" * 2000, {"max_concurrency": 1}, "2000 characters"),
    ],
    ids=["no numbers", "no name", "zero", "no rate", "a long name"],
)
def test_a_limit_without_sense_is_refused(name: str, numbers: dict, reason: str):
    with pytest.raises(ValueError, match=reason):
        workflow.limit(name, **numbers)


def test_a_task_that_fails_lets_the_next_one_run(workflows):
    @workflow.task(limits=[workflow.limit("one", max_concurrency=1)])
    def fail(number: int) -> int:
        raise ValueError(number)

    graph = total([fail.with_options(catch_exceptions=True)(number) for number in range(3)])
    with pytest.raises(WorkflowExecutionError, match="unsupported operand"):
        workflow.run(graph, workflow_id="w")
    names = ["fail", "fail_1", "fail_2"]
    errors = [workflow.get_output("w", task_id=name)[1] for name in names]
    assert [str(error) for error in errors] == ["0", "1", "2"]


def test_the_options_of_a_task_say_its_limits(workflows):
    assert workflow.run(total.with_options(limits=[database])([1]), workflow_id="w") == 1
    metadata = workflow.get_metadata("w", "total")
    assert metadata["task_options"]["limits"] == ["database (1 at once, 1000/second)"]


def test_a_task_that_the_cache_answers_takes_no_place(workflows):
    limits = [workflow.limit("once a day", rate="4/day")]
    cached = total.with_options(limits=limits, cache=workflow.Cache())
    numbers = [[1], [2], [1]]
    for number, values in enumerate(numbers):
        assert workflow.run(cached(values), workflow_id=f"w{number}") == sum(values)
    graph = same([cached([1]), cached([2]), cached([3]), cached([4])])
    assert workflow.run(graph, workflow_id="together") == [1, 2, 3, 4]


@workflow.task
def same(values: list[int]) -> list[int]:
    return values


def test_each_item_of_a_map_keeps_the_limits_of_its_task(workflows):
    assert list(workflow.run(fetch.map(list(range(10))), workflow_id="w")) == list(range(10))
    assert (calls.count, calls.most) == (10, 2)
