"""A B+-tree of immutable nodes: sorted items, of which a change replaces few nodes. Pure: no storage.

A node is a leaf (items) or an inner node (children). A node refers to its children by *refs*, which
the caller gives out when it writes a node; the root stands for the tree, and the caller keeps it
itself. All leaves have the same depth.

A leaf has at most :data:`NODE_SIZE` items, an inner node :data:`FAN_OUT` times as many children, and at least a
quarter of that when it is written; with fewer it is merged with a neighbour of the same parent, and a parent that is left with
one child is merged with its own neighbour first. The root alone may have fewer. What is full is cut
in equal parts, so a batch of any size is one pass. :func:`build` fills nodes to three quarters: the
first insertion into one does not cut it.

Each child says how many items are below it, by what the caller's ``tally`` names: counts of a range
read two nodes of each level at most.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from operator import itemgetter, lt
from typing import Any, NamedTuple, TypeVar

#: A value of JSON, but not null.
Json = Any
Item = tuple[str, Json]
Read = Callable[[str], "IndexNode"]
Write = Callable[["IndexNode"], str]
Tally = Callable[[Json], str]
Ahead = Callable[[Sequence[str]], None]
T = TypeVar("T")

#: How many items a leaf has at most.
NODE_SIZE = 200
#: How many times as many children an inner node has at most. A child takes much less than an item, and each level is a
#: request more for a reader that knows no node yet.
FAN_OUT = 3
# Less than any tree of ours can have: a damaged node may be its own child.
_MAX_DEPTH = 32

_key_of = itemgetter(0)


class Child(NamedTuple):
    """A node as its parent knows it.

    :ivar first: the smallest key below it.
    :ivar counts: how many items are below it, by what the tally names.
    """

    first: str
    ref: str
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class IndexNode:
    """A leaf has items, in the order of their keys; an inner node has children, in theirs."""

    items: tuple[Item, ...] | None = None
    children: tuple[Child, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        if self.children is None:
            return {"items": self.items or ()}
        return {"children": [(child.first, child.ref, child.counts) for child in self.children]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> IndexNode:
        """Read a node.

        :raises ValueError, TypeError, KeyError: when it is none; values of items are not looked at.
        """
        # Each check is one pass in C: an inner node has hundreds of children.
        if "items" in value:
            items = tuple((key, content) for key, content in value["items"])
            _check_order([key for key, _ in items])
            return cls(items=items)
        children = tuple(map(Child._make, value["children"]))
        if not children:
            raise ValueError("an inner node has no children")
        firsts, refs, counts = zip(*children, strict=True)
        _check_order(firsts)
        _check_all(refs, str)
        _check_all(counts, dict)
        _check_all([*chain.from_iterable(map(dict.values, counts))], int)
        return cls(children=children)


#: The root of a tree without items.
EMPTY = IndexNode(items=())


def _check_all(values: Sequence[Any], kind: type) -> None:
    if not {kind}.issuperset(map(type, values)):
        wrong = next(value for value in values if type(value) is not kind)
        raise TypeError(f"{wrong!r:.100} is no {kind.__name__}")


def _check_order(keys: Sequence[str]) -> None:
    _check_all(keys, str)
    if not all(map(lt, keys, keys[1:])):
        wrong = next((one, other) for one, other in pairwise(keys) if one >= other)
        raise ValueError(f"{wrong[1]!r:.100} comes after {wrong[0]!r:.100}")


# ---- questions


def get(root: IndexNode, read: Read, key: str) -> Json | None:
    """The value of a key, None if there is no such item. Reads one node of each level.

    :raises ValueError: when the tree is deeper than any tree can be.
    """
    node = root
    for _ in range(_MAX_DEPTH):
        if node.children is None:
            items = node.items or ()
            at = bisect_left(items, key, key=_key_of)
            return items[at][1] if at < len(items) and items[at][0] == key else None
        at = bisect_right(node.children, key, key=_first_of) - 1
        if at < 0:
            return None
        node = read(node.children[at].ref)
    raise _too_deep()


def get_all(
    root: IndexNode, read: Read, keys: Collection[str], *, ahead: Ahead | None = None
) -> dict[str, Json]:
    """The values of those of the keys that have an item. Reads each node on their ways once.

    :param ahead: as for :func:`apply`.
    :raises ValueError: when the tree is deeper than any tree can be.
    """
    found: dict[str, Json] = {}
    wanted = sorted(set(keys))
    waiting = [(root, 0, len(wanted), 0)]
    while waiting:
        node, start, end, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise _too_deep()
        if node.children is None:
            values = dict(node.items or ())
            found.update((key, values[key]) for key in wanted[start:end] if key in values)
            continue
        touched = [one for one in _touched(node.children, wanted, start, end) if one[1] < one[2]]
        if ahead is not None:
            ahead([child.ref for child, _, _ in touched])
        waiting += [(read(child.ref), one, other, depth + 1) for child, one, other in touched]
    return found


def scan(
    root: IndexNode, read: Read, *, low: str = "", high: str | None = None, reverse: bool = False
) -> Iterator[Item]:
    """The items from ``low`` up to and without ``high``, by key. Reads nodes as it comes to them.

    :param high: None: up to the end.
    :param reverse: the greatest key first.
    :raises ValueError: when the tree is deeper than any tree can be.
    """
    return _scan(root, read, low, high, reverse, 0)


def _scan(
    node: IndexNode, read: Read, low: str, high: str | None, reverse: bool, depth: int
) -> Iterator[Item]:
    if depth > _MAX_DEPTH:
        raise _too_deep()
    if node.children is None:
        items = node.items or ()
        start = bisect_left(items, low, key=_key_of)
        found = items[start : None if high is None else bisect_left(items, high, key=_key_of)]
        yield from reversed(found) if reverse else found
        return
    start, end = _span(node.children, low, high)
    for child in reversed(node.children[start:end]) if reverse else node.children[start:end]:
        yield from _scan(read(child.ref), read, low, high, reverse, depth + 1)


def count(
    root: IndexNode, read: Read, *, tally: Tally, low: str = "", high: str | None = None
) -> dict[str, int]:
    """How many items are from ``low`` up to and without ``high``, by what the tally names.

    Reads two nodes of each level at most.

    :raises ValueError: when the tree is deeper than any tree can be.
    """
    found: Counter[str] = Counter()
    _count(root, read, tally, (low, high), None, found, 0)
    return dict(found)


def _count(
    node: IndexNode,
    read: Read,
    tally: Tally,
    bounds: tuple[str, str | None],
    end: str | None,
    found: Counter[str],
    depth: int,
) -> None:
    # All keys of the node are smaller than `end`; None: it is the last one of its level.
    if depth > _MAX_DEPTH:
        raise _too_deep()
    low, high = bounds
    if node.children is None:
        found.update(tally(value) for _, value in _scan(node, read, low, high, False, depth))
        return
    start, stop = _span(node.children, low, high)
    for at in range(start, stop):
        child = node.children[at]
        child_end = node.children[at + 1].first if at + 1 < len(node.children) else end
        if low <= child.first and (high is None or (child_end is not None and child_end <= high)):
            found.update(child.counts)
        else:
            _count(read(child.ref), read, tally, bounds, child_end, found, depth + 1)


def _span(children: Sequence[Child], low: str, high: str | None) -> tuple[int, int]:
    """Which children may have keys from ``low`` up to and without ``high``."""
    start = max(0, bisect_right(children, low, key=_first_of) - 1)
    return start, len(children) if high is None else bisect_left(children, high, key=_first_of)


def _touched(
    children: Sequence[Child], keys: Sequence[str], start: int, end: int
) -> list[tuple[Child, int, int]]:
    """The children, each with the numbers of its keys: the first, and the one after the last."""
    ends = [bisect_left(keys, child.first, start, end) for child in children[1:]]
    return [*zip(children, [start, *ends], [*ends, end], strict=True)]


def _first_of(child: Child) -> str:
    return child.first


def _too_deep() -> ValueError:
    return ValueError(f"the tree of an index is deeper than {_MAX_DEPTH} nodes")


# ---- changes


def apply(
    root: IndexNode,
    changes: Mapping[str, Json | None],
    *,
    read: Read,
    write: Write,
    dropped: Callable[[str], None],
    tally: Tally,
    ahead: Ahead | None = None,
    node_size: int = NODE_SIZE,
) -> IndexNode:
    """Change, add and delete items. Only nodes that have one of them are read and replaced.

    A node that is too small afterwards is merged with a neighbour, which is read and replaced too.
    A change to an equal value is none: a node with such changes alone stays.

    :param changes: the new values by key; None deletes the item, if there is one.
    :param write: keeps a node and gives its ref; children come before their parent.
    :param dropped: gets the ref of each node that the new tree does not have any more, once.
    :param ahead: gets the refs of the nodes that are read next, before the first of them.
    :param node_size: of leaves, at least 8; smaller ones are for tests.
    :returns: the new root, not written; the given one if nothing changes.
    :raises ValueError: when the tree is deeper than any tree can be.
    """
    making = _Making(read, write, dropped, tally, ahead, node_size)
    draft = _Change(making, changes).of(root, 0, len(changes), 0)
    return root if draft is None else making.root(draft)


def build(
    items: Iterable[Item], *, write: Write, tally: Tally, node_size: int = NODE_SIZE
) -> IndexNode:
    """A tree of items that come in the order of their keys. Holds two leaves, and a node of each level above.

    :param write: as for :func:`apply`.
    :returns: the root, not written.
    :raises ValueError: when a key does not come after the one before.
    """
    making = _Making(_read_none, write, lambda ref: None, tally, None, node_size)
    drafts = (_Draft(items=part) for part in _packed(_ascending(items), node_size))
    first, second = next(drafts, None), next(drafts, None)
    if first is None or second is None:
        return making.root(first or _Draft())
    levels = _Levels(making)
    for draft in chain((first, second), drafts):
        levels.add(making.written(draft))
    return levels.root()


class _Levels:
    """The inner nodes of a tree that is built: of each level those children that no node has yet.

    A level keeps a quarter of a node, so that its last node is not too small.
    """

    def __init__(self, making: _Making) -> None:
        self._making = making
        self._levels: list[list[_Slot]] = []

    def add(self, child: Child, level: int = 0) -> None:
        if level == len(self._levels):
            self._levels.append([])
        slots, most = self._levels[level], self._making.node_size * FAN_OUT
        slots.append(child)
        if len(slots) == most * 3 // 4 + most // 4:
            part, slots[:] = slots[: most * 3 // 4], slots[most * 3 // 4 :]
            self.add(self._making.written(_Draft(slots=part)), level + 1)

    def root(self) -> IndexNode:
        level = 0
        while level + 1 < len(self._levels):
            self.add(self._making.written(_Draft(slots=self._levels[level])), level + 1)
            level += 1
        return self._making.root(_Draft(slots=self._levels[level]))


def _ascending(items: Iterable[Item]) -> Iterator[Item]:
    before: str | None = None
    for item in items:
        if before is not None and item[0] <= before:
            raise ValueError(f"{item[0]!r:.100} comes after {before!r:.100}")
        before = item[0]
        yield item


def _packed(entries: Iterable[T], most: int) -> Iterator[list[T]]:
    """Lists of three quarters of ``most`` entries; the last one has more or fewer, but a quarter if it can."""
    fill, least = most * 3 // 4, most // 4
    part: list[T] = []
    for entry in entries:
        part.append(entry)
        if len(part) == fill + least:
            yield part[:fill]
            part = part[fill:]
    if part:
        yield part


def _read_none(ref: str) -> IndexNode:
    raise KeyError(ref)


@dataclass(slots=True, eq=False)
class _Draft:
    """A node that is not written yet, of any size; one of the two lists is empty."""

    items: list[Item] = field(default_factory=list)
    slots: list[_Slot] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.items) + len(self.slots)

    def most(self, node_size: int) -> int:
        """How many entries it may have."""
        return node_size * FAN_OUT if self.slots else node_size

    def cut(self, node_size: int) -> list[_Draft]:
        """Itself, or as few drafts as are not too large, of equal size."""
        if self.size <= (most := self.most(node_size)):
            return [self]
        parts = -(-self.size // most)
        cuts = [self.size * part // parts for part in range(parts + 1)]
        return [_Draft(self.items[one:end], self.slots[one:end]) for one, end in pairwise(cuts)]


_Slot = Child | _Draft


@dataclass(frozen=True, slots=True)
class _Making:
    """Makes nodes of drafts."""

    read: Read
    write: Write
    dropped: Callable[[str], None]
    tally: Tally
    ahead: Ahead | None
    node_size: int

    def root(self, draft: _Draft) -> IndexNode:
        """The node of a root; its children are written."""
        while len(draft.slots) == 1:
            draft = self.opened(draft.slots[0])
        while draft.size > draft.most(self.node_size):
            draft = _Draft(slots=[*draft.cut(self.node_size)])
        return self.node(draft) if draft.size else EMPTY

    def node(self, draft: _Draft) -> IndexNode:
        """The node of a draft, whose children are written."""
        if not draft.slots:
            return IndexNode(items=tuple(draft.items))
        return IndexNode(children=tuple([self.written(slot) for slot in draft.slots]))

    def written(self, slot: _Slot) -> Child:
        """The slot's node as a child."""
        if isinstance(slot, Child):
            return slot
        node = self.node(slot)
        counts: Counter[str] = Counter()
        if node.children is None:
            counts.update([self.tally(value) for _, value in slot.items])
            return Child(slot.items[0][0], self.write(node), dict(counts))
        for child in node.children:
            counts.update(child.counts)
        return Child(node.children[0].first, self.write(node), dict(counts))

    def opened(self, slot: _Slot) -> _Draft:
        """The slot's node as a draft, which takes its place."""
        if isinstance(slot, _Draft):
            return slot
        node = self.read(slot.ref)
        self.dropped(slot.ref)
        return _Draft([*node.items]) if node.items is not None else _Draft([], [*_children(node)])

    def settled(self, slots: Iterable[_Slot]) -> list[_Slot]:
        """The slots of one node, without empty ones, and with small ones merged where two are left.

        What has got its size is written at once, so that few nodes are held at the same time.
        """
        found = [slot for slot in slots if isinstance(slot, Child) or slot.size]
        at = 0
        while at < len(found) and len(found) > 1:
            if not self._is_small(found[at]):
                at += 1
                continue
            at = self._left_of_pair(found, at)
            one, other = self.opened(found[at]), self.opened(found[at + 1])
            merged = _Draft(one.items + other.items, self.settled(one.slots + other.slots))
            found[at : at + 2] = merged.cut(self.node_size)
        return [self.written(slot) if not self._is_small(slot) else slot for slot in found]

    def _is_small(self, slot: _Slot) -> bool:
        return isinstance(slot, _Draft) and slot.size < slot.most(self.node_size) // 4

    def _left_of_pair(self, slots: Sequence[_Slot], at: int) -> int:
        """Where the small node and the neighbour begin with which it is merged.

        One that is a draft need not be read and replaced.
        """
        if at + 1 == len(slots):
            return at - 1
        is_better = isinstance(slots[at + 1], Child) and at and isinstance(slots[at - 1], _Draft)
        return at - 1 if is_better else at


class _Change:
    """One batch of changes on its way down the tree."""

    def __init__(self, making: _Making, changes: Mapping[str, Json | None]) -> None:
        self._making = making
        self._changes = changes
        self._keys = sorted(changes)

    def of(self, node: IndexNode, start: int, end: int, depth: int) -> _Draft | None:
        """The node with some of the changes, by their numbers; None if it stays as it is."""
        if depth > _MAX_DEPTH:
            raise _too_deep()
        if node.children is None:
            return self._of_leaf(node.items or (), self._keys[start:end])
        touched = _touched(node.children, self._keys, start, end)
        if self._making.ahead is not None:
            self._making.ahead([child.ref for child, one, other in touched if one < other])
        slots: list[_Slot] = []
        is_changed = False
        for child, one, other in touched:
            read = self._making.read
            draft = self.of(read(child.ref), one, other, depth + 1) if one < other else None
            if draft is None:
                slots.append(child)
                continue
            is_changed = True
            self._making.dropped(child.ref)
            slots += draft.cut(self._making.node_size)
        return _Draft([], self._making.settled(slots)) if is_changed else None

    def _of_leaf(self, items: Sequence[Item], keys: Sequence[str]) -> _Draft | None:
        values = dict(items)
        for key in keys:
            if (value := self._changes[key]) is None:
                values.pop(key, None)
            else:
                values[key] = value
        changed = sorted(values.items(), key=_key_of)
        return None if changed == [*items] else _Draft(changed)


def _children(node: IndexNode) -> tuple[Child, ...]:
    return node.children or ()
