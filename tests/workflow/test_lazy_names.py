"""Names that a package imports when they are first asked for."""

import ast
import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_rayworkflow import workflow

PACKAGES = ["airflow_provider_rayworkflow.workflow", "airflow_provider_rayworkflow.operators"]


def typed_names(package: str) -> dict[str, str]:
    """The names that a type checker sees, each with its module."""
    tree = ast.parse(Path(importlib.import_module(package).__file__ or "").read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in imports for alias in node.names}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_type_checker_and_python_find_the_same(package: str):
    typed, loaded = typed_names(package), importlib.import_module(package)
    assert len(typed) > 5
    for name, module in typed.items():
        assert getattr(loaded, name) is getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("package", PACKAGES)
def test_all_names_are_found(package: str):
    names: dict[str, object] = {}
    exec(f"from {package} import *", names)
    assert set(importlib.import_module(package).__all__) <= names.keys()


@pytest.mark.parametrize("package", PACKAGES)
def test_names_are_listed_before_their_first_use(package: str):
    program = f"import {package} as package; print(set(package.__all__) - set(dir(package)))"
    assert answer_of(program) == "set()\n"


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"workflow' has no attribute 'ran'$"):
        workflow.ran  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'ran'"):
        exec("from airflow_provider_rayworkflow.workflow import ran")


def test_a_pickled_name_is_the_function_itself():
    assert pickle.loads(pickle.dumps(workflow.sleep)) is workflow.sleep


def test_the_calls_are_imported_when_one_is_used():
    program = (
        "import sys; from airflow_provider_rayworkflow import workflow;"
        "api = 'airflow_provider_rayworkflow.workflow.api'; before = api in sys.modules;"
        "workflow.run; print(before, api in sys.modules)"
    )
    assert answer_of(program) == "False True\n"


def answer_of(program: str) -> str:
    """What a Python of its own prints."""
    return subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True
    ).stdout
