"""A graph as data: it comes back as it was, and its tasks get ids in their order."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError
from airflow_provider_rayworkflow.workflow.format.documents import dump_frame, dump_line
from airflow_provider_rayworkflow.workflow.model.graph import (
    Graph,
    RetryOptions,
    Shape,
    Task,
    TaskOptions,
    Tasks,
    allocate_ids,
)
from airflow_provider_rayworkflow.workflow.model.ids import TaskIds

OPTIONS = TaskOptions(
    catch_exceptions=True,
    checkpoint=False,
    max_retries=-1,
    retry_exceptions=True,
    metadata={"a": [1, None]},
    retry=RetryOptions(attempts=3, wait_initial_s=0.5),
    timeout_s=1.5,
    is_event=True,
)
GRAPH = Graph(
    tasks=[
        Task(name="load", function=0, arguments=1),
        Task(
            name="löad",
            function=0,
            arguments=2,
            named_by_author=True,
            options=OPTIONS,
            literals="abc",
        ),
        Task(
            name="join",
            function=3,
            shape=Shape((1, -1, -1), ("n",)),
            arguments=(True, 1.0),
            upstream=(0, 1),
            ray_options=4,
            shown_options={"num_cpus": 2},
        ),
    ],
    blobs=[b"function\n", b"", b"\x00" * 10, b"{}", b"options"],
)

OPTION_SETS = st.builds(
    TaskOptions,
    catch_exceptions=st.booleans(),
    checkpoint=st.none() | st.booleans(),
    max_retries=st.integers(-1, 5),
    retry_exceptions=st.booleans(),
    metadata=st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    retry=st.none() | st.builds(RetryOptions, attempts=st.integers(1, 9)),
    timeout_s=st.none() | st.floats(0.1, 100),
    is_event=st.booleans(),
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5)
)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    blobs = draw(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
    blob = st.integers(0, len(blobs) - 1)
    tasks: list[Task] = []
    for index in range(draw(st.integers(1, 6))):
        upstream = draw(st.lists(st.integers(0, index - 1), max_size=3) if index else st.just([]))
        scalars = draw(st.lists(SCALARS, max_size=3))
        places = draw(st.permutations([*range(len(upstream)), *[-1 for _ in scalars]]))
        names = st.lists(st.text(max_size=3), max_size=len(places), unique=True)
        plain = {"arguments": tuple(scalars), "shape": Shape(tuple(places), tuple(draw(names)))}
        tasks.append(
            Task(
                name=draw(st.text(min_size=1, max_size=5)),
                named_by_author=draw(st.booleans()),
                function=draw(blob),
                ray_options=draw(st.just(-1) | blob),
                upstream=tuple(upstream),
                options=draw(OPTION_SETS),
                shown_options=draw(st.dictionaries(st.text(max_size=3), st.text(max_size=3))),
                **draw(st.just(plain) | st.fixed_dictionaries({"arguments": blob})),
            )
        )
    return Graph(tasks=tasks, blobs=blobs)


def test_a_graph_comes_back_from_bytes_as_it_was():
    assert Graph.from_bytes(GRAPH.to_bytes()) == GRAPH


@given(graphs())
def test_any_graph_comes_back_from_bytes_as_it_was(graph: Graph):
    assert Graph.from_bytes(graph.to_bytes()) == graph


def test_options_that_an_author_left_as_they_are_take_no_place():
    first, second, third = GRAPH.to_json()["kinds"]
    assert first == {"name": "load", "function": 0}
    assert third["shape"] == ((1, -1, -1), ("n",))
    assert second["options"]["retry"] == {
        "attempts": 3,
        "wait_initial_s": 0.5,
        "wait_factor": 2.0,
        "wait_max_s": 60.0,
    }
    assert json.loads(json.dumps(GRAPH.to_json()))["tasks"] == [
        [0, 1, [], ""],
        [1, 2, [], "abc"],
        [2, [True, 1.0], [0, 1], ""],
    ]


def test_parts_that_tasks_have_in_common_are_stored_once():
    kind = Task(name="f", function=0, shape=Shape((-1,)))
    tasks = Tasks([kind], [(0, (number,), (), "") for number in range(3)])
    graph = Graph(tasks=tasks, blobs=[b"function"])
    assert graph.to_json() == {
        "kinds": [{"name": "f", "function": 0, "shape": ((-1,), ())}],
        "tasks": [(0, (0,), (), ""), (0, (1,), (), ""), (0, (2,), (), "")],
    }
    assert Graph.from_bytes(graph.to_bytes()) == graph
    assert graph.tasks[-1] == kind._replace(arguments=(2,))
    assert graph.tasks[1:] == [kind._replace(arguments=(number,)) for number in (1, 2)]


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        ("tasks", [[1, [5], [], ""]]),
        ("tasks", [[-1, [5], [], ""]]),
        ("tasks", [[1, 0, [], ""]]),
        ("tasks", [[0.5, 0, [], ""]]),
        ("tasks", [[0, 0, [], ""], [0, 0, [0.5], ""]]),
        ("tasks", [[0, 0, [], ""], [0, 0, [False], ""]]),
        ("tasks", [[0, [5, 6], [], ""]]),
        ("tasks", [[0, [], [], ""]]),
        ("tasks", [[0, [[0]], [], ""]]),
        ("tasks", [[0, [5], [0], ""]]),
        ("tasks", [[0, [5], [-1], ""]]),
        ("tasks", [[0, 1, [], ""]]),
        ("tasks", [[0, -1, [], ""]]),
        ("tasks", [[0, None, [], ""]]),
        ("tasks", [[0, [5], [], None]]),
        ("tasks", [[0, [5], []]]),
        ("kinds", [{"name": "f", "function": 1, "shape": [[-1], []]}]),
        ("kinds", [{"name": "f", "function": 0, "shape": [[0], []]}]),
        ("kinds", [{"name": "f", "function": 0, "shape": [["0"], []]}]),
        ("kinds", [{"name": "f", "function": 0, "shape": [[-1], ["a", "b"]]}]),
        ("kinds", [{"name": "f", "function": 0, "shape": [[-1], [1]]}]),
        ("kinds", [{"name": "f", "function": 0, "shape": [[-1]] * 3}]),
        ("kinds", []),
    ],
)
def test_a_reference_to_a_missing_part_is_refused_by_name(part: str, damage: list[object]):
    whole = {
        "kinds": [{"name": "f", "function": 0, "shape": [[-1], []]}],
        "tasks": [[0, [5], [], ""]],
    }
    blobs = b"".join(bytes(piece) for piece in dump_frame({"sizes": [1]}, [b"f"]))
    assert Graph.from_bytes(dump_line("graph", whole) + blobs).tasks[0].arguments == (5,)
    with pytest.raises(CorruptedDataError, match="continuation of t"):
        Graph.from_bytes(
            dump_line("graph", whole | {part: damage}) + blobs, key="continuation of t"
        )


def test_a_graph_that_is_cut_off_anywhere_is_refused_by_name():
    for length in range(len(BYTES)):
        with pytest.raises(CorruptedDataError, match="continuation of t") as raised:
            Graph.from_bytes(BYTES[:length], key="continuation of t")
        assert raised.value.key == "continuation of t"


def test_a_changed_byte_of_functions_or_arguments_is_refused():
    for position in range(BYTES.index(b"\n") + 1, len(BYTES)):
        data = bytearray(BYTES)
        data[position] ^= 0x01
        with pytest.raises(CorruptedDataError):
            Graph.from_bytes(bytes(data))


BYTES = GRAPH.to_bytes()


def test_ids_are_given_in_the_order_of_the_tasks_and_authors_names_go_first():
    def task(name: str, named_by_author: bool = False) -> Task:
        return Task(name=name, function=0, arguments=0, named_by_author=named_by_author)

    graph = Graph(tasks=[task("f"), task("f"), task("g"), task("f_1", True)], blobs=[b""])
    ids = TaskIds()
    assert allocate_ids(graph, ids) == ["f", "f_2", "g", "f_1"]
    assert allocate_ids(graph, ids) == ["f_3", "f_4", "g_1", "f_1_1"]


@pytest.mark.parametrize(
    ("failures", "random", "expected"),
    [(1, 1.0, 1.0), (1, 0.0, 0.5), (2, 1.0, 2.0), (3, 1.0, 4.0), (7, 1.0, 60.0), (99, 0.0, 30.0)],
)
def test_waits_between_attempts_grow_up_to_their_limit(
    failures: int, random: float, expected: float
):
    assert RetryOptions(attempts=100).wait_s(failures, random) == expected


@pytest.mark.parametrize("failures", [1_000, 10_000, 10**6])
def test_the_wait_after_very_many_failures_is_the_limit(failures: int):
    assert RetryOptions(attempts=10**7).wait_s(failures, 1.0) == 60.0


def test_no_wait_at_first_is_no_wait_ever():
    retry = RetryOptions(attempts=10**7, wait_initial_s=0)
    assert [retry.wait_s(failures, 1.0) for failures in (1, 2, 10_000)] == [0, 0, 0]


def test_items_of_a_map_share_a_kind_and_have_names_of_their_own():
    rows = [(0, (), (), "", key) for key in ("a", "b", "a")]
    graph = Graph(tasks=Tasks([Task(name="f", function=0)], [*rows, (0, (), (), "")]), blobs=[b"f"])
    assert [task.item for task in graph.tasks] == ["a", "b", "a", ""]
    assert allocate_ids(graph, TaskIds()) == ["f[a]", "f[b]", "f[a]_1", "f"]
    assert Graph.from_bytes(graph.to_bytes()).tasks == graph.tasks


def test_a_row_whose_item_is_no_text_is_refused():
    graph = Graph(tasks=Tasks([Task(name="f", function=0)], [(0, (), (), "", 3)]), blobs=[b"f"])
    with pytest.raises(CorruptedDataError):
        Graph.from_bytes(graph.to_bytes())
