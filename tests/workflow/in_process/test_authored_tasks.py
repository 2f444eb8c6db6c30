"""Graphs of ``@workflow.task``, from the call of a function to its result."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import pytest
import ray

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.exceptions import RayWorkflowInputError
from airflow_provider_rayworkflow.tries.definition import WorkflowDefinition
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowExecutionError
from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import encode_graph


@workflow.task
def square(x: int) -> int:
    """The square of a number."""
    return x * x


@workflow.task(name="sum")
def total(values: list[int], plus: int = 0) -> int:
    return sum(values) + plus


@workflow.task
def same(value: Any) -> Any:
    return value


@ray.remote
def of_ray(value):
    return value


@dataclass
class Table:
    rows: Any
    name: str


class Halves(NamedTuple):
    low: list[int]
    high: list[int]


@workflow.task
def table(rows: list[int]) -> Table:
    return Table(rows=rows, name="numbers")


def test_calls_of_tasks_are_a_graph(workflows):
    graph = total([square(number) for number in range(4)], plus=1)
    assert workflows.run(graph, workflow_id="w") == 15
    assert workflows.get_output("w", task_id="square_3") == 9
    assert workflows.get_output("w", task_id="sum") == 15


def test_the_function_itself_stays_callable():
    assert square.fn(3) == 9
    assert square.__doc__ == "The square of a number."
    assert square.__name__ == "square"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda node: [node, 1], [9, 1]),
        (lambda node: {"a": (node, {"b": node})}, {"a": (9, {"b": 9})}),
        (lambda node: Table(rows=[node], name="t"), Table(rows=[9], name="t")),
        (lambda node: {"nodes": {1: [node]}, 2: node}, {"nodes": {1: [9]}, 2: 9}),
        (lambda node: asdict(Table(rows=node, name="t")), {"rows": 9, "name": "t"}),
    ],
    ids=["list", "nested", "dataclass", "dict", "copied"],
)
def test_nodes_may_stand_anywhere_in_arguments(workflows, make, expected):
    assert workflows.run(same(make(square(3)))) == expected


@pytest.mark.parametrize(
    ("pick", "expected"),
    [
        (lambda node: node.rows[1], 2),
        (lambda node: [node.rows[-1], node.name], [3, "numbers"]),
        (lambda node: {"first": node.rows[0]}, {"first": 1}),
        (lambda node: node.rows[1:], [2, 3]),
    ],
    ids=["argument", "in a list", "in a dict", "slice"],
)
def test_results_may_be_picked_apart(workflows, pick, expected):
    assert workflows.run(same(pick(table([1, 2, 3])))) == expected


def test_a_part_may_be_the_output(workflows):
    assert workflows.run(table([1, 2]).rows[1]) == 2


def test_a_part_that_the_result_has_not_fails_the_task_that_takes_it(workflows):
    with pytest.raises(WorkflowExecutionError) as failed:
        workflows.run(same(table([1]).rows[5]), workflow_id="w")
    assert isinstance(failed.value.__cause__, IndexError)
    assert "the part .rows[5]" in failed.value.__cause__.__notes__[0]
    assert workflows.get_output("w", task_id="table").rows == [1]


@workflow.task
def split(values: list[int]) -> Any:
    half = len(values) // 2
    return {"low": values[:half], "high": values[half:]}


@workflow.task
def split_in_order(values: list[int]) -> Any:
    half = len(values) // 2
    return values[:half], values[half:]


@workflow.task
def split_by_name(values: list[int]) -> Any:
    half = len(values) // 2
    return Halves(high=values[half:], low=values[:half])


@workflow.task
def split_into_object(values: list[int]) -> Any:
    half = len(values) // 2
    made = Table(rows=[], name="")
    made.low, made.high = values[:half], values[half:]  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize("function", [split, split_by_name, split_into_object])
def test_outputs_are_tasks_with_a_checkpoint_each(workflows, function):
    high, low = function.outputs("high", "low")([1, 2, 3, 4])
    assert workflows.run(same([low, high]), workflow_id="w") == [[1, 2], [3, 4]]
    assert workflows.get_output("w", task_id=f"{function.__name__}.high") == [3, 4]


def test_outputs_of_a_tuple_are_in_its_order(workflows):
    low, high = split_in_order.outputs("low", "high")([1, 2, 3, 4])
    assert workflows.run(same([high, low])) == [[3, 4], [1, 2]]


def test_an_output_that_the_result_has_not_is_told(workflows):
    a, _ = split.outputs("a", "b")([1, 2])
    with pytest.raises(WorkflowExecutionError, match=r"no output 'a'.*dict.*keys \['a', 'b'\]"):
        workflows.run(a)


@pytest.mark.parametrize("names", [(), ("a", "a"), ("",), (1,)])
def test_outputs_need_different_names(names):
    with pytest.raises(ValueError, match="outputs of split must be different names"):
        split.outputs(*names)


@workflow.task
async def later(value: int) -> int:
    await asyncio.sleep(0)
    assert workflow.get_context().task_id == "later"
    return value + 1


def test_an_async_function_is_a_task(workflows):
    assert workflows.run(later(1)) == 2


def test_both_styles_may_be_mixed_in_one_graph(workflows):
    inner = of_ray.bind(square(3))
    assert workflows.run(total([inner, square(2)], plus=of_ray.bind(1))) == 14


def test_a_remote_function_gets_nested_nodes_as_references(workflows):
    @ray.remote
    def types(values):
        return [type(value).__name__ for value in values], ray.get(values)

    names, values = workflows.run(types.bind([square(2), of_ray.bind(3)]))
    assert "int" not in names
    assert values == [4, 3]


@workflow.task
def factorial(n: int, so_far: int = 1) -> Any:
    return so_far if n == 0 else factorial(n - 1, so_far * n)


def test_a_task_may_return_a_graph(workflows):
    assert workflows.run(factorial(5), workflow_id="w") == 120


def test_with_options_gives_another_task(workflows):
    named = square.with_options(name="of three", metadata={"a": 1})
    assert workflows.run(named(3), workflow_id="w") == 9
    assert workflows.get_metadata("w", "of three")["user_metadata"] == {"a": 1}
    assert workflows.run(square(3), workflow_id="v") == 9
    with pytest.raises(ValueError, match="of three"):
        workflows.get_metadata("v", "of three")


def test_options_are_checked_where_they_are_given():
    with pytest.raises(ValueError, match=r"Invalid option keywords \['retries'\].*num_cpus"):
        workflow.task(retries=3)
    with pytest.raises(ValueError, match="name must be a string that is not empty, not ''"):
        workflow.task(name="")
    with pytest.raises(ValueError, match="Give it as name"):
        workflow.task(task_id="a")
    with pytest.raises(ValueError, match="outputs"):
        square.with_options(num_returns=2)
    with pytest.raises(ValueError, match="memory must be bytes, or a size"):
        workflow.task(memory="4 apples")
    with pytest.raises(ValueError, match="cleanup_s is for"):
        workflow.task(cleanup_s=3)


@pytest.mark.parametrize(
    "options",
    [
        {"num_cpus": -1},
        {"num_cpus": "1"},
        {"num_gpus": float("nan")},
        {"memory": True},
        {"max_retries": -2},
        {"max_retries": True},
        {"resources": {"CPU": 1}},
    ],
    ids=str,
)
def test_options_that_ray_refuses_are_refused_before_anything_is_written(workflows, options):
    task = square.with_options(**options)
    for node in (task(3), task.map([3]), square.map([3]).reduce(task)):
        with pytest.raises(ValueError, match=r"The task '.*' has options that Ray refuses: "):
            workflows.run(node, workflow_id="w")
    assert workflows.list_all() == []


def test_options_of_ray_go_with_the_task():
    sized = square.with_options(memory="4GiB", num_cpus=2, max_retries=7)
    (task,) = encode_graph(sized(1)).tasks
    assert task.shown_options == {"memory": 4 * 2**30, "num_cpus": 2}
    assert task.options.max_retries == 7
    (task,) = encode_graph(sized.with_options(num_cpus=1)(1)).tasks
    assert task.shown_options == {"memory": 4 * 2**30, "num_cpus": 1}


def test_a_wrong_call_is_refused_where_it_is_made():
    with pytest.raises(TypeError, match=r"square\(\) can't be called so: missing.*'x'"):
        square()
    with pytest.raises(TypeError, match=r"square\(\) can't be called so"):
        square(1, 2)
    with pytest.raises(TypeError, match=r"square\(\) can't be called so"):
        square(y=1)


@pytest.mark.parametrize(
    ("use", "remedy"),
    [
        (lambda node: list(node), "outputs"),
        (lambda node: 1 if node else 2, "Decide in a task"),
        (lambda node: f"s3://bucket/{node}", "Make the text in a task"),
        (lambda node: pickle.loads(pickle.dumps(node)), "Pass it to a task as an argument"),
    ],
    ids=["iterated", "bool", "formatted", "stored"],
)
def test_what_needs_the_value_of_a_node_is_refused_with_the_remedy(use, remedy):
    with pytest.raises(TypeError, match=remedy):
        use(square(2))


def yields():
    yield 1


async def yields_later():
    yield 1


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        (yields, "Return a list"),
        (yields_later, "Return a list"),
        (of_ray, "Take @ray.remote away"),
        (square, "is a task already"),
        (len, "Write a function"),
        (staticmethod(yields), "above @workflow.task"),
        (Table, "Write a function"),
    ],
    ids=["generator", "async generator", "ray", "task", "builtin", "staticmethod", "class"],
)
def test_what_is_no_plain_function_is_refused_with_the_remedy(given, remedy):
    with pytest.raises(TypeError, match=remedy):
        workflow.task(given)


def test_a_method_is_refused_with_the_remedy():
    with pytest.raises((TypeError, RuntimeError)) as refused:

        class Model:
            @workflow.task
            def fit(self) -> int:
                return 1

    told = refused.value if isinstance(refused.value, TypeError) else refused.value.__cause__
    assert "Model.fit is a method" in str(told)


class Static:
    @staticmethod
    @workflow.task
    def double(x: int) -> int:
        return 2 * x


def test_a_static_method_is_a_task(workflows):
    assert workflows.run(Static.double(4)) == 8


def test_functions_of_one_name_have_their_module_in_theirs():
    @workflow.task
    def square(x):
        return x

    graph = encode_graph(total([globals()["square"](1), square(2), same(3)]))
    assert [task.name for task in graph.tasks] == [
        f"{__name__}.square",
        f"{__name__}.test_functions_of_one_name_have_their_module_in_theirs.locals.square",
        "same",
        "sum",
    ]


def test_both_styles_make_the_same_stored_graph_but_for_names():
    def numbers(x):
        return x

    authored, bound = workflow.task(numbers), ray.remote(numbers)
    graphs = encode_graph(authored(authored(1))), encode_graph(bound.bind(bound.bind(1)))
    ours, rays = ([task._replace(name="") for task in graph.tasks] for graph in graphs)
    assert ours == rays


def test_a_graph_that_fails_is_resumed_from_the_failed_task(workflows, tmp_path):
    runs: list[str] = []
    is_mended = tmp_path / "mended"

    @workflow.task
    def first() -> int:
        runs.append("first")
        return 1

    @workflow.task
    def second(value: int) -> int:
        runs.append("second")
        if not is_mended.exists():
            raise ValueError("broken")
        return value + 1

    with pytest.raises(WorkflowExecutionError):
        workflows.run(second(first()), workflow_id="w")
    is_mended.touch()
    assert workflows.run(second(first()), workflow_id="w") == 2
    assert runs == ["first", "second", "second"]


def test_another_part_of_the_same_result_is_another_argument(workflows):
    runs: list[Any] = []

    @workflow.task
    def note(value: Any) -> Any:
        runs.append(value)
        return value

    whole = {"a": 1, "b": 2}
    assert workflows.run(note(same(whole)["a"]), workflow_id="w") == 1
    assert workflows.run(note(same(whole)["a"]), workflow_id="w") == 1
    assert workflows.run(note(same(whole)["b"]), workflow_id="w") == 2
    assert runs == [1, 2]


_WITHOUT_RAY = """
import sys
from airflow_provider_rayworkflow import workflow

vendor_api = workflow.limit("vendor_api", max_concurrency=8, rate="50/minute")

@workflow.task(num_cpus=1, memory="1GiB", retry=workflow.Retry(attempts=2), limits=["vendor_api"])
def load(day):
    return {"rows": [day]}

@workflow.task
def total(values, names):
    return sum(values)

days = [load.with_options(name=f"load {day}")(day) for day in range(3)]
a, b = load.outputs("rows", "more")(1)
loaded = workflow.gather({"a": a, "b": load.map(range(3), max_failed="2%")})
graph = total([day["rows"][0] for day in days], names={"a": a, "loaded": loaded})
assert not {"ray", "pyarrow", "airflow"} & set(sys.modules)
"""


def test_a_graph_is_made_without_ray():
    subprocess.run([sys.executable, "-c", _WITHOUT_RAY], check=True, timeout=60)


def test_a_task_alone_is_a_workflow_by_its_call(workflows):
    definition = WorkflowDefinition.load(square, {"x": 3})
    assert workflows.run(definition.build_graph()) == 9
    with pytest.raises(RayWorkflowInputError, match="'y'"):
        WorkflowDefinition.load(square, {"y": 3})


def test_a_lambda_and_a_keyword_of_any_name_will_do(workflows):
    named = workflow.task(lambda **given: given)
    assert workflows.run(named(self=1, function=2), workflow_id="w") == {"self": 1, "function": 2}
    assert workflows.get_output("w", task_id="lambda") == {"self": 1, "function": 2}


def test_a_node_that_the_body_of_a_function_uses_is_refused_with_the_remedy(workflows):
    made = square(2)

    @workflow.task
    def uses() -> Any:
        return made

    with pytest.raises(TypeError, match=r"uses can't be pickled: it uses .* Pass it to the task"):
        workflows.run(uses())


@dataclass(frozen=True)
class Box:
    content: Any


@pytest.mark.parametrize("kind", [set, frozenset])
def test_a_set_of_nodes_is_refused(workflows, kind):
    one = taken_in(1)
    sets = (
        kind([one]),
        [kind([(0, one["rows"])])],
        {"a": kind([frozenset([one])])},
        kind([Box(one)]),
    )
    for value in sets:
        with pytest.raises(TypeError, match=r"takes a set with a node in it.*Give a list"):
            workflows.run(taken_in(value))
    assert workflows.run(taken_in(kind([1]))) == kind([1])


def test_a_set_of_nodes_that_a_map_takes_is_refused(workflows):
    with pytest.raises(TypeError, match="takes a set with a node in it"):
        workflows.run(taken_by.map([1], taken={taken_in(1)}))


@workflow.task
def taken_in(value: Any) -> Any:
    return value


@workflow.task
def taken_by(item: Any, taken: Any) -> Any:
    return taken
