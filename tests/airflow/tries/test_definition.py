"""What a DAG's author writes is checked before anything is written or started."""

import datetime
import functools
import sys
import types

import cloudpickle
import pytest
import ray
from ray.dag import InputNode, MultiOutputNode

from airflow_provider_rayworkflow.exceptions import RayWorkflowInputError
from airflow_provider_rayworkflow.tries.definition import (
    WorkflowDefinition,
    check_id,
    check_metadata,
    check_workflow,
)
from airflow_provider_rayworkflow.workflow.model.codec import dumps
from airflow_provider_rayworkflow.workflow.model.ids import default_task_id


@ray.remote
def double(x):
    return 2 * x


def doubled(x: int):
    return double.bind(x)


def not_a_graph(x: int):
    return x


not_a_function = 5


@pytest.mark.parametrize(
    ("workflow", "message"),
    [
        ("pipelines.flights", "not an import path"),
        ("pipelines.flights.daily", "not an import path"),
        ("pipelines.flights:", "not an import path"),
        (":daily", "not an import path"),
        ("pipelines/flights.py:daily", "not an import path"),
        ("", "not an import path"),
        (None, "must be an import path or a function, not None"),
        (5, "must be an import path or a function, not 5"),
    ],
)
def test_a_workflow_that_names_nothing_is_refused_when_the_dag_is_parsed(workflow, message: str):
    with pytest.raises(RayWorkflowInputError, match=message):
        check_workflow(workflow)


@pytest.mark.parametrize(
    ("workflow", "message"),
    [
        ("no_such_module:f", "no module 'no_such_module'"),
        ("json.no_such_part:f", "no module 'json.no_such_part'"),
        ("json:no_such_function", "'json' has no 'no_such_function'"),
        ("test_definition:not_a_function", "is a int and no function"),
        ("test_definition:double", "is a Ray remote function"),
        (double, "is a Ray remote function"),
    ],
)
def test_a_workflow_that_is_no_function_is_refused(workflow, message: str):
    with pytest.raises(RayWorkflowInputError, match=message):
        WorkflowDefinition.load(workflow, {})


def test_an_import_that_fails_inside_a_module_is_that_modules_error(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        WorkflowDefinition.load("needs_more:f", {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([1], "arguments must be a dict, not \\[1\\]"),
        ({"x": {1: 2}}, "arguments\\['x'\\] must be JSON, and its key 1 is not a string"),
        (
            {"x": [0, {"y": {3}}]},
            "arguments\\['x'\\]\\[1\\]\\['y'\\] must be JSON, and it is a set",
        ),
        ({"x": datetime.date(2026, 11, 22)}, "it is a date: datetime.date"),
        ({"x": float("nan")}, "which has no nan"),
        ({"x": float("inf")}, "which has no inf"),
        ({"x": b"bytes"}, "it is a bytes"),
        ({}, "can't be called with the arguments \\[\\]: missing a required argument: 'x'"),
        ({"x": 1, "z": 1}, "can't be called .*unexpected keyword argument 'z'"),
    ],
)
def test_arguments_that_are_not_json_or_not_the_functions_are_refused(arguments, message: str):
    with pytest.raises(RayWorkflowInputError, match=message):
        WorkflowDefinition.load(doubled, arguments)


def test_arguments_are_a_copy_with_lists_for_tuples():
    given = {"x": {"y": (1, 2.5, None, True, "é")}}
    assert WorkflowDefinition.load(doubled, given).arguments == {
        "x": {"y": [1, 2.5, None, True, "é"]}
    }
    assert given == {"x": {"y": (1, 2.5, None, True, "é")}}


def test_a_function_that_returns_no_graph_is_refused_without_starting_ray():
    with pytest.raises(RayWorkflowInputError, match=r"'not_a_graph' returned no graph: .*\.bind"):
        WorkflowDefinition.load(not_a_graph, {"x": 1}).build_graph()
    assert not ray.is_initialized()


def test_an_error_of_the_function_is_its_own_error():
    def fails():
        raise LookupError("the bucket is empty")

    with pytest.raises(LookupError, match="the bucket is empty"):
        WorkflowDefinition.load(fails, None).build_graph()


def test_an_import_path_and_a_function_give_the_same_graph():
    for workflow in ("test_definition:doubled", doubled, functools.partial(doubled)):
        graph = WorkflowDefinition.load(workflow, {"x": 4}).build_graph()
        assert graph._bound_args == (4,)


def test_the_fingerprint_is_of_the_name_and_the_arguments():
    def fingerprint(workflow, x):
        return WorkflowDefinition.load(workflow, {"x": x}).fingerprint

    assert fingerprint(doubled, 1) == fingerprint(doubled, 1)
    assert fingerprint(doubled, 1) != fingerprint(doubled, 2)
    assert fingerprint(doubled, 1) != fingerprint(not_a_graph, 1)


DAG_FILE = """
import ray
from ray.dag import InputNode, MultiOutputNode
FACTOR = 7
def scaled(x):
    return FACTOR * x
@ray.remote
def scale(x):
    return scaled(x)
def workflow(x):
    return scale.bind(x)
"""


def dag_file(folder_hash: str, monkeypatch) -> types.ModuleType:
    """A module as Airflow makes it of a DAG file: no other process can import it by its name."""
    module = types.ModuleType(f"unusual_prefix_{folder_hash}_my_dag")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(DAG_FILE, module.__dict__)
    return module


def test_functions_of_a_dag_file_are_pickled_with_what_they_use_there(monkeypatch):
    module = dag_file("a" * 40, monkeypatch)
    graph = WorkflowDefinition.load(module.workflow, {"x": 1}).build_graph()
    pickled = dumps(graph._body)
    monkeypatch.delitem(sys.modules, module.__name__)
    assert cloudpickle.loads(pickled)(6) == 42


def test_task_ids_do_not_depend_on_where_the_dag_file_lies(monkeypatch):
    """A git bundle puts every version into a folder of its own; a resume must find its tasks."""
    here, there = (dag_file(letter * 40, monkeypatch) for letter in "ab")
    assert default_task_id(here.scaled) == default_task_id(there.scaled) == "my_dag.scaled"


@pytest.mark.parametrize(
    "workflow_id", ["../x", "a/../b", "a\x00b", "a\nb", "x" * 300, ".", 5, "a/./b"]
)
def test_an_id_that_can_not_be_one_is_refused(workflow_id):
    with pytest.raises(RayWorkflowInputError, match="workflow"):
        check_id(workflow_id)


def test_metadata_must_be_json_and_leave_our_key_alone():
    assert check_metadata(None) == {}
    assert check_metadata({"owner": "me"}) == {"owner": "me"}
    with pytest.raises(RayWorkflowInputError, match="may not have the key 'airflow'"):
        check_metadata({"airflow": 1})
    with pytest.raises(RayWorkflowInputError, match="metadata\\['a'\\] must be JSON"):
        check_metadata({"a": object()})


def test_metadata_that_is_huge_or_nested_too_deep_is_refused():
    with pytest.raises(RayWorkflowInputError, match="262156 bytes as JSON, and may have 262144"):
        check_metadata({"text": "x" * 262_144})
    nested: dict = {}
    for _ in range(100_000):
        nested = {"in": nested}
    with pytest.raises(RayWorkflowInputError, match="metadata is nested too deep"):
        check_metadata(nested)


@ray.remote
def one(x=1):
    return x


@ray.remote
class Counter:
    def count(self):
        return 1


async def asynchronous():
    return one.bind()


def generator():
    yield one.bind()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: None, "None is a NoneType; pass what a call of a @workflow.task gives"),
        (lambda: [one.bind(), one.bind()], "is a list; give its nodes to one more task"),
        (lambda: (one.bind(),), "is a tuple; give its nodes to one more task"),
        (lambda: {"a": one.bind()}, "is a dict; give its nodes to one more task"),
        (lambda: {one.bind()}, "is a set; give its nodes to one more task"),
        (lambda: one, "pass what its .bind"),
        (asynchronous, "must be a plain one, neither async nor a generator"),
        (generator, "must be a plain one, neither async nor a generator"),
        (lambda: Counter.bind(), "Use remote functions instead of actors"),
        (lambda: Counter.bind().count.bind(), "Use remote functions instead of actors"),
        (lambda: InputNode(), "Unsupported DAG node"),
        (lambda: MultiOutputNode([one.bind()]), "Unsupported DAG node"),
        (lambda: one.bind(InputNode()), "no argument was passed"),
        (lambda: one.bind(InputNode()[0]), "the input 0, which was not passed"),
        (lambda: one.bind([InputNode().key]), "the input 'key', which was not passed"),
    ],
)
@pytest.mark.filterwarnings("ignore:coroutine 'asynchronous' was never awaited")
def test_anything_but_a_graph_is_refused_by_name_with_the_remedy(function, message: str):
    with pytest.raises(RayWorkflowInputError, match=message):
        WorkflowDefinition.load(function, None).encode()
    assert not ray.is_initialized()
