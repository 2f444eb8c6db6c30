"""The index as documents: commits that race, readers with an older version, damage, signatures."""

import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noting_store import NotingStore

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    DataSaveError,
    KeyNotFoundError,
    UntrustedDataError,
)
from airflow_provider_rayworkflow.workflow.format.documents import dump_document, rest_sum
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore, Data
from airflow_provider_rayworkflow.workflow.storage.index import Index, Tree
from airflow_provider_rayworkflow.workflow.storage.index_keys import (
    INDEX_NODES,
    INDEX_ROOTS,
    index_node_key,
    index_root_key,
)
from airflow_provider_rayworkflow.workflow.storage.index_nodes import node_cache
from airflow_provider_rayworkflow.workflow.storage.keys import INDEX


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ByteStore:
    return MemoryStore() if request.param == "memory" else LocalStore(tmp_path / "root")


def status(value: Any) -> str:
    return value["status"]


def row(number: int, name: str = "SUCCESSFUL") -> dict[str, Any]:
    return {"segment": f"w{number}", "status": name}


def rows(*numbers: int, name: str = "SUCCESSFUL") -> dict[str, Any]:
    return {f"i/{number:06}": row(number, name) for number in numbers}


def index_on(store: ByteStore, **arguments: Any) -> Index:
    """As in a process that has read nothing yet."""
    return Index(store, tally=status, cache=node_cache(1_000_000), **arguments)


def loaded(store: ByteStore, **arguments: Any) -> Tree:
    tree = index_on(store, **arguments).load()
    assert tree is not None
    return tree


def names(store: ByteStore, folder: str) -> set[str]:
    return {entry.key for entry in store.list(folder)}


def reachable(tree: Tree, store: ByteStore) -> set[str]:
    """The keys of all nodes of a tree of three levels at most."""
    noting = Noting(store)
    again = index_on(noting).load()
    assert again is not None
    assert again.version == tree.version
    assert len([*again.scan()]) == sum(again.count().values())
    return {key for key in noting.read if key.startswith(INDEX_NODES)}


class Noting:
    """What is read of another store."""

    def __init__(self, store: ByteStore) -> None:
        self._store = store
        self.read: set[str] = set()

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self.read.add(key)
        return self._store.get(key, start, length)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_store_without_an_index_has_none(store: ByteStore):
    assert index_on(store).load() is None


def test_what_is_committed_is_read_by_others(store: ByteStore):
    index = index_on(store)
    assert index.commit(None, rows(*range(1_000)))
    assert index.commit(index.load(), rows(5, name="FAILED") | {"i/000006": None})
    tree = loaded(store)
    assert tree.version == 2
    assert tree.get("i/000005") == row(5, "FAILED")
    assert tree.get("i/000006") is None
    assert tree.get_all(["i/000005", "i/000006", "i/000999"]) == {
        "i/000005": row(5, "FAILED"),
        "i/000999": row(999),
    }
    assert [key for key, _ in tree.scan(low="i/000004", high="i/000008")] == [
        "i/000004",
        "i/000005",
        "i/000007",
    ]
    assert next(tree.scan(reverse=True)) == ("i/000999", row(999))
    assert tree.count() == {"SUCCESSFUL": 998, "FAILED": 1}
    assert tree.count(low="i/000005", high="i/000010") == {"SUCCESSFUL": 3, "FAILED": 1}


def test_an_empty_commit_makes_an_index_and_later_ones_no_version(store: ByteStore):
    index = index_on(store)
    assert index.commit(None, {})
    assert index.commit(index.load(), {"missing": None})
    tree = loaded(store)
    assert (tree.version, [*tree.scan()]) == (1, [])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.dictionaries(st.integers(0, 1_500), st.booleans(), max_size=400), max_size=6))
def test_no_document_is_left_that_the_last_two_versions_do_not_need(
    batches: list[dict[int, bool]],
):
    store, content = MemoryStore(), {}
    index = index_on(store)
    assert index.commit(None, rows(*range(0, 1_500, 2)))
    content = rows(*range(0, 1_500, 2))
    for batch in batches:
        tree = index.load()
        assert tree is not None
        before = reachable(tree, store)
        changes = {f"i/{n:06}": row(n) if stays else None for n, stays in batch.items()}
        assert index.commit(tree, changes)
        content = {k: v for k, v in {**content, **changes}.items() if v is not None}
        latest = loaded(store)
        assert dict(latest.scan()) == content
        if latest.version > tree.version:
            assert names(store, INDEX_NODES) <= before | reachable(latest, store)
        assert before <= names(store, INDEX_NODES)
        assert len(names(store, INDEX_ROOTS)) <= 2


def test_of_commits_that_race_one_wins_and_the_others_leave_nothing(store: ByteStore):
    assert index_on(store).commit(None, rows(*range(1_000)))
    trees = [(index_on(store), loaded(store)) for _ in range(6)]
    won: list[int] = []

    def commit(number: int) -> None:
        index, tree = trees[number]
        if index.commit(tree, rows(number, name="FAILED")):
            won.append(number)

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = won
    tree = loaded(store)
    assert [key for key, value in tree.scan() if value["status"] == "FAILED"] == [f"i/{winner:06}"]
    # The winner has replaced one leaf, which readers of the version before may need.
    assert len(names(store, INDEX_NODES) - reachable(tree, store)) == 1


def test_a_reader_loses_its_version_with_the_second_commit_after_it(store: ByteStore):
    index = index_on(store)
    index.commit(None, rows(*range(1_000)))
    reader = loaded(store)
    index.commit(index.load(), rows(0, name="FAILED"))
    assert len([*reader.scan()]) == 1_000
    reader = loaded(store)
    index.commit(index.load(), rows(999, name="FAILED"))
    assert reader.get("i/000000") == row(0, "FAILED")
    assert reader.get("i/000999") == row(999)
    index.commit(index.load(), rows(500, name="FAILED"))
    # Loaded before two commits, and without the node that the first of them has replaced.
    with pytest.raises(KeyNotFoundError):
        loaded_again(store, reader).get("i/000999")


def loaded_again(store: ByteStore, tree: Tree) -> Tree:
    """The same version in a process that has read no node."""
    return Tree(index_on(store).nodes, tree.root, tree.node)


def test_a_commit_that_took_long_does_not_count_where_its_place_is_free_again(store: ByteStore):
    index = index_on(store)
    index.commit(None, rows(*range(1_000)))
    late = index.load()
    for number in range(5):
        assert index.commit(index.load(), rows(number, name="FAILED"))
    before = names(store, INDEX)
    assert index_root_key(2) not in before
    # Of the nodes of its version, one that it needs is deleted, or none.
    assert not index_on(store).commit(late, rows(0, name="CANCELED"))
    assert not index.commit(late, rows(900, name="CANCELED"))
    tree = loaded(store)
    assert (tree.version, tree.get("i/000900")) == (6, row(900))
    assert index.commit(index.load(), rows(901, name="FAILED"))
    assert len(names(store, INDEX_ROOTS)) <= 2


def test_a_node_that_is_missing_in_the_latest_version_is_damage(store: ByteStore):
    key = stored(store)
    store.delete([key])
    with pytest.raises(CorruptedDataError, match=f"{key}.*missing"):
        index_on(store).commit(loaded(store), rows(0, name="FAILED"))


class Overtaken(MemoryStore):
    """After each write of a root, others commit before the writer goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.others: list[Callable[[], None]] = []

    def put_if_absent(self, key: str, data: Data) -> bool:
        is_new = super().put_if_absent(key, data)
        if self.others:
            self.others.pop()()
        return is_new


def test_a_commit_counts_if_the_next_one_goes_on_from_it():
    store = Overtaken()
    index = index_on(store)
    index.commit(None, rows(*range(1_000)))
    store.others.append(lambda: assert_commits(store, rows(2, name="FAILED")))
    assert index.commit(index.load(), rows(1, name="FAILED"))
    tree = loaded(store)
    assert (tree.version, tree.count()) == (3, {"SUCCESSFUL": 998, "FAILED": 2})


def assert_commits(store: ByteStore, changes: dict[str, Any]) -> None:
    index = index_on(store)
    assert index.commit(index.load(), changes)


class Weak(MemoryStore):
    """Two may create the same root: the last one has."""

    weakness = "Two managers may both win."

    def __init__(self) -> None:
        super().__init__()
        self.overwritten: bytes | None = None

    def put_if_absent(self, key: str, data: Data) -> bool:
        is_new = super().put_if_absent(key, data)
        if is_new and self.overwritten is not None:
            self.put(key, self.overwritten)
        return is_new


def test_of_two_winners_on_a_weak_store_the_one_that_was_written_over_has_lost():
    store, other = Weak(), Weak()
    for one in (store, other):
        index_on(one).commit(None, rows(*range(1_000)))
    for key in names(store, INDEX):
        other.put(key, store.get(key))
    index_on(other).commit(loaded(other), rows(7, name="FAILED"))
    for key in names(other, INDEX_NODES) - names(store, INDEX_NODES):
        store.put(key, other.get(key))
    nodes = names(store, INDEX_NODES)
    store.overwritten = other.get(index_root_key(2))
    index = index_on(store)
    assert not index.commit(index.load(), rows(8, name="FAILED"))
    store.overwritten = None
    assert names(store, INDEX_NODES) == nodes
    assert loaded(store).count() == {"SUCCESSFUL": 999, "FAILED": 1}


def test_a_commit_costs_its_nodes_and_its_root():
    store = NotingStore()
    index_on(store).commit(None, rows(*range(150_000)))
    tree = loaded(store)
    store.calls.clear()
    index_on(store).commit(tree, rows(15_000, 15_001, 129_000, name="FAILED"))
    assert (store.count("get"), store.count("put"), store.count("put_if_absent")) == (4, 4, 1)
    assert store.count("list") == 1


def test_a_node_is_read_once_by_a_process():
    store = NotingStore()
    index = index_on(store)
    assert index.rebuild(rows(*range(10_000)).items())
    index = index_on(store)
    for _ in range(2):
        tree = index.load()
        assert tree is not None
        assert tree.get("i/005000") == row(5_000)
    assert store.count("get", INDEX_NODES) == 1
    assert store.count("get", INDEX_ROOTS) == 2
    assert store.count("list", INDEX_NODES) == 0


class Wide(NotingStore):
    """Reads and writes several objects at the same time."""

    reads_at_once = 8


def test_nodes_are_read_and_written_at_the_same_time_where_that_gains_something():
    store = Wide()
    index_on(store).rebuild(rows(*range(10_000)).items())
    tree = loaded(store)
    assert len(tree.get_all(list(rows(*range(0, 10_000, 100))))) == 100
    changes = rows(*range(0, 10_000, 100), name="FAILED")
    assert index_on(store).commit(tree, changes)
    assert loaded(store).count() == {"SUCCESSFUL": 9_900, "FAILED": 100}


# ---- rebuilding


def test_an_index_is_rebuilt_of_items_in_their_order(store: ByteStore):
    items = rows(*range(20_000))
    index_on(store).commit(None, rows(*range(90_000, 91_000)))
    assert index_on(store).rebuild(items.items())
    tree = loaded(store)
    assert dict(tree.scan()) == items
    # Readers of what was there may go on until the next commit.
    assert len(names(store, INDEX_NODES) - reachable(tree, store)) > 4
    assert index_on(store).commit(tree, rows(1, name="FAILED"))
    assert len(names(store, INDEX_NODES) - reachable(loaded(store), store)) == 1


def test_items_that_are_sorted_are_not_held(store: ByteStore):
    index_on(store).rebuild(iter(rows(*range(2_000)).items()))
    assert loaded(store).count() == {"SUCCESSFUL": 2_000}
    with pytest.raises(ValueError, match="comes after"):
        index_on(store).rebuild([("b", row(1)), ("a", row(2))])
    with pytest.raises(ValueError, match="comes after"):
        index_on(store).rebuild([("b", row(1)), ("b", row(2))])
    assert names(store, INDEX_NODES) == reachable(loaded(store), store)


def test_a_rebuilt_index_gives_way_to_commits_that_come_meanwhile(store: ByteStore):
    index_on(store).commit(None, rows(*range(1_000)))

    def items() -> Iterator[tuple[str, Any]]:
        yield from rows(1, 2).items()
        assert_commits(store, rows(3, name="FAILED"))

    assert not index_on(store).rebuild(items())
    tree = loaded(store)
    assert (tree.version, len(dict(tree.scan()))) == (2, 1_000)
    assert index_on(store).rebuild(rows(1, 2).items())
    tree = loaded(store)
    assert (tree.version, dict(tree.scan())) == (3, rows(1, 2))
    assert_commits(store, rows(3))
    assert names(store, INDEX_NODES) == reachable(loaded(store), store)


def test_a_damaged_index_is_rebuilt(store: ByteStore):
    index_on(store).commit(None, rows(*range(1_000)))
    store.put(index_root_key(1), b"damaged")
    index_on(store).rebuild(rows(1, 2).items())
    assert dict(loaded(store).scan()) == rows(1, 2)


# ---- damage, and writes that fail


def stored(store: ByteStore, **arguments: Any) -> str:
    """An index with a root of several nodes; the key of one of these."""
    index_on(store, **arguments).commit(None, rows(*range(1_000)))
    tree = loaded(store, **arguments)
    return index_node_key((tree.node.children or ())[0].ref)


def packed(key: str, kind: str, body: dict[str, Any], content: bytes) -> Data:
    rest = zlib.compress(content)
    return dump_document(key, kind, body | {"rest_sum": rest_sum(rest)}, [rest])


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-10],
    "a line alone": lambda data: data[: data.index(b"\n") + 1],
    "changed": lambda data: data[:-5] + b"12345",
    "longer": lambda data: data + b"1",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_root_is_told_by_its_key(store: ByteStore, damage: Callable[[bytes], bytes]):
    stored(store)
    key = index_root_key(1)
    store.put(key, damage(store.get(key)))
    with pytest.raises(CorruptedDataError, match=key) as caught:
        index_on(store).load()
    assert caught.value.key == key


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_node_is_told_by_its_key(store: ByteStore, damage: Callable[[bytes], bytes]):
    key = stored(store)
    store.put(key, damage(store.get(key)))
    tree = loaded(store)
    with pytest.raises(CorruptedDataError, match=key):
        tree.get("i/000000")
    with pytest.raises(CorruptedDataError, match=key):
        list(tree.scan())
    with pytest.raises(CorruptedDataError, match=key):
        index_on(store).commit(tree, rows(0, name="FAILED"))
    assert len(names(store, INDEX)) == 1 + len(tree.node.children or ())


@pytest.mark.parametrize(
    "content",
    [
        b"3",
        b"{}",
        b"[[]]",
        b"not JSON",
        b'{"items":[["a",{}]]}',
        b'{"items":[["a",null]]}',
        b'{"children":[["a","../../leases/m",{}]]}',
        b"[" * 100_000,
    ],
)
def test_a_node_of_another_content_is_damaged(content: bytes):
    store = MemoryStore()
    key = stored(store)
    store.put(key, packed(key, "node", {}, content))
    with pytest.raises(CorruptedDataError, match=key):
        loaded(store).get("i/000000")


@pytest.mark.parametrize(
    ("body", "content"),
    [
        ({}, b'{"node":{"items":[]},"replaced":[]}'),
        (
            {"version": 2, "token": "", "base": "", "rebuilt": 0},
            b'{"node":{"items":[]},"replaced":[]}',
        ),
        ({"version": 1, "token": "", "base": "", "rebuilt": 0}, b'{"node":{"items":[]}}'),
        (
            {"version": 1, "token": "", "base": "", "rebuilt": 0},
            b'{"node":{"items":[]},"replaced":["../x"]}',
        ),
        (
            {"version": 1, "token": 3, "base": "", "rebuilt": 0},
            b'{"node":{"items":[]},"replaced":[]}',
        ),
    ],
)
def test_a_root_of_another_content_is_damaged(body: dict[str, Any], content: bytes):
    store, key = MemoryStore(), index_root_key(1)
    store.put(key, packed(key, "index", body, content))
    with pytest.raises(CorruptedDataError, match=key):
        index_on(store).load()


def test_a_document_that_unpacks_to_too_much_is_damaged():
    store = MemoryStore()
    key = stored(store)
    store.put(key, packed(key, "node", {}, b" " * (32 * 1024 * 1024 + 1)))
    with pytest.raises(CorruptedDataError, match="too long"):
        loaded(store).get("i/000000")


def test_a_node_that_is_its_own_child_is_damage():
    store = MemoryStore()
    key = stored(store)
    ref = key.removeprefix(f"{INDEX_NODES}/").removesuffix(".node")
    circle = f'{{"children":[["i/000000","{ref}",{{"FAILED":1}}]]}}'.encode()
    store.put(key, packed(key, "node", {}, circle))
    tree = loaded(store)
    for ask in (tree.get, lambda key: tree.get_all([key]), lambda key: next(tree.scan(low=key))):
        with pytest.raises(CorruptedDataError, match="deeper than"):
            ask("i/000000")


def test_documents_are_signed_where_there_is_a_key(store: ByteStore):
    ours, theirs = SigningKeys((b"ours",)), SigningKeys((b"theirs",))
    key = stored(store, signing=ours)
    assert loaded(store, signing=ours).get("i/000003") == row(3)
    with pytest.raises(UntrustedDataError, match=index_root_key(1)):
        index_on(store, signing=theirs).load()
    # A node in the place of another one.
    other = max(names(store, INDEX_NODES) - {key})
    store.put(key, store.get(other))
    with pytest.raises(UntrustedDataError, match=key):
        loaded(store, signing=ours).get("i/000003")


def test_a_cache_gives_no_node_to_a_reader_with_other_keys():
    store, cache = MemoryStore(), node_cache(1_000_000)
    key = stored(store)
    Index(store, tally=status, cache=cache).load()
    tree = Index(store, tally=status, cache=cache).load()
    assert tree is not None
    assert tree.get("i/000000") == row(0)
    signing = SigningKeys((b"ours",))
    careful = Index(store, tally=status, cache=cache, signing=signing)
    with pytest.raises(UntrustedDataError, match=key):
        Tree(careful.nodes, tree.root, tree.node).get("i/000000")


class Full(NotingStore):
    """Takes nothing more than so many objects."""

    room = 1_000

    def put(self, key: str, data: Data) -> None:
        if not self.room:
            raise DataSaveError("full", key=key)
        self.room -= 1
        super().put(key, data)


def test_a_commit_that_fails_leaves_nothing():
    store = Full()
    index = index_on(store)
    index.commit(None, rows(*range(10_000)))
    before = names(store, INDEX)
    store.room = 3
    with pytest.raises(DataSaveError, match="full"):
        index.commit(index.load(), rows(*range(0, 10_000, 100), name="FAILED"))
    assert names(store, INDEX) == before
    with pytest.raises(DataSaveError, match="full"):
        index.rebuild(rows(*range(20_000)).items())
    assert names(store, INDEX) == before
    store.room = 1_000
    assert index.commit(index.load(), rows(1, name="FAILED"))
