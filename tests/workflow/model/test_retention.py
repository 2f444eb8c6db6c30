"""A retention is days by status, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_rayworkflow.workflow.model.retention import check_retention
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus


def test_days_stay_as_they_are_given() -> None:
    given = {WorkflowStatus.SUCCESSFUL: 30, "FAILED": 0.5, "RESUMABLE": 90, "CANCELED": 1}
    found = check_retention(given)
    assert found == {"SUCCESSFUL": 30, "FAILED": 0.5, "RESUMABLE": 90, "CANCELED": 1}
    assert {type(status) for status in found} == {str}
    assert check_retention({}) == {}


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (30, TypeError, "must be days by status"),
        (["SUCCESSFUL"], TypeError, "must be days by status"),
        ({"RUNNING": 30}, ValueError, "has 'RUNNING'; its statuses are SUCCESSFUL, FAILED"),
        ({"successful": 30}, ValueError, "has 'successful'"),
        ({5: 30}, ValueError, "has 5"),
        ({"FAILED": "30"}, TypeError, "has '30' for FAILED; give a number of days"),
        ({"FAILED": True}, TypeError, "has True for FAILED"),
        ({"FAILED": None}, TypeError, "has None for FAILED"),
        ({"FAILED": 0}, ValueError, "has 0 for FAILED; give a number of days above 0. Leave"),
        ({"FAILED": -1}, ValueError, "has -1 for FAILED"),
        ({"FAILED": float("nan")}, ValueError, "has nan for FAILED"),
        ({"FAILED": float("inf")}, ValueError, "has inf for FAILED"),
    ],
)
def test_anything_else_is_refused_with_the_value_and_the_remedy(
    wrong: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_retention(wrong)
