"""Nodes of the index as documents: read once by a process while they fit into its cache, and written together.

A document is a line, and behind it compressed JSON.
"""

from __future__ import annotations

import json
import secrets
import zlib
from collections.abc import Sequence
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    DataSaveError,
    StorageError,
)
from airflow_provider_rayworkflow.workflow.format.documents import (
    dump_document,
    load_with_rest,
    rest_sum,
    understanding,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys, or_environment
from airflow_provider_rayworkflow.workflow.model.index_tree import IndexNode, Tally
from airflow_provider_rayworkflow.workflow.storage.at_once import map_at_once
from airflow_provider_rayworkflow.workflow.storage.bounded_cache import BoundedCache
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore, Data, Put
from airflow_provider_rayworkflow.workflow.storage.index_keys import (
    check_index_node_refs,
    index_node_key,
    index_node_ref,
)

log = get_logger(__name__)

Json = dict[str, Any]

#: A node by its storage, the keys that it was checked with, and its ref; with the size of its JSON.
NodeCache = BoundedCache[tuple[str, Sequence[bytes], str], tuple[IndexNode, int]]

#: How large a document of the index is at most, in bytes, compressed and as JSON.
MAX_DOCUMENT_BYTES = 32 * 1024 * 1024
# Python's objects take so many bytes for each byte of the JSON that they come from.
_OBJECTS_PER_BYTE = 3
# How many nodes are written together at least; nodes are held until then.
_BATCH = 64


def node_cache(max_bytes: int) -> NodeCache:
    """A cache of nodes.

    :param max_bytes: what the nodes take as Python's objects, about.
    """
    return BoundedCache(
        max_bytes=max_bytes, size_of=lambda key, known: 1000 + known[1] * _OBJECTS_PER_BYTE
    )


_of_process = node_cache(16 * 1024 * 1024)


class IndexNodes:
    """The nodes of the index of one storage.

    :param tally: what an item is counted as.
    :param cache: None for that of the process.
    """

    def __init__(
        self,
        store: ByteStore,
        *,
        tally: Tally,
        signing: SigningKeys | None = None,
        cache: NodeCache | None = None,
    ) -> None:
        self.store = store
        self.tally = tally
        self.signing = signing
        self._cache = _of_process if cache is None else cache

    def read(self, ref: str) -> IndexNode:
        """A node; one read, none if it is in the cache.

        :raises KeyNotFoundError: when it has been replaced and deleted.
        :raises CorruptedDataError: when it is not whole.
        """
        name = self._name(ref)
        if (known := self._cache.get(name)) is not None:
            return known[0]
        key = index_node_key(ref)
        data = self.store.get(key, 0, MAX_DOCUMENT_BYTES + 1)
        _, content, size = load_packed(key, "node", data, signing=self.signing)
        node = self.node(key, content)
        self._cache[name] = node, size
        return node

    def node(self, key: str, content: Any) -> IndexNode:
        """The node that a document has.

        :raises CorruptedDataError: when it has none.
        """
        with understanding(key, "node"):
            node = IndexNode.from_json(content)
            for _, value in node.items or ():
                self.tally(value)
            check_index_node_refs([child.ref for child in node.children or ()])
        return node

    def dump(self, ref: str, node: IndexNode) -> Put:
        """The write of a node."""
        key = index_node_key(ref)
        data, size = dump_packed(key, "node", {}, node.to_json(), signing=self.signing)
        self._cache[self._name(ref)] = node, size
        return Put(key, data)

    def _name(self, ref: str) -> tuple[str, Sequence[bytes], str]:
        return self.store.uri, or_environment(self.signing).keys, ref


class NodeReader:
    """Reads nodes for one question, several at once where that gains something."""

    def __init__(self, nodes: IndexNodes) -> None:
        self._nodes = nodes
        self._ahead: dict[str, IndexNode] = {}

    def read(self, ref: str) -> IndexNode:
        """A node; errors as :meth:`IndexNodes.read`."""
        node = self._ahead.pop(ref, None)
        return self._nodes.read(ref) if node is None else node

    def ahead(self, refs: Sequence[str]) -> None:
        """Read nodes that are asked for next."""
        if self._nodes.store.reads_at_once > 1 and len(refs) > 1:
            found = map_at_once(self._nodes.store, self._nodes.read, refs)
            self._ahead.update(zip(refs, found, strict=True))


class NodeWriter(NodeReader):
    """Writes new nodes, and reads nodes for that.

    :param version: of the index that they are for.
    :ivar token: tells its nodes from those of others.
    """

    def __init__(self, nodes: IndexNodes, version: int) -> None:
        super().__init__(nodes)
        self.token = secrets.token_hex(8)
        self._version = version
        self._written = 0
        self._waiting: dict[str, IndexNode] = {}

    def read(self, ref: str) -> IndexNode:
        waiting = self._waiting.get(ref)
        return super().read(ref) if waiting is None else waiting

    def write(self, node: IndexNode) -> str:
        """Take a node and give its ref; it is durable after the next :meth:`flush`.

        :raises DataSaveError: when nodes can't be written.
        """
        ref = index_node_ref(self._version, self.token, self._written)
        self._written += 1
        self._waiting[ref] = node
        if len(self._waiting) >= _BATCH:
            self.flush()
        return ref

    def flush(self) -> None:
        """Write what is not written yet.

        :raises DataSaveError: when nodes can't be written.
        """
        store = self._nodes.store
        puts = [self._nodes.dump(ref, node) for ref, node in self._waiting.items()]
        if store.together > 1 or store.reads_at_once == 1:
            store.put_all(puts)
            for put in puts:
                if put.error is not None and not isinstance(put.error, StorageError):
                    raise put.error
                if put.error is not None:
                    store.put(put.key, put.data)  # which tries again
        else:
            map_at_once(store, lambda put: store.put(put.key, put.data), puts)
        self._waiting.clear()

    def discard(self) -> None:
        """Delete all that it has written; what can't be deleted stays until the index is rebuilt."""
        refs = (index_node_ref(self._version, self.token, n) for n in range(self._written))
        delete_nodes(self._nodes.store, [index_node_key(ref) for ref in refs])


def delete_nodes(store: ByteStore, keys: Sequence[str]) -> None:
    """Delete documents of the index that no reader needs; an error is logged."""
    try:
        if keys:
            store.delete(keys)
    except StorageError as exc:
        log.warning("Old parts of the index are still there: %s", exc)


def dump_packed(
    key: str, kind: str, body: Json, content: Any, *, signing: SigningKeys | None
) -> tuple[Data, int]:
    """A document with compressed JSON behind its line, and how long that JSON is.

    :raises DataSaveError: when it is longer than can be read.
    """
    text = _dumps(content).encode()
    if len(text) > MAX_DOCUMENT_BYTES:
        raise DataSaveError(
            f"{key!r} would have {len(text):,} bytes of JSON, more than {MAX_DOCUMENT_BYTES:,}.",
            key=key,
        )
    packed = zlib.compress(text, 1)
    body = {**body, "rest_sum": rest_sum(packed)}
    return dump_document(key, kind, body, [packed], signing=signing), len(text)


def load_packed(
    key: str, kind: str, data: bytes, *, signing: SigningKeys | None
) -> tuple[Json, Any, int]:
    """The body and the content of a document, and how long its JSON is.

    :raises CorruptedDataError: when it is not whole.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise CorruptedDataError(key, f"it has more than {MAX_DOCUMENT_BYTES:,} bytes")
    body, rest = load_with_rest(key, kind, data, signing=signing)
    with understanding(key, kind):
        if body["rest_sum"] != rest_sum(rest):
            raise ValueError("its content has a wrong checksum")
        unpacking = zlib.decompressobj()
        try:
            text = unpacking.decompress(rest, MAX_DOCUMENT_BYTES)
        except zlib.error as exc:
            raise ValueError("its content can't be unpacked") from exc
        if not unpacking.eof:
            raise ValueError("its content is cut off or too long")
        return body, _loads(text.decode()), len(text)


_dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode
_loads = json.JSONDecoder().decode
