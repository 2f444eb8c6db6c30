"""What object stores do when they can't, or won't, do as they are told; and how often they are asked."""

import socket
import subprocess
import sys
import threading

import pytest
from proxy import Proxy
from pyarrow.fs import FileSystem, LocalFileSystem, SubTreeFileSystem
from servers import BUCKET, S3_KEY, S3_SECRET, s3_address

from airflow_provider_rayworkflow.workflow.exceptions import (
    DataLoadError,
    DataSaveError,
    StorageError,
)
from airflow_provider_rayworkflow.workflow.runtime.locations import open_location, to_location
from airflow_provider_rayworkflow.workflow.storage import open_store
from airflow_provider_rayworkflow.workflow.storage.backends.clients import store_on
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.backends.objects import ObjectStore
from airflow_provider_rayworkflow.workflow.storage.backends.retrying import RetryingStore


@pytest.fixture
def proxied(s3_proxy: Proxy) -> RetryingStore:
    """A store behind the proxy, which waits for nothing between tries."""
    store = open_store(s3_address(s3_proxy.port))
    store.check_writable()
    s3_proxy.counts.clear()
    return RetryingStore(store._store, deadline_s=20, sleep=lambda wait_s: None)


# ---- conditional writes


@pytest.mark.parametrize("uri", ["s3_uri", "azure_uri"])
def test_a_server_that_keeps_conditions_has_no_weakness(uri: str, request: pytest.FixtureRequest):
    store = open_store(request.getfixturevalue(uri))
    store.check_writable()
    assert store.weakness == ""


def test_a_server_that_ignores_conditions_is_found_out_at_once(weak_s3_uri: str):
    store = open_store(weak_s3_uri)
    store.check_writable()
    assert "Two clusters that claim the same workflow at the same moment" in store.weakness
    assert list(store.list("v1")) == []


def test_a_server_that_refuses_conditions_is_written_without(s3_port: int):
    with Proxy(s3_port) as proxy:
        store = open_store(s3_address(proxy.port))
        proxy.failures = [501]
        store.check_writable()
        assert "Two clusters" in store.weakness
        assert store.put_if_absent("v1/a", b"x") is True
        assert store.put_if_absent("v1/a", b"y") is False


def test_the_last_of_several_writers_at_once_wins_by_the_weaker_rule(weak_s3_uri: str):
    stores = [open_store(weak_s3_uri) for _ in range(3)]
    for store in stores:
        store.check_writable()
        store._store._settle_s = 1.0
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda s=s, i=i: results.append(s.put_if_absent("v1/a", b"%d" % i)))
        for i, s in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, False, True]


# ---- how a storage is named


def test_a_pyarrow_object_is_as_good_as_its_uri(s3_uri: str):
    filesystem = SubTreeFileSystem(*reversed(FileSystem.from_uri(s3_uri)))
    store = open_location(to_location(filesystem))
    store.put("v1/a", b"x")
    assert isinstance(store._store, ObjectStore)
    assert open_store(s3_uri).get("v1/a") == b"x"


def test_a_folder_of_this_machine_may_be_given_as_a_pyarrow_object(tmp_path):
    store = open_location(to_location(SubTreeFileSystem(str(tmp_path), LocalFileSystem())))
    assert store.put_if_absent("v1/a", b"x") is True
    assert (tmp_path / "v1/a").read_bytes() == b"x"
    store.check_writable()
    assert store.weakness == ""


def test_an_fsspec_file_system_may_be_given(tmp_path):
    from fsspec.implementations.dirfs import DirFileSystem
    from fsspec.implementations.local import LocalFileSystem as LocalFsspec

    store = open_location(to_location(DirFileSystem(str(tmp_path), LocalFsspec())))
    store.put("v1/a", b"x")
    assert (tmp_path / "v1/a").read_bytes() == b"x"
    assert [entry.key for entry in store.list("v1")] == ["v1/a"]


def test_keys_may_come_from_the_environment_or_the_users_aws_files(
    s3_port: int, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    uri = s3_address(s3_port).replace(s3_address(s3_port).split("@")[0], "s3://", 1)
    uri = "s3://" + uri.split("@", 1)[1]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "credentials"
    file.write_text(f"[default]\naws_access_key_id={S3_KEY}\naws_secret_access_key={S3_SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    open_store(uri).put("v1/a", b"x")
    file.unlink()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", S3_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", S3_SECRET)
    assert open_store(uri).get("v1/a") == b"x"


def test_the_whole_bucket_may_be_the_storage_and_the_endpoint_may_say_its_scheme(
    s3_port: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", S3_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", S3_SECRET)
    endpoint = f"http://127.0.0.1:{s3_port}"
    store = open_store(f"s3://{BUCKET}?region=us-east-1&endpoint_override={endpoint}")
    store.put("v1/whole/a", b"x")
    assert store.get("v1/whole/a") == b"x"
    assert [entry.key for entry in store.list("v1/whole")] == ["v1/whole/a"]
    store.delete(["v1/whole/a"])


# ---- what fails at once


@pytest.mark.parametrize("uri", ["s3_uri", "azure_uri"])
def test_a_bucket_that_is_not_there_fails_at_once(uri: str, request: pytest.FixtureRequest):
    store = open_store(request.getfixturevalue(uri).replace("@workflows/", "@no-such-bucket/"))
    with pytest.raises(
        DataSaveError, match=r"can't be written: .*(NoSuchBucket|ContainerNotFound)"
    ):
        store.check_writable()
    with pytest.raises(DataLoadError, match=r"NoSuchBucket|ContainerNotFound"):
        store.get("v1/a")
    with pytest.raises(DataLoadError, match=r"NoSuchBucket|ContainerNotFound"):
        list(store.list("v1"))


def test_wrong_keys_fail_at_once_and_are_not_repeated(s3_port: int):
    store = open_store(s3_address(s3_port, secret="wr/ong-secret"))
    for call in (
        store.check_writable,
        lambda: store.put("v1/a", b""),
        lambda: store.get("v1/a"),
        lambda: list(store.list("v1")),
        lambda: store.delete(["v1/a", "v1/b"]),
    ):
        with pytest.raises(StorageError, match="403 SignatureDoesNotMatch") as raised:
            call()
        assert not raised.value.is_transient
        assert "wr/ong" not in str(raised.value)


# ---- what is tried again


@pytest.mark.parametrize("failure", [500, 503, 429, 0])
def test_a_call_that_a_server_fails_to_answer_is_made_again(
    proxied: RetryingStore, s3_proxy: Proxy, failure: int
):
    for call, expected in (
        (lambda: proxied.put("v1/a", b"x"), None),
        (lambda: proxied.get("v1/a"), b"x"),
        (lambda: [entry.key for entry in proxied.list("v1")], ["v1/a"]),
        (lambda: proxied.delete(["v1/a"]), None),
    ):
        s3_proxy.failures = [failure, failure]
        assert call() == expected
        assert s3_proxy.failures == []


@pytest.mark.parametrize("failure", [503, 0])
def test_a_caller_hears_of_a_creation_whose_answer_was_lost(
    proxied: RetryingStore, s3_proxy: Proxy, failure: int
):
    s3_proxy.failures = [failure]
    assert proxied.put_if_absent("v1/a", b"mine") is True
    s3_proxy.failures = [failure]
    assert proxied.put_if_absent("v1/a", b"another's") is False
    assert proxied.get("v1/a") == b"mine"


def test_a_server_that_says_nothing_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        location = s3_address(silent.getsockname()[1])
        store = store_on(*FileSystem.from_uri(location), location=location, silence_s=0.3)
        assert isinstance(store, ObjectStore)
        store = RetryingStore(store, deadline_s=1, sleep=lambda wait_s: None)
        for call in (
            lambda: store.put("v1/a", b""),
            lambda: store.get("v1/a"),
            lambda: list(store.list("v1")),
        ):
            with pytest.raises(StorageError) as raised:
                call()
            assert raised.value.is_transient


def test_waits_double_up_to_five_seconds_and_end_at_the_deadline():
    waits: list[float] = []
    now = [0.0]

    class Overloaded(MemoryStore):
        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            raise DataLoadError("overloaded", is_transient=True)

    def sleep(wait_s: float) -> None:
        waits.append(wait_s)
        now[0] += wait_s

    store = RetryingStore(Overloaded(), sleep=sleep, clock=lambda: now[0])
    with pytest.raises(DataLoadError, match="overloaded"):
        store.get("v1/a")
    assert 55 < now[0] < 60
    limits = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, *[5.0] * (len(waits) - 6)]
    assert all(top / 2 <= wait <= top for wait, top in zip(waits, limits, strict=True))


def test_a_call_that_can_not_work_a_moment_later_is_not_made_again():
    calls = []

    class Full(MemoryStore):
        def put(self, key: str, data: object) -> None:
            calls.append(key)
            raise DataSaveError("No space left on device")

    with pytest.raises(DataSaveError, match="No space left"):
        RetryingStore(Full()).put("v1/a", b"")
    assert calls == ["v1/a"]


# ---- how often it is asked


def test_each_call_is_one_request(proxied: RetryingStore, s3_proxy: Proxy):
    proxied.put("v1/a", b"x")
    proxied.put_if_absent("v1/b", b"x")
    proxied.put_if_absent("v1/b", b"x")
    assert s3_proxy.counts == {"PUT": 3}
    s3_proxy.counts.clear()
    proxied.get("v1/a")
    proxied.get("v1/a", 0, 1)
    list(proxied.list("v1"))
    assert s3_proxy.counts == {"GET": 2, "LIST": 1}


def test_a_thousand_objects_are_deleted_by_one_request(proxied: RetryingStore, s3_proxy: Proxy):
    for number in range(12):
        proxied.put(f"v1/f/{number}", b"x")
    s3_proxy.counts.clear()
    proxied.delete_folder("v1/f")
    assert s3_proxy.counts == {"LIST": 1, "DELETE MANY": 1}
    proxied.delete(f"v1/f/{number}" for number in range(2500))
    assert s3_proxy.counts == {"LIST": 1, "DELETE MANY": 4}


def test_a_server_without_bulk_deletion_is_asked_for_each(proxied: RetryingStore, s3_proxy: Proxy):
    for number in range(3):
        proxied.put(f"v1/f/{number}", b"x")
    s3_proxy.counts.clear()
    s3_proxy.failures = [501]
    proxied.delete([f"v1/f/{number}" for number in range(3)])
    assert s3_proxy.counts == {"DELETE MANY": 1, "DELETE": 3}
    assert list(proxied.list("v1")) == []


def test_a_large_object_is_uploaded_in_parts(proxied: RetryingStore, s3_proxy: Proxy):
    data = bytes(20_000_000)
    proxied.put("v1/a", [b"head", data])
    assert proxied.get("v1/a") == b"head" + data
    assert s3_proxy.counts == {"POST": 2, "PUT": 3, "GET": 1}


# ---- processes


def test_a_forked_process_says_that_it_can_not_go_on_instead_of_waiting_for_ever(s3_uri: str):
    program = f"""
import os
from airflow_provider_rayworkflow.workflow.storage import open_store
open_store({s3_uri!r}).put("v1/a", b"x")
pid = os.fork()
if pid == 0:
    try:
        open_store({s3_uri!r}).get("v1/a")
    except Exception as exc:
        print(exc, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert b"This process was forked" in done.stdout
