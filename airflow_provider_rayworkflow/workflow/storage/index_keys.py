"""Where the index lies: its roots, and apart from them its nodes.

A listing of the roots is short, however many nodes there are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from airflow_provider_rayworkflow.workflow.storage.keys import INDEX

INDEX_ROOTS = f"{INDEX}/roots"
INDEX_NODES = f"{INDEX}/nodes"

_VERSION = re.compile("[0-9]{10}")
_NODE_REF = re.compile("([0-9]{10})-[0-9a-f]{16}-[0-9a-f]+")


def index_root_key(version: int) -> str:
    """The root of one version of the index."""
    return f"{INDEX_ROOTS}/{version:010d}.json"


def parse_index_root(key: str) -> int | None:
    """The version of a root of the index; None for a foreign file."""
    stem = key.removeprefix(f"{INDEX_ROOTS}/").removesuffix(".json")
    version = int(stem) if _VERSION.fullmatch(stem) else 0
    return version if version and key == index_root_key(version) else None


def index_node_ref(version: int, token: str, number: int) -> str:
    """The ref of a node of the index.

    :param version: of the index, for which it was written first.
    :param token: 16 random hex digits of its writer.
    :param number: counts what the writer writes.
    """
    return f"{version:010d}-{token}-{number:x}"


def index_node_key(ref: str) -> str:
    """A node of the index.

    :raises ValueError: for what is no ref of :func:`index_node_ref`.
    """
    if not _NODE_REF.fullmatch(ref):
        raise ValueError(f"{ref!r:.100} is no node of an index.")
    return f"{INDEX_NODES}/{ref}.node"


def check_index_node_refs(refs: Sequence[str]) -> None:
    """Return if each may name a node.

    :raises ValueError: if not.
    """
    if not all(map(_NODE_REF.fullmatch, refs)):
        for ref in refs:
            index_node_key(ref)


def parse_index_node(key: str) -> tuple[int, str] | None:
    """The version of a node of the index, and its ref; None for a foreign file."""
    folder, _, name = key.rpartition("/")
    ref, _, ending = name.rpartition(".")
    match = _NODE_REF.fullmatch(ref)
    return (int(match[1]), ref) if match and folder == INDEX_NODES and ending == "node" else None
