"""A run's tasks import the run's code, whichever code they were stored with."""

from __future__ import annotations

import json

import pytest

from airflow_provider_rayworkflow.workflow.model.code_variables import (
    archives_of,
    base_code,
    base_variables,
    code_of,
    with_code,
    without_base,
)
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task

LOCAL = {"RAYWORKFLOW_CODE": "2", "PYTHONPATH": "/dags"}
ARCHIVED = {"RAYWORKFLOW_ARCHIVES": "new"}


@pytest.mark.parametrize(
    ("runtime_env", "code"),
    [
        ({}, {}),
        ({"env_vars": None, "pip": ["x"]}, {}),
        ({"env_vars": {"STAGE": "prod", "PYTHONPATH": "/mine"}}, {}),
        ({"env_vars": LOCAL | {"STAGE": "prod"}}, LOCAL),
        ({"env_vars": ARCHIVED | {"PYTHONPATH": "/mine"}}, ARCHIVED),
        ({"env_vars": ARCHIVED | LOCAL}, ARCHIVED | LOCAL),
    ],
)
def test_the_code_is_what_says_which_modules_a_worker_imports(runtime_env, code):
    assert code_of(runtime_env) == code


@pytest.mark.parametrize(
    ("stored", "code", "used"),
    [
        ({"A": "b", "RAYWORKFLOW_CODE": "1"}, {}, {"A": "b", "RAYWORKFLOW_CODE": "1"}),
        (
            {"A": "b", "RAYWORKFLOW_CODE": "1", "PYTHONPATH": "/of the task"},
            LOCAL,
            {"A": "b", "RAYWORKFLOW_CODE": "2", "PYTHONPATH": "/of the task"},
        ),
        ({"A": "b", "RAYWORKFLOW_ARCHIVES": "old"}, ARCHIVED, {"A": "b"} | ARCHIVED),
        ({"RAYWORKFLOW_ARCHIVES": "old"}, LOCAL, LOCAL),
        ({"RAYWORKFLOW_CODE": "1"}, ARCHIVED, ARCHIVED),
    ],
)
def test_a_task_gets_the_code_of_its_run_and_keeps_what_else_it_has(stored, code, used):
    environment = {"env_vars": stored, "pip": ["x"]}
    assert with_code(environment, code) == {"env_vars": used, "pip": ["x"]}
    assert environment["env_vars"] is stored


def test_a_task_without_an_environment_of_its_own_gets_that_of_the_run():
    assert with_code({}, LOCAL) == {"env_vars": LOCAL}
    assert with_code({}, {}) == {}


@pytest.mark.parametrize("code", [{}, LOCAL])
def test_a_graph_is_stored_with_its_code(code):
    graph = Graph(tasks=[Task(name="a", function=0, arguments=0)], blobs=[b""], code=code)
    assert Graph.from_bytes(graph.to_bytes()).code == code


ONE, OTHER = "1" * 64, "a" * 64


@pytest.mark.parametrize(
    ("named", "found"),
    [
        (None, []),
        ({"working_dir": None, "py_modules": []}, []),
        ({"working_dir": ONE, "py_modules": [OTHER, ONE]}, [ONE, OTHER]),
        ({"working_dir": "../../x", "py_modules": [OTHER, 7]}, [OTHER]),
        ({"working_dir": ONE}, []),
        ([ONE], []),
    ],
)
def test_the_archives_of_code_are_those_that_it_names_and_nothing_else(named, found):
    assert archives_of({"RAYWORKFLOW_ARCHIVES": json.dumps(named)}) == found


@pytest.mark.parametrize("code", [{}, {"RAYWORKFLOW_ARCHIVES": "{"}, LOCAL])
def test_code_may_name_no_archives(code):
    assert archives_of(code) == []


def test_what_a_local_ray_is_started_with_is_known_in_its_processes():
    variables = base_variables(LOCAL | ARCHIVED)
    assert variables["PYTHONPATH"] == "/dags"
    assert base_code(variables) == LOCAL
    assert [base_variables(ARCHIVED), base_code({"PYTHONPATH": "/dags"})] == [{}, {}]


@pytest.mark.parametrize(
    ("variables", "left"),
    [
        (LOCAL, {}),
        (LOCAL | {"STAGE": "prod"}, {"env_vars": {"STAGE": "prod"}}),
        (LOCAL | {"RAYWORKFLOW_CODE": "edited"}, None),
        (LOCAL | {"PYTHONPATH": "/of the task"}, None),
        ({"RAYWORKFLOW_CODE": "2"}, None),
        ({}, None),
    ],
    ids=["the same", "and more", "edited files", "another path", "no path", "nothing"],
)
def test_only_tasks_of_the_code_that_every_worker_has_need_no_worker_of_their_own(variables, left):
    environment = {"env_vars": variables} if variables else {}
    assert without_base(environment, LOCAL) == (environment if left is None else left)
    assert without_base(environment | {"pip": ["x"]}, LOCAL)["pip"] == ["x"]
    assert without_base(environment, {}) == environment
