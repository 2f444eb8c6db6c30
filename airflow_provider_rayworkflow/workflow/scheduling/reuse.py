"""What of earlier runs is used again: a graph and committed records in, decisions with reasons out.

Pure. A :class:`Snapshot` holds the decisions for all who ask which checkpoints count;
a schedule goes on from them.

A committed task is used again as long as what it was made of is the same: its arguments, and the
results that it took. A task upstream that runs again does not count as a change by itself: whether
it gives another result is seen when it has one. Until then, the tasks that take it are *checked*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import chain

from airflow_provider_rayworkflow.workflow.model.fingerprints import Comparison, compare
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task, Tasks
from airflow_provider_rayworkflow.workflow.model.records import Fingerprints, OnChange
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.scheduling.cache_key import with_known_code
from airflow_provider_rayworkflow.workflow.scheduling.decision import (
    OTHER_OPTIONS,
    REFERS_TO_LOST,
    Decision,
    TaskAction,
)
from airflow_provider_rayworkflow.workflow.scheduling.graph_review import GraphReview, is_map
from airflow_provider_rayworkflow.workflow.scheduling.levels import (
    continuation_of,
    forgotten,
    repeated,
    restarted,
    with_functions,
)
from airflow_provider_rayworkflow.workflow.scheduling.task_fingerprints import literals_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What the decisions about a workflow depend on, apart from its graph and checkpoints.

    :ivar on_change: for tasks whose options say nothing.
    :ivar restarts: tasks from which the workflow was restarted, each with the epoch of that.
    :ivar known: ids of the tasks of the run before, None if they are not known.
    :ivar lost: tasks whose checkpoint proved to be damaged.
    :ivar graph_epoch: the epoch from which on the workflow has had this graph, None if that is not
        known. What was committed since took what its tasks gave then, whatever they give now.
    :ivar final: the tasks that gave the output of a workflow that was successful.
    """

    on_change: OnChange = "reuse"
    restarts: Mapping[str, int] = field(default_factory=dict)
    known: Collection[str] | None = None
    lost: Collection[str] = ()
    graph_epoch: int | None = None
    final: Collection[str] = ()


class Reuse:
    """The decisions about one workflow.

    :param records: what is committed, by task id.
    :ivar decisions: about the tasks that were looked at and not taken yet.
    """

    def __init__(
        self, graph: Graph, task_ids: Sequence[str], records: Mapping[str, TaskRecord], rules: Rules
    ) -> None:
        self._rules = rules
        self._graph = graph
        self._restarted = restarted(graph, task_ids, records, rules.restarts)
        self._forgotten = forgotten(self._restarted, records)
        self._records = {
            task_id: record for task_id, record in records.items() if task_id not in self._forgotten
        }
        # As they were committed.
        self._order = {task_id: number for number, task_id in enumerate(self._records)}
        self._known = None if rules.known is None else frozenset(rules.known)
        self._is_first = not (records or rules.lost)
        created = chain.from_iterable([one.task_ids for one in records.values()])
        # Ids of the graph that tasks of continuations have, too: it had no such tasks when they got them.
        self._of_both = frozenset(created).intersection(task_ids)
        self._may_match = False
        self._expanded_anew: set[str] = set()
        self.decisions: dict[str, Decision] = {}
        self.counts: Counter[str] = Counter()
        top = GraphReview(graph, task_ids, checkpoint=True, is_top=True, since=rules.graph_epoch)
        self._review(top)

    # ---- asking

    def take(self, task_id: str) -> Decision:
        """The decision about a task; asked for once."""
        return self.decisions.pop(task_id)

    @property
    def has_restarts(self) -> bool:
        """True if a restart concerns any task; see :meth:`saved_since`."""
        return bool(self._restarted)

    def saved_since(self, task_id: str) -> int:
        """The epoch of the latest restart that concerns a task, 0 without one: what it saved before is void."""
        found = self._restarted.get(task_id)
        return 0 if found is None else found.epoch

    def continuation_of(self, record: TaskRecord) -> Graph:
        """A stored continuation, with the functions of now in the place of older ones.

        Its tasks were pickled with the code of then; a correction would not reach them.
        """
        return with_known_code(with_functions(continuation_of(record), self._graph))

    def match(
        self, former: TaskRecord | None, graph: Graph, *, refers_to_lost: bool = False
    ) -> dict[int, str]:
        """Which tasks of a new continuation were tasks of the former one.

        By position and content; only tasks with a checkpoint, whose function, arguments and inputs are the
        same. Those with an item by their names, where the function is the same, and a map itself by its
        position, whatever they take now: that is compared as for any other task. Of tasks with the same
        name, the first is the first one of before, and so on.

        :param refers_to_lost: the former one does: its maps run again, with the values of now.
        :returns: their ids by position, each once.
        """
        if former is None or former.graph is None:
            return {}
        before = continuation_of(former)
        places = {place: index for index, place in enumerate(_places(before))}
        found = [places.get(place, -1) for place in _places(graph)]
        is_same_function = _same_functions(before, graph)
        matched = {}
        for position, (task, index) in enumerate(zip(graph.tasks, found, strict=True)):
            if index < 0:
                continue
            then, task_id = before.tasks[index], former.task_ids[index]
            if task_id in self._of_both:
                continue
            if task.item:
                is_found = is_same_function(then, task) and self._may_be(task_id, task)
            else:
                upstream = tuple(found[other] for other in task.upstream)
                is_found = (task.name, upstream) == (then.name, then.upstream)
                is_found = is_found and self._may_be(task_id, task)
            if is_found:
                matched[position] = task_id
            if is_found and refers_to_lost and task.options.expands:
                self._expanded_anew.add(task_id)
        return matched

    def _may_be(self, task_id: str, task: Task) -> bool:
        record = self._records.get(task_id)
        if record is not None and not task.upstream and is_map(record.result):
            return False  # it has the values of then among its arguments
        if record is not None and (task.options.expands or task.item):
            return _literals(record, task) is not Comparison.UNKNOWN
        return _is_same(record, task)

    def forget_records(self) -> None:
        """Keep no records in memory that no task can need any more."""
        if not self._may_match:
            self._records.clear()
            self._order.clear()

    # ---- deciding

    def review(self, graph: Graph, task_ids: Sequence[str], *, checkpoint: bool) -> None:
        """Decide about the tasks of a continuation, and of those that it leads to.

        :param checkpoint: what tasks do that don't say whether they keep one.
        """
        self._review(GraphReview(graph, task_ids, checkpoint=checkpoint, is_top=False))

    def _review(self, review: GraphReview) -> None:
        reviews = [review]
        if self._is_first or self._knows_none_of(review.task_ids):
            self._decide_first(reviews.pop())
        while reviews:
            review = reviews[-1]
            if review.is_done:
                reviews.pop()
                if reviews:
                    reviews[-1].decided.append(review.outcome)
            elif (nested := self._decide_next(review)) is not None:
                if review.is_at_last:
                    # In its place, as its result is also that of its graph: loops may be endless.
                    nested.catches = nested.catches or review.catches
                    nested.recipe = nested.recipe if review.is_top else review.recipe
                    nested.is_open = nested.is_open or review.is_open
                    reviews.pop()
                reviews.append(nested)

    def _knows_none_of(self, task_ids: Sequence[str]) -> bool:
        """True for tasks without any trace in the storage: those of a new continuation, mostly."""
        known = (self._records.keys(), self._forgotten.keys(), self._rules.lost, self.decisions)
        return not any(task_id in one for one in known for task_id in task_ids)

    def _decide_first(self, review: GraphReview) -> None:
        """Decide about tasks that have no checkpoints: all of a kind get one decision."""
        tasks = Tasks.of(review.graph.tasks)
        decided: dict[tuple[int, bool], Decision] = {}
        for row, task_id in zip(tasks.rows, review.task_ids, strict=True):
            key = row[0], self._is_new(review, task_id)
            if key not in decided:
                decided[key] = self._decide(review, tasks.kinds[row[0]], task_id, None)
            self.decisions[task_id] = decided[key]
            self.counts[decided[key].kind] += 1

    def _decide_next(self, review: GraphReview) -> GraphReview | None:
        task, task_id = review.next_task
        if task_id in self.decisions:
            raise repeated(task_id)
        now = review.fingerprints_of(task, task_id, self._records.get(task_id))
        decision = self._decide(review, task, task_id, now)
        self.decisions[task_id] = decision
        self.counts[decision.kind] += 1
        record = decision.record
        if decision.action is TaskAction.REUSED and record and record.graph is not None:
            return self._nested(review, task, record, now)
        has_former = record is not None and record.graph is not None
        self._may_match |= has_former or decision.action is TaskAction.CHECKED
        order = self._order.get(task_id, -1)
        refers_to_lost = record is not None and review.refers_to_lost(task, record, order)
        is_lost = refers_to_lost or (record is None and task_id in self._rules.lost)
        seen = review.as_input(task, decision, now)
        if decision.reason == OTHER_OPTIONS and record is not None:
            # It gives what it gave, unless items have failed: these run again.
            is_suspect = not self._gives_again(self._nested(review, task, record, now))
            seen = seen._replace(is_suspect=is_suspect)
        review.decided.append(
            seen._replace(is_lost=is_lost, refers_to_lost=refers_to_lost, order=order)
        )
        return None

    def _nested(
        self, review: GraphReview, task: Task, record: TaskRecord, now: Fingerprints
    ) -> GraphReview:
        """The review of the continuation that a task has returned."""
        return GraphReview(
            self.continuation_of(record),
            record.task_ids,
            checkpoint=review.keeps(task),
            is_top=False,
            catches=task.options.catch_exceptions,
            recipe=now.recipe,
            is_open=review.is_open_at(task),
            since=None if review.since is None else max(review.since, record.epoch),
        )

    def _gives_again(self, nested: GraphReview) -> bool:
        """True if a continuation has given its result, and would give the same: nothing is decided by that."""
        trial = copy(self)
        trial.decisions, trial.counts = {}, Counter()
        trial._review(nested)
        return nested.is_done and nested.outcome.result is not None

    def _decide(
        self, review: GraphReview, task: Task, task_id: str, now: Fingerprints | None
    ) -> Decision:
        record = self._records.get(task_id)
        on_change = task.options.on_change or self._rules.on_change
        is_new = self._is_new(review, task_id)
        action, result = TaskAction.RUNS, None
        if record is None or now is None:
            reason = self._why_it_runs(review, task, task_id, is_new=is_new)
        else:
            action, reason = review.judge(task, record, now, is_strict=on_change != "reuse")
            if task_id in self._rules.final:
                action, reason = TaskAction.REUSED, "the workflow's output is of it"
            if not self._of_both.isdisjoint(record.task_ids):
                action, reason = (
                    TaskAction.RUNS,
                    "the graph has a task of the id of one that it made",
                )
            is_stale = task_id in self._expanded_anew
            if is_stale or review.refers_to_lost(task, record, self._order[task_id]):
                action, reason = TaskAction.RUNS, REFERS_TO_LOST
            if record.result is not None:
                result = review.as_taken(record.result, task)
                if result is None:
                    action, reason = TaskAction.RUNS, "it does not catch exceptions any more"
        return Decision(
            action=action,
            reason=reason,
            record=record,
            result=result,
            identity=result.identity if result and action is TaskAction.REUSED else "",
            is_new=is_new,
            is_forgotten=task_id in self._forgotten,
            on_change=on_change,
            fingerprints=now,
            catches=task.options.catch_exceptions,
        )

    def _is_new(self, review: GraphReview, task_id: str) -> bool:
        return review.is_top and self._known is not None and task_id not in self._known

    def _why_it_runs(self, review: GraphReview, task: Task, task_id: str, *, is_new: bool) -> str:
        if start := self._forgotten.get(task_id):
            return "restarted from it" if start == task_id else f"restarted from {start}"
        if is_new:
            return "it is new"
        if task_id in self._rules.lost:
            return "its checkpoint is damaged"
        return "it has no checkpoint yet" if review.keeps(task) else "it keeps no checkpoint"


def _places(graph: Graph) -> Iterator[tuple[str, int]]:
    """Where a graph has each task: those with an item by their names, the others one after the other."""
    seen: Counter[str] = Counter()
    for task in graph.tasks:
        name = task.full_name if task.item else ""
        yield name, seen[name]
        seen[name] += 1


def _same_functions(before: Graph, graph: Graph) -> Callable[[Task, Task], bool]:
    """Tells whether a task of the graph has the function of one before: of the same module and name."""
    then, now = (
        {known.blob: name for name, known in one.functions.items()} for one in (before, graph)
    )
    return lambda former, task: then.get(former.function) == now.get(task.function)


def _literals(record: TaskRecord, task: Task) -> Comparison:
    then = record.fingerprints
    return compare(then.literals, literals_of(task)) if then else Comparison.UNKNOWN


def _is_same(record: TaskRecord | None, task: Task) -> bool:
    then = record.fingerprints if record else None
    return (
        then is not None
        and compare(then.literals, literals_of(task)) is Comparison.SAME
        and compare(then.code, task.code) is Comparison.SAME
    )
