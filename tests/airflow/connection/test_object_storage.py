"""An S3 server reached with an AWS connection of Airflow's, by the Amazon provider; the cluster has keys of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import ray
from sample_records import status_record
from servers import BUCKET, S3_KEY, S3_SECRET, make_buckets, s3_address, seaweedfs

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.clusters.hosts import location_for_ray
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowConnectionError,
    RayWorkflowStorageError,
)
from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.runtime.locations import open_location
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store
from airflow_provider_rayworkflow.workflow.storage.mailbox import Mailbox, Owner
from airflow_provider_rayworkflow.workflow.testing import in_process

pytestmark = pytest.mark.airflow

Connect = Callable[..., RayWorkflowHook]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as port:
        make_buckets(port)
        yield port


@pytest.fixture
def connect(port: int, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """A hook whose storage is a bucket of the server, by the connection ``aws``."""

    def define(
        *, path: str = "w", bucket: str = BUCKET, secret: str = S3_SECRET, at: int = port
    ) -> RayWorkflowHook:
        aws = {"endpoint_url": f"http://127.0.0.1:{at}", "region_name": "us-east-1"}
        connection = {"conn_type": "aws", "login": S3_KEY, "password": secret, "extra": aws}
        monkeypatch.setenv("AIRFLOW_CONN_AWS", json.dumps(connection))
        extra = {"storage": f"s3://{bucket}/{path}?region=us-east-1", "storage_conn_id": "aws"}
        ours = json.dumps({"conn_type": "ray_workflow", "extra": extra})
        monkeypatch.setenv("AIRFLOW_CONN_RAY", ours)
        return RayWorkflowHook("ray", retry_for_s=1)

    return define


def record(workflow_id: str) -> StatusRecord:
    return status_record(WorkflowStatus.RESUMABLE, workflow_id)


def test_both_sides_see_what_the_other_has_written(connect: Connect, port: int):
    hook = connect(path="both")
    of_cluster = WorkflowStore(open_store(s3_address(port, path="both")))
    works, said = hook.test_connection()
    assert works, said
    owner = Owner(workflow_id="w", token="t", submission_id="s", since=1)
    of_cluster.write_status(record("v"))
    assert list(hook.list_ids(set(WorkflowStatus))) == ["v"]
    of_cluster.write_status(replace(record("w"), number=1))
    assert sorted(hook.list_ids(set(WorkflowStatus))) == ["v", "w"]
    hook.mailbox.take_over(owner)
    assert Mailbox(of_cluster.bytes).read_owner("w") == owner


def test_the_local_ray_is_given_the_same_storage(connect: Connect, port: int):
    hook = connect(path="local")
    assert hook.find("w") is None  # the clients are in use
    with in_process(open_location(location_for_ray(hook))):
        workflow.run(ray.remote(lambda: 5).bind(), workflow_id="w")
    found = hook.find("w")
    assert found is not None
    assert found.record.output.value == 5
    of_others = open_store(s3_address(port, path="local"))
    assert [entry for entry in of_others.list("v1/status/w") if "SUCCESSFUL" in entry.key]


def test_ray_is_not_given_what_the_client_has_read_of_aws(connect: Connect):
    """The storage's location goes to each Ray task; above 100 KiB Ray warns of the actor's arguments."""
    hook = connect(path="small")
    assert hook.find("w") is None  # two megabytes of AWS's services are loaded now
    assert len(location_for_ray(hook)) < 20_000


def test_a_bucket_that_is_not_there_is_named_and_not_made(connect: Connect):
    for _ in range(2):  # it would be there the second time
        with pytest.raises(RayWorkflowStorageError, match="The specified bucket does not exist"):
            connect(bucket="no-such-bucket").check_storage()
    hook = connect(bucket="no-such-bucket")
    for look in (lambda: hook.find("w"), lambda: list(hook.list_ids(set(WorkflowStatus)))):
        with pytest.raises(RayWorkflowStorageError, match="The specified bucket does not exist"):
            look()


def test_wrong_keys_fail_with_the_servers_reason(connect: Connect):
    hook = connect(secret="wrong")
    with pytest.raises(RayWorkflowStorageError, match="request signature we calculated"):
        hook.find("w")
    with pytest.raises(RayWorkflowStorageError, match="request signature we calculated"):
        hook.check_storage()


def test_a_server_that_can_not_be_reached_is_a_storage_that_fails(connect: Connect):
    """By an error of ours, after which waiters retry; the client's own one is no OSError."""
    with pytest.raises(RayWorkflowStorageError, match="Could not connect to the endpoint"):
        connect(at=9).find("w")


def test_a_connection_that_does_not_exist_is_refused(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
):
    """The Amazon provider would go on with the environment's keys, or without any."""
    hook = connect()
    monkeypatch.delenv("AIRFLOW_CONN_AWS")
    with pytest.raises(RayWorkflowConnectionError, match="'aws', which does not exist"):
        hook.find("w")
