"""What the cluster makes of a submission before the workflow begins."""

import pytest
import ray
from ray.dag import InputNode

from airflow_provider_rayworkflow.workflow.manager.submission_reader import BuildError, RefusedError
from airflow_provider_rayworkflow.workflow.runtime.service.builder import build_graph
from airflow_provider_rayworkflow.workflow.storage.mailbox import Submission, python_version


def submission(**changes: object) -> Submission:
    given: dict = {
        "workflow_id": "w",
        "submission_id": "s",
        "token": "t",
        "workflow": "",
        "arguments": {},
        "user_metadata": {},
        "on_existing": "resume",
        "submitted_at": 0.0,
        "python": python_version(),
        "package_version": "0",
    }
    return Submission(**given | changes)


def test_a_function_that_another_python_pickled_is_refused_with_both_versions():
    with pytest.raises(
        BuildError,
        match=rf"pickled by Python 3\.9, and the cluster has Python {python_version()}\.",
    ):
        build_graph(submission(python="3.9", graph=b"is not looked at"), {})


def test_an_import_path_may_come_from_another_python():
    with pytest.raises(BuildError, match="no module 'no_such_module'"):
        build_graph(submission(python="3.9", workflow="no_such_module:f"), {})


def test_without_a_workflow_the_stored_graph_is_meant():
    assert build_graph(submission(python="3.9"), {}) is None


def nodes_in_a_list():
    @ray.remote
    def one():
        return 1

    return [one.bind()]


def a_graph_with_an_input():
    @ray.remote
    def one(x):
        return x

    return one.bind(InputNode())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nodes_in_a_list", "is a list; give its nodes to one more task"),
        ("a_graph_with_an_input", "no argument was passed"),
    ],
)
def test_a_function_that_returns_no_graph_is_refused_for_good(function: str, message: str):
    """The next try would give the same: the Airflow task is not retried."""
    with pytest.raises(RefusedError, match=message):
        build_graph(submission(workflow=f"{__name__}:{function}"), {})
