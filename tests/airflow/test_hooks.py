"""The connection says where Ray runs and where workflows are stored, and nothing unknown."""

import json
import time

import pytest
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowConnectionError,
    RayWorkflowStorageError,
)
from airflow_provider_rayworkflow.hooks import ConnectionSettings, RayWorkflowHook
from airflow_provider_rayworkflow.workflow.model import StatusRecord
from airflow_provider_rayworkflow.workflow.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.leases import Lease, Process


@pytest.fixture
def connect(monkeypatch):
    """Define the default connection, and return its hook."""

    def define(extra=None, uri: str | None = None, **fields) -> RayWorkflowHook:
        connection = {"conn_type": "ray_workflow", "extra": extra or {}, **fields}
        monkeypatch.setenv("AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT", uri or json.dumps(connection))
        return RayWorkflowHook()

    return define


def test_a_default_connection_that_does_not_exist_is_ray_in_the_task_process(monkeypatch):
    monkeypatch.delenv("RAY_WORKFLOW_STORAGE", raising=False)
    hook = RayWorkflowHook()
    assert hook.settings == ConnectionSettings()
    assert hook.storage_uri == "/tmp/ray/workflow_data"


def test_any_other_connection_that_does_not_exist_is_an_error():
    with pytest.raises(AirflowNotFoundException, match="my_cluster"):
        RayWorkflowHook("my_cluster").settings  # noqa: B018


def test_a_connection_gives_its_extras(connect):
    hook = connect({"storage": "/data", "num_cpus": 2, "object_store_memory_mb": 300})
    assert hook.settings == ConnectionSettings(
        storage="/data", num_cpus=2, object_store_memory_mb=300
    )


def test_a_connection_may_be_written_as_a_uri(connect):
    hook = connect(uri="ray-workflow://?storage=%2Fdata&num_cpus=2")
    assert hook.settings == ConnectionSettings(storage="/data", num_cpus=2)


def test_empty_extras_say_nothing(connect):
    hook = connect({"storage": "", "num_cpus": None})
    assert hook.settings == ConnectionSettings()


def test_the_connections_storage_comes_before_the_environments(connect, monkeypatch):
    monkeypatch.setenv("RAY_WORKFLOW_STORAGE", "/from/environment")
    assert connect({"storage": "/from/connection"}).storage_uri == "/from/connection"
    assert connect({}).storage_uri == "/from/environment"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"stoarge": "/data"}, "unknown extra 'stoarge'. Known ones are \\['storage', 'num_cpus'"),
        ({"storage": 5}, "storage=5; it must be a path or URI"),
        ({"num_cpus": 0}, "num_cpus=0; it must be a whole number of at least 1"),
        ({"num_cpus": 1.5}, "num_cpus=1.5; it must be a whole number"),
        ({"num_cpus": True}, "num_cpus=True; it must be a whole number"),
        ({"num_cpus": "two"}, "num_cpus='two'; it must be a whole number"),
        ({"object_store_memory_mb": 79}, "object_store_memory_mb=79; .* at least 80"),
    ],
)
def test_extras_are_checked(connect, extra: dict, message: str):
    with pytest.raises(RayWorkflowConnectionError, match=message):
        connect(extra).settings  # noqa: B018


def test_a_host_is_refused(connect):
    with pytest.raises(RayWorkflowConnectionError, match="'http://ray:8265', and remote Ray clus"):
        connect(host="http://ray:8265").settings  # noqa: B018


@pytest.mark.parametrize("storage", ["relative/path", "nonsense://bucket"])
def test_a_storage_that_can_not_be_used_is_refused(connect, storage: str):
    with pytest.raises(RayWorkflowConnectionError, match=f"'ray_workflow_default': .*{storage}"):
        connect({"storage": storage}).store  # noqa: B018


def test_a_storage_that_can_not_be_written_is_refused(connect, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RayWorkflowStorageError, match="can't be written"):
        connect({"storage": f"{tmp_path}/file/below"}).check_storage()


def record(manager_id: str = "m", status=WorkflowStatus.RUNNING) -> StatusRecord:
    return StatusRecord(
        workflow_id="w", status=status, epoch=1, number=0, manager_id=manager_id, created_at=0
    )


def lease(*, renewed_at: float) -> Lease:
    return Lease(manager_id="m", actor_id="a", process=Process.current(), renewed_at=renewed_at)


def test_a_workflow_is_found_with_its_honest_status(connect, tmp_path):
    hook = connect({"storage": str(tmp_path)})
    assert hook.find("w") is None
    hook.store.write_status(record())
    hook.store.write_lease(lease(renewed_at=time.time()))
    found = hook.find("w")
    assert (found.status, found.has_lost_owner) == (WorkflowStatus.RUNNING, False)
    hook.store.write_lease(lease(renewed_at=time.time() - 60))
    found = hook.find("w")
    assert (found.status, found.has_lost_owner) == (WorkflowStatus.RESUMABLE, True)
    assert found.record.status is WorkflowStatus.RUNNING


def test_a_workflow_whose_data_is_damaged_is_an_error_of_the_storage(connect, tmp_path):
    hook = connect({"storage": str(tmp_path)})
    hook.store.write_status(record())
    (document,) = tmp_path.glob("v1/status/*/*")
    document.write_text("{")
    with pytest.raises(RayWorkflowStorageError, match="status of workflow 'w' can't be read"):
        hook.find("w")


def test_test_connection_says_what_works(connect, tmp_path):
    works, message = connect({"storage": str(tmp_path)}).test_connection()
    assert works, message
    assert "Ray 2." in message
    assert str(tmp_path) in message


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"storage": "/proc/nothing/here"}, "can't be written"),
        ({"storage": "relative"}, "can't be used"),
        ({"unknown": 1}, "unknown extra"),
    ],
)
def test_test_connection_never_raises(connect, extra: dict, message: str):
    works, said = connect(extra).test_connection()
    assert not works
    assert message in said
