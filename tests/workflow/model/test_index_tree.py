"""The index's tree against a sorted dictionary."""

import gc
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_rayworkflow.workflow.model import index_tree
from airflow_provider_rayworkflow.workflow.model.index_tree import EMPTY, Child, IndexNode

KEYS = st.text("abc/", min_size=1, max_size=4)
VALUES = st.tuples(st.sampled_from(["red", "green"]), st.integers(0, 3)).map(list)
BATCHES = st.lists(st.dictionaries(KEYS, st.none() | VALUES, max_size=60), max_size=8)
BOUNDS = st.tuples(KEYS | st.just(""), st.none() | KEYS)


def colour(value: Any) -> str:
    return value[0]


class Forest:
    """A tree in a dictionary, which counts reads and keeps what was dropped."""

    def __init__(self, node_size: int = 8) -> None:
        self.node_size = node_size
        self.nodes: dict[str, IndexNode] = {}
        self.root = EMPTY
        self.reads = 0
        self.writes = 0
        self.dropped: Counter[str] = Counter()

    def read(self, ref: str) -> IndexNode:
        self.reads += 1
        return self.nodes[ref]

    def write(self, node: IndexNode) -> str:
        ref = f"{self.writes}"
        self.writes += 1
        self.nodes[ref] = node
        return ref

    def apply(self, changes: Mapping[str, Any]) -> None:
        self.root = index_tree.apply(
            self.root,
            changes,
            read=self.read,
            write=self.write,
            dropped=lambda ref: self.dropped.update([ref]),
            tally=colour,
            node_size=self.node_size,
        )

    def build(self, items: Mapping[str, Any]) -> None:
        self.root = index_tree.build(
            sorted(items.items()), write=self.write, tally=colour, node_size=self.node_size
        )

    def scan(self, **bounds: Any) -> list[index_tree.Item]:
        return [*index_tree.scan(self.root, self.read, **bounds)]

    def depth(self) -> int:
        node, depth = self.root, 0
        while node.children:
            node, depth = self.nodes[node.children[0].ref], depth + 1
        return depth

    def reachable(self) -> set[str]:
        found, waiting = set(), [self.root]
        while waiting:
            for child in waiting.pop().children or ():
                found.add(child.ref)
                waiting.append(self.nodes[child.ref])
        return found


def check(forest: Forest) -> None:
    """What every tree keeps to: sizes, equal depth, first keys, counts, and the refs that are gone."""
    reachable = forest.reachable()
    assert forest.dropped == Counter(set(forest.nodes) - reachable)
    for ref in reachable:
        node, largest = forest.nodes[ref], most(forest, forest.nodes[ref])
        assert largest // 4 <= size(node) <= largest
    assert size(forest.root) <= most(forest, forest.root)
    assert forest.root.children is None or len(forest.root.children) > 1
    check_below(forest, forest.root, forest.depth())


def most(forest: Forest, node: IndexNode) -> int:
    return forest.node_size * (index_tree.FAN_OUT if node.children else 1)


def size(node: IndexNode) -> int:
    return len(node.items or node.children or ())


def check_below(forest: Forest, node: IndexNode, depth: int) -> tuple[str, dict[str, int]]:
    if node.children is None:
        assert depth == 0
        keys = [key for key, _ in node.items or ()]
        assert keys == sorted(set(keys))
        return (keys or [""])[0], Counter(colour(value) for _, value in node.items or ())
    counts: Counter[str] = Counter()
    for child in node.children:
        assert check_below(forest, forest.nodes[child.ref], depth - 1) == (
            child.first,
            child.counts,
        )
        counts.update(child.counts)
    return node.children[0].first, counts


def known(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**content, **changes}.items() if value is not None}


@settings(max_examples=150, deadline=None)
@given(BATCHES, BOUNDS)
def test_a_tree_has_what_a_sorted_dictionary_has(
    batches: list[dict[str, Any]], bounds: tuple[str, str | None]
):
    forest, content = Forest(), {}
    low, high = bounds
    for batch in batches:
        forest.apply(batch)
        content = known(content, batch)
        check(forest)
        inside = [
            (key, value)
            for key, value in sorted(content.items())
            if low <= key and (high is None or key < high)
        ]
        assert forest.scan() == sorted(content.items())
        assert forest.scan(low=low, high=high) == inside
        assert forest.scan(low=low, high=high, reverse=True) == inside[::-1]
        assert index_tree.count(
            forest.root, forest.read, tally=colour, low=low, high=high
        ) == Counter(colour(value) for _, value in inside)
        for key in {*batch, low}:
            assert index_tree.get(forest.root, forest.read, key) == content.get(key)
        assert index_tree.get_all(forest.root, forest.read, [*batch, low]) == {
            key: content[key] for key in {*batch, low} if key in content
        }


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 700), st.randoms(use_true_random=False))
def test_many_deletions_leave_a_tree_in_order(number: int, random: Any):
    content = {f"{n:05}": ["red", n] for n in range(number)}
    forest = Forest()
    forest.build(content)
    check(forest)
    keys = random.sample(sorted(content), k=number)
    while keys:
        batch = {key: None for key in keys[: random.randint(1, 200)]}
        keys = keys[len(batch) :]
        forest.apply(batch)
        content = known(content, batch)
        check(forest)
        assert forest.scan() == sorted(content.items())
    assert forest.root == EMPTY


@pytest.mark.parametrize("number", [0, 1, 8, 9, 15, 16, 17, 48, 49, 500])
def test_a_tree_that_is_built_is_as_one_that_has_grown(number: int):
    content = {f"{n:05}": ["red", n] for n in range(number)}
    built, grown = Forest(), Forest()
    built.build(content)
    grown.apply(content)
    for forest in (built, grown):
        check(forest)
        assert forest.scan() == sorted(content.items())


def test_of_a_tree_that_is_built_few_nodes_are_held():
    """However many there are: at most a node of each level."""
    held: list[int] = []

    def write(node: IndexNode) -> str:
        held.append(sum(type(one) is Child for one in gc.get_objects()))
        return f"{len(held)}"

    gc.freeze()  # what was there before is not counted
    items = ((f"{n:05}", ["red", n]) for n in range(3_000))
    index_tree.build(items, write=write, tally=colour, node_size=8)
    gc.unfreeze()
    assert len(held) > 500
    assert max(held) <= 3 * 24


def test_a_tree_is_built_of_keys_in_order():
    with pytest.raises(ValueError, match="'a' comes after 'b'"):
        index_tree.build([("b", ["red"]), ("a", ["red"])], write=lambda node: "", tally=colour)
    with pytest.raises(ValueError, match="'b' comes after 'b'"):
        index_tree.build([("b", ["red"]), ("b", ["red"])], write=lambda node: "", tally=colour)


@pytest.fixture(scope="module")
def large() -> Forest:
    """A tree of 100,000 items in nodes of the usual size: 3 levels."""
    forest = Forest(index_tree.NODE_SIZE)
    forest.build({f"{n:06}": [("red", "green")[n % 2], n] for n in range(100_000)})
    assert forest.depth() == 2
    return forest


def reads(forest: Forest, ask: Any) -> int:
    before = forest.reads
    ask()
    return forest.reads - before


def test_a_value_costs_one_node_of_each_level(large: Forest):
    assert reads(large, lambda: index_tree.get(large.root, large.read, "050000")) == 2


def test_values_of_one_leaf_cost_what_one_of_them_costs(large: Forest):
    keys = [f"{n:06}" for n in range(50_000, 50_020)]
    assert reads(large, lambda: index_tree.get_all(large.root, large.read, keys)) <= 3


def test_a_page_costs_its_leaves_and_the_way_to_them(large: Forest):
    def newest() -> None:
        items = index_tree.scan(large.root, large.read, high="090000", reverse=True)
        assert [next(items)[0] for _ in range(100)][:2] == ["089999", "089998"]

    assert reads(large, newest) <= 4


def test_counts_cost_two_nodes_of_each_level(large: Forest):
    def ask() -> None:
        found = index_tree.count(large.root, large.read, tally=colour, low="010001", high="090000")
        assert found == {"red": 39_999, "green": 40_000}

    assert reads(large, ask) <= 4


def test_a_change_replaces_the_nodes_on_its_way_only(large: Forest):
    forest = Forest(large.node_size)
    forest.nodes, forest.root = dict(large.nodes), large.root
    forest.writes = large.writes
    forest.apply({"050000": ["red", 7], "0500005": ["green", 1], "050001": None})
    assert (forest.reads, forest.writes - large.writes, forest.dropped.total()) == (2, 2, 2)


def test_a_change_that_changes_nothing_keeps_the_root(large: Forest):
    written = large.writes
    before = large.root
    large.apply({"050000": ["red", 50_000], "missing": None})
    assert large.root is before
    assert (large.writes, large.dropped.total()) == (written, 0)


def test_nodes_that_are_read_next_are_told_before(large: Forest):
    told: list[str] = []

    def read(ref: str) -> IndexNode:
        assert ref in told
        return large.nodes[ref]

    index_tree.apply(
        large.root,
        {f"{n:06}": ["green", -1] for n in range(0, 100_000, 5_000)},
        read=read,
        write=lambda node: "new",
        dropped=lambda ref: None,
        tally=colour,
        ahead=told.extend,
    )
    assert len(told) == len(set(told))


@given(st.dictionaries(KEYS, VALUES))
def test_a_node_is_the_same_after_its_way_through_json(content: dict[str, Any]):
    leaf = IndexNode(items=tuple(sorted(content.items())))
    assert IndexNode.from_json(leaf.to_json()) == leaf
    inner = IndexNode(children=(Child("a", "1", {"red": 2}), Child("b", "2", {})))
    assert IndexNode.from_json(inner.to_json()) == inner


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"items": 3},
        {"items": [["a"]]},
        {"items": [[1, []]]},
        {"items": [["b", []], ["a", []]]},
        {"items": [["a", []], ["a", []]]},
        {"children": []},
        {"children": [["a", "1"]]},
        {"children": [["a", 1, {}]]},
        {"children": [["a", "1", []]]},
        {"children": [["a", "1", {"red": "2"}]]},
        {"children": [["b", "1", {}], ["a", "2", {}]]},
    ],
)
def test_what_is_no_node_is_refused(value: dict[str, Any]):
    with pytest.raises((ValueError, TypeError, KeyError)):
        IndexNode.from_json(value)


def test_a_node_that_is_its_own_child_ends_in_an_error():
    circle = IndexNode(
        children=(Child("a", "circle", {"red": 1}), Child("c", "circle", {"red": 1}))
    )

    def read(ref: str) -> IndexNode:
        return circle

    with pytest.raises(ValueError, match="deeper than"):
        index_tree.get(circle, read, "b")
    with pytest.raises(ValueError, match="deeper than"):
        index_tree.get_all(circle, read, ["b"])
    with pytest.raises(ValueError, match="deeper than"):
        next(index_tree.scan(circle, read, low="b"))
    with pytest.raises(ValueError, match="deeper than"):
        index_tree.count(circle, read, tally=colour, low="b")
    with pytest.raises(ValueError, match="deeper than"):
        index_tree.apply(
            circle,
            {"b": ["red"]},
            read=read,
            write=lambda node: "new",
            dropped=lambda ref: None,
            tally=colour,
        )
