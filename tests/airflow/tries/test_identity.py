"""Every task instance has a workflow id of its own, the same at each of its tries."""

import itertools

import pytest

from airflow_provider_rayworkflow.tries.identity import (
    Origin,
    TaskInstanceKey,
    derive_workflow_id,
    fingerprint,
)
from airflow_provider_rayworkflow.workflow.model.ids import check_workflow_id

SCHEDULED = "scheduled__2026-11-22T00:00:00+00:00"


def derived(dag_id: str, task_id: str, run_id: str, map_index: int = -1) -> str:
    return derive_workflow_id(
        TaskInstanceKey(dag_id=dag_id, task_id=task_id, run_id=run_id, map_index=map_index)
    )


def test_an_id_reads_as_the_task_instance():
    assert derived("etl", "load", SCHEDULED) == f"etl.load.{SCHEDULED}"
    assert derived("etl", "load", SCHEDULED, 3) == f"etl.load.{SCHEDULED}.3"
    assert derived("etl", "load", "manual__2026-11-22T10:00:00.123456+00:00_x1") == (
        "etl.load.manual__2026-11-22T10:00:00.123456+00:00_x1"
    )


def test_an_id_is_the_same_in_every_process():
    assert derived("etl", "group.load", "r") == "etl.group.load.r~c8d5b6fbbd337adf"


def test_a_long_id_is_shortened_to_200_characters():
    first, second = derived("d" * 250, "t" * 250, "r" * 250), derived("d" * 250, "t" * 250, "r")
    assert len(first) == len(second) == 200
    assert first != second


@pytest.mark.parametrize("run_id", ["a/../b", "..", "a\x00b", "a b", "a\nb", "a\\b", "naïve ☃"])
def test_any_run_id_gives_an_id_that_is_allowed(run_id: str):
    workflow_id = derived("etl", "load", run_id)
    assert check_workflow_id(workflow_id) == workflow_id
    assert "/" not in workflow_id


def test_different_task_instances_never_share_an_id():
    words = ["a", "a.a", "a.1", "1", "a~a", "a_a", "a a", "a/a", "a" * 199, "a" * 250]
    keys = list(itertools.product(words, words, words, [-1, 0, 1, 11]))
    assert len({derived(*key) for key in keys}) == len(keys)


def test_an_origin_survives_the_metadata_of_a_workflow():
    origin = Origin(
        key=TaskInstanceKey(dag_id="d", task_id="t", run_id="r", map_index=2),
        run_after="2026-11-22T00:00:00+00:00",
        life="abc",
        max_tries=3,
        inputs="123",
    )
    metadata = {"mine": 1, "airflow": origin.to_metadata()}
    assert Origin.from_metadata(metadata) == origin


@pytest.mark.parametrize("metadata", [{}, {"airflow": None}, {"airflow": {"dag_id": "d"}}])
def test_a_workflow_that_no_task_instance_started_has_no_origin(metadata: dict):
    assert Origin.from_metadata(metadata) is None


def test_a_fingerprint_does_not_depend_on_the_order_of_the_arguments():
    assert fingerprint("m:f", {"a": 1, "b": 2}) == fingerprint("m:f", {"b": 2, "a": 1})
    assert fingerprint("m:f", {"a": 1}) != fingerprint("m:f", {"a": "1"})
    assert fingerprint("m:f", {}) != fingerprint("m:g", {})
