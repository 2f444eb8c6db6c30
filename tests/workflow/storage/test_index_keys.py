"""Names of the roots and nodes of the index."""

import pytest

from airflow_provider_rayworkflow.workflow.storage import index_keys


def test_the_keys_of_the_index_tell_their_versions():
    ref = index_keys.index_node_ref(12, "8f14e45fceea167a", 31)
    assert index_keys.index_root_key(12) == "v1/index/roots/0000000012.json"
    assert index_keys.index_node_key(ref) == "v1/index/nodes/0000000012-8f14e45fceea167a-1f.node"
    assert index_keys.parse_index_root(index_keys.index_root_key(12)) == 12
    assert index_keys.parse_index_node(index_keys.index_node_key(ref)) == (12, ref)


@pytest.mark.parametrize(
    "name",
    [
        "0000000000.json",
        "12.json",
        "-000000012.json",
        "²000000012.json",
        "0000000012.txt",
        "x/0000000012.json",
    ],
)
def test_a_foreign_file_is_no_root_of_the_index(name: str):
    assert index_keys.parse_index_root(f"v1/index/roots/{name}") is None
    assert index_keys.parse_index_root(f"v2/index/roots/{name}") is None


@pytest.mark.parametrize(
    "name",
    ["0000000012-8f14e45fceea167a-1.txt", "12-8f14e45fceea167a-1.node", "notes.node", ".node"],
)
def test_a_foreign_file_is_no_node_of_the_index(name: str):
    assert index_keys.parse_index_node(f"v1/index/nodes/{name}") is None


@pytest.mark.parametrize("ref", ["", "..", "../x", "0000000012-8f14e45fceea167a-1/../x"])
def test_a_foreign_ref_gives_no_key(ref: str):
    with pytest.raises(ValueError, match="is no node of an index"):
        index_keys.index_node_key(ref)
