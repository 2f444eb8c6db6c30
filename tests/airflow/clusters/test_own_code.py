"""What a try without a cluster says of the code that its workflow's tasks import."""

from __future__ import annotations

import os
import sys

import pytest

from airflow_provider_rayworkflow.clusters.own_code import with_code_of_this_process
from airflow_provider_rayworkflow.exceptions import RayWorkflowInputError
from airflow_provider_rayworkflow.workflow.model.code_variables import CODE_VARIABLE


def test_workers_import_what_this_process_can_and_what_the_author_says_counts_more():
    given = {"env_vars": {"A": "b", "PYTHONPATH": "/mine"}, "pip": ["x"]}
    made = with_code_of_this_process(given)
    assert made["pip"] == ["x"]
    assert made["env_vars"].keys() == {"A", "PYTHONPATH", CODE_VARIABLE}
    assert made["env_vars"]["PYTHONPATH"] == "/mine"
    own = with_code_of_this_process(None)["env_vars"]["PYTHONPATH"].split(os.pathsep)
    assert own == [path for path in sys.path if path]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("text", "runtime_env must be a dict, not a str"),
        ({"env_vars": ["A"]}, r"runtime_env\['env_vars'\] must be a dict"),
        ({"env_vars": {"PIN": 123456}}, r"\['env_vars'\]\['PIN'\] must be a text, not of type int"),
    ],
)
def test_an_environment_of_another_form_is_refused_without_its_values(wrong: object, message: str):
    with pytest.raises(RayWorkflowInputError, match=message) as error:
        with_code_of_this_process(wrong)
    assert "123456" not in str(error.value)
