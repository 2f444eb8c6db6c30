"""Rows of the index: under which keys a workflow stands."""

from __future__ import annotations

from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow, by_dag, index_keys
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus


def test_a_dag_whose_name_is_no_unicode_has_keys_that_are():
    """A foreign status document would stop the index for all."""
    row = IndexRow(
        segment="w", workflow_id="w", status=WorkflowStatus.FAILED, origin={"dag_id": "\ud800/"}
    )
    assert by_dag("\ud800/") == "d/%ED%A0%80%2F/"
    assert all(key.isascii() for key in index_keys(row))
