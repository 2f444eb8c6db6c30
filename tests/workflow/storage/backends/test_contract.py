"""What every implementation of :class:`ByteStore` keeps to, and what only files do."""

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow.fs import (
    FileSystem,
    FSSpecHandler,
    LocalFileSystem,
    PyFileSystem,
    S3FileSystem,
    SubTreeFileSystem,
)
from servers import BUCKET, S3_KEY, S3_SECRET

from airflow_provider_rayworkflow.workflow.exceptions import (
    DataLoadError,
    DataSaveError,
    KeyNotFoundError,
    StorageError,
)
from airflow_provider_rayworkflow.workflow.storage import (
    open_filesystem,
    open_store,
    resolve_storage,
)
from airflow_provider_rayworkflow.workflow.storage.backends.arrow import ArrowStore
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.backends.measured import MeasuredStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import (
    ByteStore,
    Data,
    Entry,
    Put,
    buffers,
)
from airflow_provider_rayworkflow.workflow.storage.keys import quote_id

#: Each back end, and the fixture that makes an empty one.
STORES = {
    "memory": "memory_store",
    "local": "local_store",
    "measured": "measured_store",
    "pyarrow": "arrow_store",
    "fsspec": "fsspec_store",
    "s3": "s3_store",
    "s3 without conditions": "s3_store_without_conditions",
    "s3 by pyarrow": "s3_store_by_pyarrow",
    "s3 by fsspec": "s3_store_by_fsspec",
    "azure": "azure_store",
    "gcs by pyarrow": "gcs_store",
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> ByteStore:
    return request.getfixturevalue(STORES[request.param])


@pytest.fixture
def memory_store() -> ByteStore:
    return MemoryStore()


@pytest.fixture
def local_store(tmp_path: Path) -> ByteStore:
    return LocalStore(tmp_path / "root")


@pytest.fixture
def measured_store(tmp_path: Path) -> ByteStore:
    return MeasuredStore(LocalStore(tmp_path / "root"), lambda write: None)


@pytest.fixture
def arrow_store(tmp_path: Path) -> ByteStore:
    return ArrowStore(LocalFileSystem(), str(tmp_path / "root"), location="", settle_s=0)


@pytest.fixture
def fsspec_store(tmp_path: Path) -> ByteStore:
    filesystem = PyFileSystem(FSSpecHandler(fsspec.filesystem("file")))
    return ArrowStore(filesystem, str(tmp_path / "root"), location="", settle_s=0)


@pytest.fixture
def s3_store(s3_uri: str) -> ByteStore:
    return open_store(s3_uri)


@pytest.fixture
def s3_store_without_conditions(weak_s3_uri: str) -> ByteStore:
    return with_settling(open_store(weak_s3_uri), 0)


@pytest.fixture
def s3_store_by_pyarrow(s3_uri: str) -> ByteStore:
    return ArrowStore(*FileSystem.from_uri(s3_uri), location="", settle_s=0)


@pytest.fixture
def s3_store_by_fsspec(s3_port: int) -> ByteStore:
    s3 = fsspec.filesystem(
        "s3",
        key=S3_KEY,
        secret=S3_SECRET,
        endpoint_url=f"http://127.0.0.1:{s3_port}",
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    filesystem, root = PyFileSystem(FSSpecHandler(s3)), f"{BUCKET}/{uuid.uuid4().hex}"
    return with_settling(open_filesystem(filesystem, root, location=""), 0)


@pytest.fixture
def azure_store(azure_uri: str) -> ByteStore:
    return open_store(azure_uri)


@pytest.fixture
def gcs_store(gcs_uri: str) -> ByteStore:
    return ArrowStore(*FileSystem.from_uri(gcs_uri), location="", settle_s=0)


def with_settling(store: ByteStore, settle_s: float) -> ByteStore:
    store._store._settle_s = settle_s
    return store


def keys(store: ByteStore, folder: str) -> list[str]:
    return sorted(entry.key for entry in store.list(folder))


class TestEveryStore:
    def test_an_object_that_was_put_is_got(self, store: ByteStore):
        store.put("v1/a", b"\x00\xffabc")
        assert store.get("v1/a") == b"\x00\xffabc"

    def test_an_object_may_be_empty(self, store: ByteStore):
        store.put("v1/a", b"")
        assert store.get("v1/a") == b""
        assert list(store.list("v1")) == [Entry("v1/a", 0)]
        assert store.put_if_absent("v1/a", b"x") is False

    def test_several_are_put_at_once(self, store: ByteStore):
        store.put("v1/there", b"before")
        puts = [
            Put("v1/a", b"a"),
            Put("v1/folder/b", [b"b", b"c"]),
            Put("v1/there", b"after", must_be_new=True),
            Put("v1/new", b"new", must_be_new=True),
        ]
        store.put_all(puts)
        assert [put.error for put in puts] == [None] * 4
        assert [put.is_new for put in puts] == [True, True, False, True]
        assert [store.get(put.key) for put in puts] == [b"a", b"bc", b"before", b"new"]

    @pytest.mark.parametrize(
        "data",
        [
            b"abc",
            bytearray(b"abc"),
            memoryview(b"abc"),
            [b"a", bytearray(b"b"), memoryview(b"c")],
            (b"", b"abc", b""),
            [memoryview(b"xabcx")[1:4]],
        ],
        ids=["bytes", "bytearray", "memoryview", "several", "empty parts", "slice"],
    )
    def test_data_may_be_one_buffer_or_several(self, store: ByteStore, data):
        store.put("v1/a", data)
        assert store.put_if_absent("v1/b", data) is True
        assert store.get("v1/a") == store.get("v1/b") == b"abc"

    def test_an_object_that_was_put_does_not_change_with_its_buffer(self, store: ByteStore):
        data = bytearray(b"abc")
        store.put("v1/a", data)
        store.put_if_absent("v1/b", data)
        data[:] = b"xyz"
        assert store.get("v1/a") == store.get("v1/b") == b"abc"

    def test_ten_thousand_buffers_are_written_in_their_order(self, store: ByteStore):
        parts = [number.to_bytes(4, "big") for number in range(10_000)]
        store.put("v1/a", parts)
        assert store.get("v1/a") == b"".join(parts)

    def test_a_large_object_comes_back_whole(self, store: ByteStore):
        data = os.urandom(3_000_000)
        store.put("v1/a", [data, data])
        assert store.get("v1/a") == data + data

    @pytest.mark.parametrize(
        ("start", "length", "expected"),
        [
            (0, None, b"0123456789"),
            (3, None, b"3456789"),
            (3, 4, b"3456"),
            (0, 0, b""),
            (8, 100, b"89"),
            (10, 1, b""),
            (100, None, b""),
        ],
    )
    def test_a_range_is_what_lies_in_it(
        self, store: ByteStore, start: int, length: int | None, expected: bytes
    ):
        store.put("v1/a", b"0123456789")
        assert store.get("v1/a", start, length) == expected

    def test_a_put_replaces_the_object_whole(self, store: ByteStore):
        store.put("v1/a", b"a long one")
        store.put("v1/a", b"short")
        assert store.get("v1/a") == b"short"

    def test_put_if_absent_leaves_what_is_there(self, store: ByteStore):
        assert store.put_if_absent("v1/a", b"first") is True
        assert store.put_if_absent("v1/a", b"second") is False
        assert store.put_if_absent("v1/a", b"first") is False
        assert store.get("v1/a") == b"first"

    def test_put_if_absent_writes_after_a_delete(self, store: ByteStore):
        store.put_if_absent("v1/a", b"first")
        store.delete(["v1/a"])
        assert store.put_if_absent("v1/a", b"second") is True

    @pytest.mark.parametrize("content", ["the same", "their own"])
    @pytest.mark.invariant(3, 5)
    def test_of_sixteen_racing_callers_exactly_one_writes(self, store: ByteStore, content: str):
        store.check_writable()
        if store.weakness:
            pytest.skip(store.weakness)
        is_near = isinstance(store, (MemoryStore, LocalStore))
        for number in range(20 if is_near else 1):
            key = f"v1/race{number}/a"
            data = [
                b"x" if content == "the same" else b"%d" % i for i in range(16 if is_near else 5)
            ]
            won = race([lambda k=key, d=d: store.put_if_absent(k, d) for d in data])
            assert sum(won) == 1
            assert store.get(key) == data[won.index(True)]

    def test_a_reader_sees_the_old_object_or_the_new_one_whole(self, store: ByteStore):
        contents = [bytes([letter]) * 100_000 for letter in b"ab"]
        store.put("v1/a", contents[0])
        seen: set[bytes] = set()

        def write() -> None:
            for number in range(20):
                store.put("v1/a", contents[number % 2])

        def read() -> None:
            for _ in range(60):
                seen.add(store.get("v1/a"))
                assert [entry.size for entry in store.list("v1")] == [100_000]

        race([write, read, read, read])
        assert seen <= set(contents)

    def test_racing_writers_in_one_new_folder_all_write(self, store: ByteStore):
        race([lambda i=i: store.put(f"v1/new/folder/{i}", b"x") for i in range(16)])
        assert len(keys(store, "v1/new/folder")) == 16

    def test_an_object_that_is_not_there_is_named(self, store: ByteStore):
        with pytest.raises(KeyNotFoundError, match="'v1/a'") as raised:
            store.get("v1/a")
        assert raised.value.key == "v1/a"
        assert isinstance(raised.value, StorageError)
        assert isinstance(raised.value, KeyError)

    @pytest.mark.parametrize("size", [0, 5, 3_000_000])
    def test_a_copy_holds_the_same_and_outlives_its_source(self, store: ByteStore, size: int):
        store.put("a/source", b"x" * size)
        store.put("b/there", b"old")
        for target in ("b/new", "b/there", "b/new"):
            store.copy("a/source", target)
        assert {entry.size for entry in store.list("b")} == {size}
        store.put("a/source", b"another")
        store.delete(["a/source"])
        assert store.get("b/new") == store.get("b/there") == b"x" * size
        assert sorted(entry.key for entry in store.list("b")) == ["b/new", "b/there"]

    def test_a_copy_of_nothing_is_an_error(self, store: ByteStore):
        with pytest.raises(KeyNotFoundError, match="a/source"):
            store.copy("a/source", "b/target")
        assert list(store.list("b")) == []

    def test_a_listing_has_all_objects_below_a_folder_with_their_sizes(self, store: ByteStore):
        for key, data in {"v1/a": b"1", "v1/f/b": b"22", "v1/f/g/c": b"333", "v2/d": b""}.items():
            store.put(key, data)
        listed = sorted(store.list("v1"), key=lambda entry: entry.key)
        assert listed == [Entry("v1/a", 1), Entry("v1/f/b", 2), Entry("v1/f/g/c", 3)]
        assert list(store.list("v1/f/g")) == [Entry("v1/f/g/c", 3)]

    def test_a_folder_that_begins_like_another_is_another(self, store: ByteStore):
        store.put("v1/f/a", b"")
        store.put("v1/f2/a", b"")
        assert keys(store, "v1/f") == ["v1/f/a"]
        store.delete_folder("v1/f")
        assert store.get("v1/f2/a") == b""

    def test_a_folder_that_does_not_exist_is_empty(self, store: ByteStore):
        assert list(store.list("v1/nothing")) == []
        store.put("v1/a", b"")
        assert list(store.list("v1/a")) == []
        assert list(store.list("v1/nothing/below")) == []

    def test_objects_may_come_and_go_during_a_listing(self, store: ByteStore):
        all_keys = [f"v1/{number:03d}/a" for number in range(30)]
        for key in all_keys:
            store.put(key, b"x")
        listed = []
        for entry in store.list("v1"):
            listed.append(entry.key)
            if len(listed) == 1:
                store.delete(all_keys)
                store.put("v1/late/a", b"")
        assert set(listed) <= {*all_keys, "v1/late/a"}

    def test_a_deleted_object_is_gone(self, store: ByteStore):
        for name in "abc":
            store.put(f"v1/{name}", b"")
        store.delete(["v1/a", "v1/c"])
        assert keys(store, "v1") == ["v1/b"]

    def test_an_object_that_is_not_there_may_be_deleted(self, store: ByteStore):
        store.delete(["v1/a", "v1/nothing/b"])
        store.delete([])
        store.delete_folder("v1/nothing")

    def test_an_object_that_a_listing_gives_may_be_deleted_on_the_way(self, store: ByteStore):
        for number in range(20):
            store.put(f"v1/f/{number}", b"")
        store.delete(entry.key for entry in store.list("v1/f"))
        assert keys(store, "v1") == []

    def test_a_deleted_folder_is_gone_with_all_below_and_may_be_made_again(self, store: ByteStore):
        for key in ("v1/f/a", "v1/f/g/b", "v1/h/c"):
            store.put(key, b"")
        store.delete_folder("v1/f")
        assert keys(store, "v1") == ["v1/h/c"]
        store.put("v1/f/g/b", b"again")
        assert store.put_if_absent("v1/f/a", b"again") is True
        assert store.get("v1/f/g/b") == b"again"

    @pytest.mark.parametrize(
        "name",
        [
            "a b",
            "é",
            "e\u0301",
            "東京🚀",
            "quote'\"quote",
            "$HOME;`ls`",
            "%00%2f",
            "-rf",
            "con",
            "a..b",
            "x" * 200,
        ],
    )
    def test_a_name_may_have_odd_characters(self, store: ByteStore, name: str):
        store.put(f"v1/{name}/{name}", b"x")
        assert store.get(f"v1/{name}/{name}") == b"x"
        assert keys(store, "v1") == keys(store, f"v1/{name}") == [f"v1/{name}/{name}"]
        store.delete([f"v1/{name}/{name}"])
        assert keys(store, "v1") == []

    def test_a_store_that_can_be_written_says_so_and_stays_empty(self, store: ByteStore):
        store.check_writable()
        store.put("v1/a", b"")
        store.check_writable()
        assert keys(store, "v1") == ["v1/a"]

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(text=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=255))
    def test_every_workflow_id_makes_a_name_that_a_store_takes(self, store: ByteStore, text: str):
        key = f"v1/{quote_id(text)}/a"
        store.put(key, b"x")
        assert keys(store, f"v1/{quote_id(text)}") == [key]


def race(functions: list[Callable[[], object]]) -> list[object]:
    """Call all at the same moment, each in a thread of its own; their results in this order."""
    barrier = threading.Barrier(len(functions))
    results: list[object] = [None] * len(functions)

    def call(index: int) -> None:
        barrier.wait()
        try:
            results[index] = functions[index]()
        except BaseException as exc:
            results[index] = exc

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


# ---- files only


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "root")


def test_a_local_store_is_opened_again_by_its_uri(tmp_path: Path):
    root = tmp_path / "a b%20é"
    open_store(str(root)).put("v1/a", b"x")
    assert open_store(open_store(str(root)).uri).get("v1/a") == b"x"
    assert open_store(f"file://{tmp_path}/other").uri == f"{tmp_path}/other"


def test_an_object_store_without_a_bucket_is_refused():
    s3 = S3FileSystem(region="eu-central-1", anonymous=True)
    for filesystem in (s3, SubTreeFileSystem("/", s3)):
        with pytest.raises(ValueError, match="no bucket"):
            open_filesystem(filesystem, "", location="given")


@pytest.mark.parametrize(
    "uri",
    [
        *("relative/path", "", "ftp://host/x", "file://elsewhere/x"),
        *("s3://", "s3://?region=eu-central-1", "gs://", "/a\0b", "/a\ud800"),
        *("file:///a?b=1", "file:///a#b", "FILE:/a?b"),
    ],
)
def test_a_storage_that_can_not_be_is_refused_with_its_uri(uri: str):
    with pytest.raises(ValueError, match="can't be used") as raised:
        open_store(uri)
    assert repr(uri) in str(raised.value)


def test_the_argument_goes_before_the_environment_and_that_before_the_default(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("RAY_WORKFLOW_STORAGE", raising=False)
    assert resolve_storage(None) == "/tmp/ray/workflow_data"
    monkeypatch.setenv("RAY_WORKFLOW_STORAGE", "/from/environment")
    assert resolve_storage(None) == "/from/environment"
    assert resolve_storage("/given") == "/given"


def test_opening_a_store_writes_nothing(tmp_path: Path):
    open_store(str(tmp_path / "root"))
    assert list(tmp_path.iterdir()) == []


def test_two_stores_on_one_folder_are_one(tmp_path: Path):
    one, other = LocalStore(tmp_path), LocalStore(tmp_path)
    won = race([lambda s=s: s.put_if_absent("v1/f/a", b"x") for s in (one, other) * 8])
    assert sum(won) == 1
    one.delete_folder("v1/f")
    other.put("v1/f/b", b"y")  # its folder has gone since it made it
    assert one.get("v1/f/b") == b"y"


def test_a_local_copy_is_another_name_for_the_same_bytes(local: LocalStore, tmp_path: Path):
    local.put("a/source", b"x")
    local.copy("a/source", "b/target")
    assert len({path.stat().st_ino for path in tmp_path.rglob("*") if path.is_file()}) == 1
    assert not list(tmp_path.rglob("*.tmp"))


def test_where_files_have_one_name_only_a_local_copy_is_a_copy(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*args: object, **where: object) -> None:
        raise PermissionError("Operation not permitted")

    local.put("a/source", b"x")
    monkeypatch.setattr(os, "link", refuse)
    local.copy("a/source", "b/target")
    assert local.get("b/target") == b"x"


def test_an_unfinished_write_is_not_listed(local: LocalStore, tmp_path: Path):
    local.put("v1/f/a", b"x")
    (tmp_path / "root/v1/f/.4ca1.tmp").write_bytes(b"torn")
    (tmp_path / "root/v1/.hidden").mkdir()
    (tmp_path / "root/v1/.hidden/b").write_bytes(b"")
    assert keys(local, "v1") == ["v1/f/a"]


def test_nothing_else_stays_behind_a_write(local: LocalStore, tmp_path: Path):
    local.put("v1/a", b"x")
    local.put_if_absent("v1/b", b"x")
    local.put_if_absent("v1/b", b"y")
    local.check_writable()
    assert files_below(tmp_path) == ["root/v1/a", "root/v1/b"]


def test_a_write_that_fails_leaves_the_old_object_and_no_file(
    local: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    local.put("v1/a", b"old")
    for broken in ("fsync", "writev", "replace"):
        monkeypatch.setattr(os, broken, no_space_left)
        with pytest.raises(
            DataSaveError, match=r"Can't write 'v1/a' below .*No space left"
        ) as raised:
            local.put("v1/a", b"new")
        monkeypatch.undo()
        assert raised.value.key == "v1/a"
        assert local.get("v1/a") == b"old"
        assert files_below(tmp_path) == ["root/v1/a"]


def no_space_left(*args: object, **where: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_write_in_pieces_is_whole(local: LocalStore, monkeypatch: pytest.MonkeyPatch):
    write = os.writev

    def write_seven_bytes(descriptor: int, parts: list) -> int:
        taken, left = [], 7
        for part in parts:
            taken.append(part[:left])
            left -= len(taken[-1])
        return write(descriptor, taken)

    monkeypatch.setattr(os, "writev", write_seven_bytes)
    parts = [os.urandom(size) for size in (1, 20, 0, 3, 7, 14, 2)]
    local.put("v1/a", parts)
    assert local.get("v1/a") == b"".join(parts)


def test_the_object_is_synced_before_it_has_its_name(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch
):
    done: list[str] = []
    for name in ("fsync", "replace", "link"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, n=name, r=real, **k: (done.append(n), r(*a, **k))[1]
        )
    local.put("v1/a", b"")
    of_the_roots_parent = of_the_root = "fsync"
    assert done == [of_the_roots_parent, "fsync", "replace", "fsync", of_the_root]
    done.clear()
    local.put_if_absent("v1/b", b"")
    assert done == ["fsync", "link", "fsync"]


@pytest.mark.parametrize("root", ["a file", "below a file", "/proc/nowhere"])
def test_a_root_that_can_not_be_written_is_named_with_the_remedy(root: str, tmp_path: Path):
    (tmp_path / "a file").write_text("")
    path = {"a file": tmp_path / root, "below a file": tmp_path / "a file/x"}.get(root, Path(root))
    store = LocalStore(path)
    with pytest.raises(DataSaveError) as raised:
        store.check_writable()
    assert str(raised.value).startswith(f"The workflow storage {str(path)!r} can't be written: ")
    assert str(raised.value).endswith("Give a folder that this user may create and write.")
    with pytest.raises(DataSaveError, match="Can't write 'v1/a'"):
        store.put("v1/a", b"")
    assert list(store.list("v1")) == []


class Garbling(ArrowStore):
    """Its server keeps what belongs to the upload, as one has done with pyarrow's of S3."""

    def _write(self, path: str, data: Data) -> None:
        super()._write(path, [b"3\r\n", *buffers(data), b"\r\n0"])


def test_a_server_that_gives_back_other_bytes_is_refused(tmp_path: Path):
    store = Garbling(LocalFileSystem(), str(tmp_path), location="")
    with pytest.raises(DataSaveError, match="gives back other bytes than were written"):
        store.check_writable()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_root_without_the_right_to_write_is_refused(tmp_path: Path):
    root = tmp_path / "root"
    root.mkdir(mode=0o500)
    with pytest.raises(DataSaveError, match="Permission denied"):
        LocalStore(root).check_writable()


def test_a_path_that_can_not_be_read_or_listed_is_named(local: LocalStore):
    local.put("v1/f/a", b"")
    with pytest.raises(DataLoadError, match="Can't read 'v1/f'") as raised:
        local.get("v1/f")
    assert raised.value.key == "v1/f"
    too_long = "v1/" + "x" * 300
    with pytest.raises(DataLoadError, match="Can't list 'v1/xxx"):
        list(local.list(too_long))
    with pytest.raises(DataSaveError, match="File name too long"):
        local.put(f"{too_long}/a", b"")


def files_below(folder: Path) -> list[str]:
    return sorted(_files_below(folder, ""))


def _files_below(folder: Path, prefix: str) -> Iterator[str]:
    for path in folder.iterdir():
        name = f"{prefix}{path.name}"
        if path.is_dir():
            yield from _files_below(path, f"{name}/")
        else:
            yield name
