"""What exceptions say to people."""

from __future__ import annotations

import pytest

from airflow_provider_rayworkflow.workflow.exceptions import said_by


@pytest.mark.parametrize(
    ("exc", "said"),
    [(TimeoutError(), "TimeoutError"), (ValueError("no"), "no")],
    ids=["nothing", "text"],
)
def test_an_exception_without_a_text_is_told_by_its_class(exc, said):
    assert said_by(exc) == said
