"""The index: sorted items in a tree of documents, whose root each commit makes anew.

A commit writes the nodes that it replaces under new names, and then the root of the next version,
only if it is absent: of commits that race, one wins. A reader that has a root sees its version whole;
the nodes that a version has replaced are deleted by the commit after it, so a reader meets
:class:`KeyNotFoundError` only when two commits have come since its root, and loads the next one.

.. code-block:: text

    version 6   nodes a b c
    version 7   nodes a b' c     replaced: b
    version 8   nodes a b' c'    replaced: c     b is deleted

What a process leaves that dies between two of these writes is in no tree. It stays until the index
is rebuilt.

An index that is rebuilt is the next version, too. Where all roots are lost, a version without items comes
first (:meth:`Index.begin`), so that of several that rebuild it, and of those who commit to what one of them has
made, one is first again.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    KeyNotFoundError,
    StorageError,
)
from airflow_provider_rayworkflow.workflow.format.documents import understanding, well_typed
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.model import index_tree
from airflow_provider_rayworkflow.workflow.model.index_tree import EMPTY, IndexNode, Item, Tally
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore
from airflow_provider_rayworkflow.workflow.storage.index_keys import (
    INDEX_NODES,
    INDEX_ROOTS,
    index_node_key,
    index_root_key,
    parse_index_node,
    parse_index_root,
)
from airflow_provider_rayworkflow.workflow.storage.index_nodes import (
    MAX_DOCUMENT_BYTES,
    IndexNodes,
    NodeCache,
    NodeReader,
    NodeWriter,
    delete_nodes,
    dump_packed,
    load_packed,
)

log = get_logger(__name__)

#: A value of JSON, but not null.
Json = Any

_MAX_READS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class _Root:
    """A root's document.

    :ivar token: of its writer, and so of the nodes that were written for it.
    :ivar base: the token of the root that it goes on from, ``""`` for none.
    :ivar rebuilt: the version that was made anew last; no node of an earlier one is in it. 0 for none.
    :ivar replaced: the refs of the nodes that the version before has, and this one has not.
    :ivar forgotten: as :meth:`Index.commit` was told.
    :ivar is_made: False for :meth:`Index.begin`.
    """

    version: int
    token: str
    base: str
    rebuilt: int
    replaced: tuple[str, ...]
    forgotten: int = 0
    is_made: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outcome:
    """What became of the write of a root.

    :ivar has_won: its version counts.
    :ivar is_unused: its nodes are surely in no version.
    :ivar versions: of all roots, as they were found after the write.
    """

    has_won: bool
    is_unused: bool
    versions: Sequence[int] = ()


class Tree:
    """One version of the index. Each method reads a few nodes, whatever the index has.

    All of them raise :class:`KeyNotFoundError` when two later versions have come meanwhile,
    :class:`CorruptedDataError` for a damaged node, and :class:`DataLoadError` when one can't be read.
    """

    def __init__(self, nodes: IndexNodes, root: _Root, node: IndexNode) -> None:
        self.node = node
        self.root = root
        self._nodes = nodes

    @property
    def version(self) -> int:
        """Rises with each commit."""
        return self.root.version

    @property
    def told_since(self) -> int:
        """What came into it after this version is all in its feed. It was made anew then, or has forgotten more."""
        return max(self.root.rebuilt, self.root.forgotten)

    def get(self, key: str) -> Json | None:
        """The value of a key, None if there is no such item."""
        with self._whole():
            return index_tree.get(self.node, self._nodes.read, key)

    def get_all(self, keys: Collection[str]) -> dict[str, Json]:
        """The values of those of the keys that have an item."""
        reader = NodeReader(self._nodes)
        with self._whole():
            return index_tree.get_all(self.node, reader.read, keys, ahead=reader.ahead)

    def scan(
        self, *, low: str = "", high: str | None = None, reverse: bool = False
    ) -> Iterator[Item]:
        """The items from ``low`` up to and without ``high``, by key; nodes are read on the way.

        :param high: None: up to the end.
        :param reverse: the greatest key first.
        """
        with self._whole():
            read = self._nodes.read
            yield from index_tree.scan(self.node, read, low=low, high=high, reverse=reverse)

    def count(self, *, low: str = "", high: str | None = None) -> dict[str, int]:
        """How many items are from ``low`` up to and without ``high``, by what the tally names."""
        read, tally = self._nodes.read, self._nodes.tally
        with self._whole():
            return index_tree.count(self.node, read, tally=tally, low=low, high=high)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        try:
            yield
        except ValueError as exc:  # a circle of damaged nodes
            raise CorruptedDataError(index_root_key(self.version), str(exc)) from exc


class Index:
    """The index of one storage.

    :param tally: what an item is counted as, by its value.
    :param signing: as for :class:`WorkflowStore`.
    :param cache: None for that of the process.
    :ivar nodes: what its trees are made of.
    """

    def __init__(
        self,
        store: ByteStore,
        *,
        tally: Tally,
        signing: SigningKeys | None = None,
        cache: NodeCache | None = None,
    ) -> None:
        self._store = store
        self._signing = signing
        self.nodes = IndexNodes(store, tally=tally, signing=signing, cache=cache)

    def load(self) -> Tree | None:
        """The latest version, None if there is no index. One listing and one read.

        :raises CorruptedDataError: when its root is not whole.
        :raises DataLoadError: when it can't be read.
        """
        for _ in range(_MAX_READS):
            if not (versions := self._versions()):
                return None
            try:
                tree = self._read(max(versions))
                return tree if tree.root.is_made else None
            except KeyNotFoundError:
                continue  # two commits have come since the listing
        raise CorruptedDataError(INDEX_ROOTS, "its roots keep vanishing")

    def newer_than(self, tree: Tree) -> Tree | None:
        """The latest version when a node of this one is missing, None if there is no index any more.

        :raises CorruptedDataError: when this is the latest version: then the node is lost.
        """
        latest = self.load()
        if latest is not None and latest.version == tree.version:
            raise CorruptedDataError(index_root_key(tree.version), "a node of it is missing")
        return latest

    def commit(
        self, tree: Tree | None, changes: Mapping[str, Json | None], *, forgets: int = 0
    ) -> bool:
        """Make the next version. A write for each node that it replaces, one of the root, and a listing.

        :param tree: as :meth:`load` gave it; None for no index.
        :param changes: the new values by key; None deletes the item, if there is one.
        :param forgets: the latest version whose items in a feed are among what is deleted.
        :returns: False if another commit was first: then nothing has changed, unless three more came
            within the last moments of this one. True if all changes are in the index, also without a
            new version where they were before.
        :raises StorageError: when the index can't be read or written. If it is the root that can't be
            written, the changes may be in the index all the same.
        """
        before = EMPTY if tree is None else tree.node
        writer = NodeWriter(self.nodes, 1 if tree is None else tree.version + 1)
        replaced: list[str] = []
        try:
            node = index_tree.apply(
                before,
                changes,
                read=writer.read,
                write=writer.write,
                dropped=replaced.append,
                tally=self.nodes.tally,
                ahead=writer.ahead,
            )
            writer.flush()
        except KeyNotFoundError as exc:
            writer.discard()
            if tree is not None and max(self._versions(), default=0) > tree.version:
                return False  # two commits have come since the tree was loaded
            raise CorruptedDataError(exc.key, "it is missing") from exc
        except BaseException:
            writer.discard()
            raise
        if node is before and tree is not None:
            return True
        root = _next_root(tree, writer.token, replaced, forgets)
        # If this raises, the root may be there: its nodes stay.
        outcome = self._put(root, node)
        if outcome.is_unused:
            writer.discard()
        if outcome.has_won:
            self._clean(root.version, outcome.versions, None if tree is None else tree.root)
        return outcome.has_won

    def begin(self, version: int) -> int:
        """Where no root is left: say that an index is going to be made. Returns the version, which has no items.

        Readers find no index, and earlier versions get no commits any more. So what :meth:`rebuild` makes after
        this version, of what is read from now on, has all that they had.

        :raises StorageError: when it can't be written.
        """
        token = secrets.token_hex(8)
        root = _Root(
            version=version, token=token, base="", rebuilt=version, replaced=(), is_made=False
        )
        self._write(root, EMPTY)
        return version

    def rebuild(
        self,
        items: Iterable[Item],
        *,
        after: int | None = None,
    ) -> bool:
        """Make the next version of these items alone, whether or not what is there is whole.

        :param items: by key; few are held at the same time.
        :param after: the version that was the latest when the items were read, None for when the call
            began.
        :returns: False if another one has come since then: then nothing has changed.
        :raises ValueError: when two items have the same key, or they are not sorted.
        :raises StorageError: when the index can't be written.
        """
        begun = self.last_version() if after is None else after
        version = begun + 1
        writer = NodeWriter(self.nodes, version)
        try:
            node = index_tree.build(items, write=writer.write, tally=self.nodes.tally)
            writer.flush()
        except BaseException:
            writer.discard()
            raise
        if self.last_version() != begun:
            writer.discard()
            return False
        root = _Root(version=version, token=writer.token, base="", rebuilt=version, replaced=())
        outcome = self._put(root, node)
        if outcome.is_unused:
            writer.discard()
        if outcome.has_won:
            self._clean(version, outcome.versions, None)
        return outcome.has_won

    def last_version(self) -> int:
        """The latest version, whether or not it is whole; 0 for no index. One listing."""
        return max(self._versions(), default=0)

    def _versions(self) -> list[int]:
        entries = [*self._store.list(INDEX_ROOTS)]
        return [version for entry in entries if (version := parse_index_root(entry.key))]

    def _read(self, version: int) -> Tree:
        key = index_root_key(version)
        data = self._store.get(key, 0, MAX_DOCUMENT_BYTES + 1)
        body, content, _ = load_packed(key, "index", data, signing=self._signing)
        with understanding(key, "index"):
            del body["rest_sum"]
            replaced = tuple(content["replaced"])
            root = well_typed(_Root(**body, replaced=replaced))
            for ref in replaced:
                index_node_key(ref)
            if root.version != version:
                raise ValueError(f"it is the root of version {root.version}")
            return Tree(self.nodes, root, self.nodes.node(key, content["node"]))

    # ---- the write that decides

    def _write(self, root: _Root, node: IndexNode) -> bool:
        key = index_root_key(root.version)
        body = asdict(root)
        content = {"node": node.to_json(), "replaced": body.pop("replaced")}
        data, _ = dump_packed(key, "index", body, content, signing=self._signing)
        return self._store.put_if_absent(key, data)

    def _put(self, root: _Root, node: IndexNode) -> _Outcome:
        if not self._write(root, node):
            return _Outcome(has_won=False, is_unused=True)
        if self._store.weakness:
            found = self._find_root(root.version)
            if found is None or found.token != root.token:  # two won: the last one has
                return _Outcome(has_won=False, is_unused=found is not None)
        versions = self._versions()
        if max(versions, default=0) <= root.version:
            return _Outcome(has_won=True, is_unused=False, versions=versions)
        # A commit that took long may find the place of its root free again, since old roots are
        # deleted. Then the root after it goes on from another one, or is deleted, too.
        after = self._find_root(root.version + 1)
        has_won = after is not None and after.base == root.token
        is_unused = after is not None and not has_won
        return _Outcome(has_won=has_won, is_unused=is_unused, versions=versions)

    def _find_root(self, version: int) -> _Root | None:
        """The root of a version, if there is a whole one."""
        try:
            return self._read(version).root
        except (KeyNotFoundError, CorruptedDataError):
            return None

    # ---- what no reader needs any more

    def _clean(self, version: int, versions: Sequence[int], base: _Root | None) -> None:
        """Delete roots before the last two, and nodes that the last version but one has replaced."""
        old = [index_root_key(one) for one in versions if one < version - 1]
        if base is not None:
            old += [index_node_key(ref) for ref in base.replaced]
        try:
            if base is not None and base.rebuilt == base.version:
                old += self._before(base)
        except StorageError as exc:
            log.warning("Old parts of the index are still there: %s", exc)
            return
        delete_nodes(self._store, old)

    def _before(self, root: _Root) -> Iterator[str]:
        """The keys of all nodes that a root which was rebuilt has left behind."""
        for entry in self._store.list(INDEX_NODES):
            found = parse_index_node(entry.key)
            if found is not None and found[0] <= root.version and root.token not in found[1]:
                yield entry.key


def _next_root(tree: Tree | None, token: str, replaced: Sequence[str], forgets: int) -> _Root:
    """The root of the version that a commit makes.

    :param forgets: as for :meth:`Index.commit`.
    """
    before = _NO_ROOT if tree is None else tree.root
    return _Root(
        version=before.version + 1,
        token=token,
        base=before.token,
        rebuilt=before.rebuilt,
        replaced=tuple(replaced),
        forgotten=max(forgets, before.forgotten),
    )


_NO_ROOT = _Root(version=0, token="", base="", rebuilt=0, replaced=())
