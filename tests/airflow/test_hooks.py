"""The connection says where Ray runs and where workflows are stored, and nothing unknown."""

import json
import os
import socket
import time
from dataclasses import replace
from urllib.parse import urlsplit

import fsspec
import pytest
import ray
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.clusters.hosts import location_for_ray
from airflow_provider_rayworkflow.connection.object_storage import filesystem_of
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowConnectionError,
    RayWorkflowStorageError,
)
from airflow_provider_rayworkflow.hooks import ConnectionSettings, RayWorkflowHook
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.runtime.locations import open_location
from airflow_provider_rayworkflow.workflow.storage.leases import Lease, Process
from airflow_provider_rayworkflow.workflow.testing import in_process


@pytest.fixture
def connect(monkeypatch):
    """Define the default connection, and return its hook."""

    def define(extra=None, uri: str | None = None, **fields) -> RayWorkflowHook:
        connection = {"conn_type": "ray_workflow", "extra": extra or {}, **fields}
        monkeypatch.setenv("AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT", uri or json.dumps(connection))
        return RayWorkflowHook()

    return define


def test_a_default_connection_that_does_not_exist_is_the_local_ray(monkeypatch):
    monkeypatch.delenv("RAY_WORKFLOW_STORAGE", raising=False)
    hook = RayWorkflowHook()
    assert hook.settings == ConnectionSettings()
    assert hook.storage_uri == "/tmp/ray/workflow_data"


def test_any_other_connection_that_does_not_exist_is_an_error():
    with pytest.raises(AirflowNotFoundException, match="my_cluster"):
        RayWorkflowHook("my_cluster").settings  # noqa: B018


def test_a_connection_gives_its_extras(connect):
    size = {"num_cpus": 2, "num_gpus": 0, "object_store_memory_mb": 300}
    hook = connect({"storage": "/data", "local_idle_s": 0} | size)
    assert hook.settings == ConnectionSettings(storage="/data", local_idle_s=0, **size)


@pytest.mark.parametrize(
    "given", [{"SUCCESSFUL": 30, "FAILED": 1.5}, '{"SUCCESSFUL": 30, "FAILED": 1.5}']
)
def test_a_retention_is_an_object_or_its_json_as_the_form_gives_it(connect, given):
    assert connect({"retention": given}).settings.retention == {"SUCCESSFUL": 30, "FAILED": 1.5}
    assert connect({"retention": ""}).settings.retention == {}


def test_how_long_the_local_ray_stays_may_stand_as_the_form_gives_it(connect):
    assert connect(REMOTE | {"local_idle_s": 120}, host="https://h").settings.local_idle_s == 120


def test_the_signing_secret_is_that_of_the_process(connect, monkeypatch):
    monkeypatch.setenv("RAY_WORKFLOW_SIGNING_KEY", "")  # put back afterwards
    monkeypatch.delenv("RAY_WORKFLOW_SIGNING_KEY")
    hook = connect({"storage": "/data", "signing_secret": "s3cr3t"})
    assert "s3cr3t" not in repr(hook.settings)
    hook.use_signing_secret()
    hook.use_signing_secret()
    assert os.environ["RAY_WORKFLOW_SIGNING_KEY"] == "s3cr3t"
    with pytest.raises(RayWorkflowConnectionError, match="has another one"):
        connect({"signing_secret": "other"}).use_signing_secret()


def test_a_connection_with_a_signing_secret_believes_no_status_that_is_not_signed(
    connect, monkeypatch, tmp_path
):
    """In a process that serves many connections, as the triggerer and the API server do."""
    monkeypatch.setenv("RAY_WORKFLOW_SIGNING_KEY", "")
    connect({"storage": str(tmp_path)}).store.write_status(record())
    hook = connect({"storage": str(tmp_path), "signing_secret": "new, s3cr3t"})
    with pytest.raises(RayWorkflowStorageError, match="not signed"):
        hook.find("w")
    assert hook.list_ids(set(WorkflowStatus)) == {}
    hook.store.write_status(record())
    assert connect({"storage": str(tmp_path), "signing_secret": "new"}).find("w") is not None
    assert hook.list_ids(set(WorkflowStatus)) == {"w": 1}


def test_without_a_signing_secret_the_environment_stays_as_it_is(connect, monkeypatch):
    monkeypatch.setenv("RAY_WORKFLOW_SIGNING_KEY", "of the environment")
    connect({"storage": "/data"}).use_signing_secret()
    assert os.environ["RAY_WORKFLOW_SIGNING_KEY"] == "of the environment"


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
        (
            {"stoarge": "/data"},
            "unknown extra 'stoarge'. Known ones are \\['storage', 'storage_conn_id'",
        ),
        ({"storage": 5}, "storage=5; it must be a path or URI"),
        ({"num_cpus": 0}, "num_cpus=0; it must be a whole number of at least 1"),
        ({"num_cpus": 1.5}, "num_cpus=1.5; it must be a whole number"),
        ({"num_cpus": True}, "num_cpus=True; it must be a whole number"),
        ({"num_cpus": "two"}, "num_cpus='two'; it must be a whole number"),
        ({"object_store_memory_mb": 79}, "object_store_memory_mb=79; .* at least 80"),
        ({"num_gpus": -1}, "num_gpus=-1; it must be a whole number of at least 0"),
        ({"local_idle_s": -1}, "local_idle_s=-1; it must be a number of seconds of at least 0"),
        ({"local_idle_s": "soon"}, "local_idle_s='soon'; it must be a number of seconds"),
        (
            {"retention": {"RUNNING": 30}},
            r"retention=\{'RUNNING': 30\}; it must be a JSON object of days above 0 by status "
            r"\(SUCCESSFUL, FAILED, RESUMABLE, CANCELED\), such as",
        ),
        (
            {"retention": '{"FAILED": 0}'},
            r"retention='\{\"FAILED\": 0\}'; it must be a JSON object",
        ),
        ({"retention": 30}, "retention=30; it must be a JSON object of days"),
        ({"retention": "30 days"}, "retention='30 days'; it must be a JSON object of days"),
    ],
)
def test_extras_are_checked(connect, extra: dict, message: str):
    with pytest.raises(RayWorkflowConnectionError, match=message):
        connect(extra).settings  # noqa: B018


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
    hook.store.leases.write(lease(renewed_at=time.time()))
    found = hook.find("w")
    assert (found.status, found.has_lost_owner) == (WorkflowStatus.RUNNING, False)
    hook.store.leases.write(lease(renewed_at=time.time() - 60))
    # A reader of its own: one that has seen the lease change knows that its manager lives.
    found = connect({"storage": str(tmp_path)}).find("w")
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
    assert "is installed, for the local Ray of this machine" in message
    assert str(tmp_path) in message


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"storage": "/proc/nothing/here"}, "can't be written"),
        ({"storage": "relative"}, "can't be used"),
        ({"unknown": 1}, "unknown extra"),
        ({"retention": {"FAILED": -1}}, "retention={'FAILED': -1}; it must be a JSON object"),
    ],
)
def test_test_connection_never_raises(connect, extra: dict, message: str):
    works, said = connect(extra).test_connection()
    assert not works
    assert message in said


# ---- a connection to a cluster


REMOTE = {"storage": "s3://bucket/prefix"}


def test_a_host_is_a_cluster(connect):
    cluster = connect(REMOTE, host="http://ray-head", port=8265, password="t").settings.cluster
    assert cluster.address == "http://ray-head:8265"
    assert cluster.all_headers == {"Authorization": "Bearer t"}
    assert (cluster.verify, cluster.ca, cluster.timeout_s) == (True, None, 30.0)


@pytest.mark.parametrize(
    ("host", "port", "address"),
    [
        ("http://ray:8265", None, "http://ray:8265"),
        ("http://ray:8265", 8265, "http://ray:8265"),
        ("https://proxy/ray/", None, "https://proxy/ray"),
        ("https://[::1]", 8265, "https://[::1]:8265"),
    ],
)
def test_the_address_is_the_host_with_the_port(connect, host, port, address):
    assert connect(REMOTE, host=host, port=port).settings.cluster.address == address


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("ray-head", "'ray-head' does not begin with http:// or https://"),
        ("ray://head:10001", "does not begin with http://"),
        ("http://", "does not begin with http://"),
        ("http://user:hidden@ray:8265", "it has a user or password"),
        ("http://ray:8265?x=1", "it has a query"),
        ("http://ray:1", "it has the port 1, and the port field 8265"),
        ("http://ray:x", "it is no URL"),
    ],
)
def test_a_host_that_is_no_url_is_refused(connect, host: str, message: str):
    with pytest.raises(RayWorkflowConnectionError, match=message) as refused:
        connect(REMOTE, host=host, port=8265).settings  # noqa: B018
    assert "hidden" not in str(refused.value)


def test_a_cluster_needs_a_storage_of_its_own(connect, monkeypatch):
    monkeypatch.setenv("RAY_WORKFLOW_STORAGE", "/from/environment")
    with pytest.raises(RayWorkflowConnectionError, match="has a host and no storage"):
        connect(host="http://ray:8265").settings  # noqa: B018


def test_the_account_of_an_azure_storage_is_no_credential(connect):
    storage = "abfs://account@container/prefix"
    hook = connect({"storage": storage}, host="http://ray:8265")
    assert hook.settings.storage == storage


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("abfs://account@container/prefix", "container/prefix"),
        ("abfs://container@account.dfs.core.windows.net/prefix", "container/prefix"),
        ("s3://bucket/prefix", "bucket/prefix"),
    ],
)
@pytest.mark.usefixtures("other_connections")
def test_a_uri_names_the_same_folder_to_airflows_object_storage(uri: str, folder: str, monkeypatch):
    asked: list[str] = []

    class Files(fsspec.AbstractFileSystem):
        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            asked.append(path)
            return path

    monkeypatch.setattr("airflow.sdk.io.get_fs", lambda scheme, conn_id: Files())
    filesystem_of(f"{uri}?region=x", "files")
    container, _, host = urlsplit(asked[0]).netloc.partition("@")
    assert container + urlsplit(asked[0]).path == folder
    assert host in ("", "account.dfs.core.windows.net")


def test_a_clusters_storage_may_not_have_credentials(connect):
    with pytest.raises(RayWorkflowConnectionError, match="has credentials in its storage") as error:
        connect({"storage": "s3://key:hidden@bucket"}, host="http://ray").settings  # noqa: B018
    assert "hidden" not in str(error.value)


def test_headers_and_certificates_are_taken(connect):
    settings = connect(
        REMOTE | {"headers": '{"X-Key": "v"}', "verify": False, "timeout_s": 2.5},
        host="https://ray",
    ).settings
    assert settings.cluster.all_headers == {"X-Key": "v"}
    assert settings.cluster.verify is False
    assert settings.cluster.timeout_s == 2.5
    assert "v" not in repr(settings.cluster).split("X-Key")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"verify": "maybe"}, "verify='maybe'; it must be true or false"),
        ({"headers": '{"a": 1, "b": "hidden"}'}, r"headers=\*\*\*; it must be a JSON object of"),
        ({"headers": "{hidden"}, r"headers=\*\*\*; it must be a JSON object"),
        ({"timeout_s": 0}, "timeout_s=0; it must be a number of seconds"),
        ({"timeout_s": True}, "timeout_s=True; it must be a number of seconds"),
        ({"ca": "/no/such/file"}, "ca='/no/such/file', which can't be used"),
        ({"namespace": 1}, "namespace=1; it must be text"),
    ],
)
def test_extras_of_a_cluster_are_checked(connect, extra: dict, message: str):
    with pytest.raises(RayWorkflowConnectionError, match=message) as error:
        connect(REMOTE | extra, host="https://ray").settings  # noqa: B018
    assert "hidden" not in str(error.value)


def test_test_connection_says_what_of_a_cluster_does_not_work(connect, tmp_path):
    hook = connect({"storage": str(tmp_path), "timeout_s": 5}, host="http://127.0.0.1:9")
    works, said = hook.test_connection()
    assert not works
    assert said.startswith(
        "Ray: RayWorkflowUnreachableError: The Ray cluster at http://127.0.0.1:9"
    )
    assert f"Workflows can be read from {tmp_path}. Workflows can be written to" in said


@pytest.mark.timeout(60)
def test_test_connection_ends_in_time(connect, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hook = connect(
            {"storage": str(tmp_path), "timeout_s": 0.2},
            host=f"http://127.0.0.1:{silent.getsockname()[1]}",
        )
        works, said = hook.test_connection()
    assert not works
    assert "Ray: " in said


# ---- a storage with the credentials of another connection; of S3: test_object_storage.py


@pytest.fixture
def other_connections(monkeypatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_FILES", json.dumps({"conn_type": "fs"}))
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE", json.dumps({"conn_type": "google_cloud_platform"}))


@pytest.mark.usefixtures("other_connections")
def test_the_storage_is_reached_with_another_connection(connect, tmp_path):
    """Through Airflow's object storage, here of files: the one that needs no other provider."""
    hook = connect({"storage": f"file://{tmp_path}/root?region=x", "storage_conn_id": "files"})
    hook.check_storage()
    hook.store.write_status(record())
    assert list(tmp_path.glob("root/v1/status/w/*"))
    assert list(hook.list_ids(set(WorkflowStatus))) == ["w"]
    hook.store.write_status(replace(record(), workflow_id="v"))
    assert sorted(hook.list_ids(set(WorkflowStatus))) == ["v", "w"]
    works, said = hook.test_connection()
    assert works, said
    # A folder of this machine is a local storage, also by a connection: without that weakness.
    assert "file system can't create a file only if it is absent" not in said


@pytest.mark.usefixtures("other_connections")
def test_what_the_local_ray_is_given_reaches_the_same_storage(connect, tmp_path):
    hook = connect({"storage": f"file://{tmp_path}/root", "storage_conn_id": "files"})
    with in_process(open_location(location_for_ray(hook))):
        workflow.run(ray.remote(lambda: 5).bind(), workflow_id="w")
    assert hook.find("w").record.output.value == 5


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"storage_conn_id": "google"}, "has a storage_conn_id and no storage"),
        ({"storage": "/data", "storage_conn_id": "google"}, "goes with a URI such as s3://"),
        (
            {"storage": "gs://bucket/prefix", "storage_conn_id": "google"},
            "'gs://bucket/prefix' can't be opened with the connection 'google': .*"
            r"provider of that storage must be installed",
        ),
    ],
)
@pytest.mark.usefixtures("other_connections")
def test_a_storage_connection_that_can_not_be_used_is_refused(connect, extra: dict, message: str):
    with pytest.raises(RayWorkflowConnectionError, match=message):
        connect(extra).store  # noqa: B018


# ---- secrets, and what can be sent


@pytest.mark.parametrize("password", ["hidden-token\n", " hidden-token", "hidden-token\r\n\t"])
def test_a_token_is_sent_without_the_end_of_line_of_its_file(connect, password: str):
    cluster = connect(REMOTE, host="https://ray", password=password).settings.cluster
    assert cluster.all_headers == {"Authorization": "Bearer hidden-token"}


@pytest.mark.parametrize(
    "password",
    ["hid\nden", "hidd\u00e9n", "Bearer hidden", "hidden\0", "hid\x7fden"],
)
def test_a_token_that_can_not_be_sent_is_refused_without_the_value(connect, password: str):
    with pytest.raises(RayWorkflowConnectionError, match="can't be the cluster's token") as error:
        connect(REMOTE, host="https://ray", password=password).settings  # noqa: B018
    assert "hid" not in str(error.value)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Key": "hid\nden"},
        {"X-Key": "hidd\u00e9n"},
        {"X-Key": "hidden\0"},
        {"X Key": "hidden"},
        {"X-K\u00e9y": "hidden"},
        {"": "hidden"},
        {"X-Key:": "hidden"},
    ],
)
def test_a_header_that_can_not_be_sent_is_refused_without_the_value(connect, headers: dict):
    for given in (headers, json.dumps(headers)):
        with pytest.raises(RayWorkflowConnectionError, match=r"headers=\*\*\*") as error:
            connect(REMOTE | {"headers": given}, host="https://ray").settings  # noqa: B018
        assert "hid" not in str(error.value)


def test_two_tokens_are_one_too_many(connect):
    headers = {"authorization": "Bearer hidden"}
    assert connect(REMOTE | {"headers": headers}, host="https://ray").settings.cluster
    with pytest.raises(RayWorkflowConnectionError, match="a header Authorization") as error:
        connect(REMOTE | {"headers": headers}, host="https://ray", password="hid").settings  # noqa: B018
    assert "hid" not in str(error.value)


@pytest.mark.parametrize(
    ("extra", "fields"),
    [
        ({"storage": {"secret_key": "hidden"}}, {}),
        ({"storage_conn_id": ["hidden"]}, {}),
        ({"signing_secret": 5}, {}),
        ({"storage": "s3://key:hidden@bucket", "num_cpus": "x"}, {}),
        ({"storage": "/data"}, {"host": "user:hidden@ray:8265"}),
        ({"storage": "/data"}, {"host": "hidden@ray"}),
        ({"storage": "/data"}, {"login": "hidden", "host": "http://ray"}),
        ({"storage": "/data"}, {"password": "hidden"}),
    ],
)
def test_no_message_about_a_connection_has_a_secret(connect, extra: dict, fields: dict):
    hook = connect(extra, **fields)
    with pytest.raises(RayWorkflowConnectionError) as error:
        hook.settings  # noqa: B018
    assert "hidden" not in str(error.value)
    works, said = hook.test_connection()
    assert not works
    assert "hidden" not in said


def test_no_message_about_a_storage_has_its_secret(connect):
    for storage in ("nonsense://key:hidden@bucket", "s3://key:hidden@bucket?nonsense=1"):
        hook = connect({"storage": storage})
        with pytest.raises(RayWorkflowConnectionError) as error:
            hook.store  # noqa: B018
        assert "hidden" not in str(error.value)
        assert "hidden" not in repr(hook.settings)


# ---- each setting is honoured, or refused by its name


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        (
            "ray-workflow://https://:token@h:8265/ray/dash?storage=%2Fdata",
            "https://h:8265/ray/dash",
        ),
        ("ray-workflow://https://h:8265/ray?storage=%2Fdata", "https://h:8265/ray"),
        ("ray-workflow://https://h/ray/?storage=%2Fdata", "https://h/ray"),
        ("ray-workflow://https%3A%2F%2Fh%3A8265%2Fray?storage=%2Fdata", "https://h:8265/ray"),
    ],
)
def test_the_path_of_a_connection_that_is_a_uri_counts(connect, uri: str, address: str):
    assert connect(uri=uri).settings.cluster.address == address


def test_the_schema_is_the_path_behind_that_of_the_host(connect):
    hook = connect(REMOTE, host="https://h/proxy/", port=8265, schema="/ray/")
    assert hook.settings.cluster.address == "https://h:8265/proxy/ray"


@pytest.mark.parametrize(
    ("extra", "fields", "names"),
    [
        (REMOTE, {"host": "https://h", "login": "me"}, "login"),
        (REMOTE | {"num_cpus": 2}, {"host": "https://h"}, "num_cpus"),
        (REMOTE | {"object_store_memory_mb": 90}, {"host": "https://h"}, "object_store_memory_mb"),
        (REMOTE | {"num_gpus": 0}, {"host": "https://h"}, "num_gpus"),
        (REMOTE | {"local_idle_s": 0}, {"host": "https://h"}, "local_idle_s"),
        ({}, {"port": 8265, "schema": "ray", "login": "me"}, "login and schema and port"),
        ({}, {"password": "token"}, "password"),
        ({"verify": False}, {}, "verify"),
        ({"ca": "/ca.pem"}, {}, "ca"),
        ({"headers": {"A": "b"}}, {}, "headers"),
        ({"timeout_s": 5}, {}, "timeout_s"),
    ],
)
def test_a_setting_without_effect_is_refused_by_its_name(connect, extra, fields, names: str):
    with pytest.raises(RayWorkflowConnectionError, match=f"has no use for {names}\\."):
        connect(extra, **fields).settings  # noqa: B018


def test_extras_that_the_form_stores_by_itself_set_nothing(connect):
    hook = connect({"verify": True, "timeout_s": 30, "headers": "", "ca": None}, host="", port=None)
    assert hook.settings == ConnectionSettings()


@pytest.mark.parametrize("extra", ["{bad", "[1]", '"text"', "5"])
def test_an_extra_that_is_no_json_object_is_refused(monkeypatch, extra: str):
    from airflow.sdk import Connection

    given = Connection(conn_id="c", conn_type="ray_workflow", extra=extra)
    with pytest.raises(
        RayWorkflowConnectionError, match="an extra that is no JSON object"
    ) as error:
        ConnectionSettings.from_connection(given)
    assert "bad" not in str(error.value)


def test_a_variable_that_is_no_connection_is_not_taken_for_none(connect):
    """Airflow finds no connection then, and without one the workflow would run on this machine."""
    hook = connect(uri="ray-workflow://:hidden@https://h:8265/ray/dash")
    with pytest.raises(RayWorkflowConnectionError, match="AIRFLOW_CONN_RAY_WORKFLOW_DEF") as error:
        hook.settings  # noqa: B018
    assert "hidden" not in str(error.value)
