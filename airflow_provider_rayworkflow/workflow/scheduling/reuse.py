"""What of earlier runs is used again: a graph and committed records in, decisions with reasons out.

Pure. A :class:`Snapshot` holds the decisions for all who ask which checkpoints count;
a schedule goes on from them.

A committed task is used again as long as what it was made of is the same: its arguments, and the
results that it took. A task upstream that runs again does not count as a change by itself: whether
it gives another result is seen when it has one. Until then, the tasks that take it are *checked*.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

from airflow_provider_rayworkflow.workflow.model.fingerprints import (
    Comparison,
    combine,
    compare,
    of_arguments,
    of_input,
    of_scalar,
    of_text,
)
from airflow_provider_rayworkflow.workflow.model.graph import (
    Graph,
    NamedFunction,
    Shape,
    Task,
    Tasks,
)
from airflow_provider_rayworkflow.workflow.model.records import Fingerprints, Form, OnChange, Result
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.scheduling.levels import (
    continuation_of,
    forgotten,
    repeated,
)


class Verdict(Enum):
    """What becomes of a task."""

    #: Its checkpoint counts.
    REUSED = "reused"
    #: Its checkpoint counts if the tasks upstream that run give the results that it took.
    CHECKED = "checked"
    #: It runs, if somebody needs its result.
    RUNS = "runs"


class Decision(NamedTuple):
    """What becomes of a task, and why.

    :ivar reason: for people.
    :ivar record: the checkpoint that is used, is checked, or has become void by a change.
    :ivar result: of the record, as those who take it get it; None if it is a continuation.
    :ivar identity: of the result of a task that is reused, else ``""``.
    :ivar is_new: the graph of the run before did not have the task.
    :ivar is_forgotten: its checkpoint does not count because the workflow was restarted from it or
        from a task upstream.
    :ivar on_change: the policy that holds for the task.
    :ivar fingerprints: of the task now; what it takes is not known yet. None where there is nothing
        to compare them with.
    :ivar catches: the task catches exceptions, also of its continuation.
    """

    verdict: Verdict
    reason: str
    record: TaskRecord | None = None
    result: Result | None = None
    identity: str = ""
    is_new: bool = False
    is_forgotten: bool = False
    on_change: OnChange = "reuse"
    fingerprints: Fingerprints | None = None
    catches: bool = False

    @property
    def kind(self) -> str:
        """How it is counted: a field of :class:`ReuseCounts`."""
        if self.verdict is not Verdict.RUNS:
            return str(self.verdict.value)
        if self.record is not None or self.is_forgotten:
            return "changed"
        return "new" if self.is_new else "unfinished"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """By what is decided.

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
        self._forgotten = forgotten(graph, task_ids, records, rules.restarts)
        self._records = {
            task_id: record for task_id, record in records.items() if task_id not in self._forgotten
        }
        self._known = None if rules.known is None else frozenset(rules.known)
        self._is_first = not (records or rules.lost)
        self._may_match = False
        self.decisions: dict[str, Decision] = {}
        self.counts: Counter[str] = Counter()
        top = _Level(graph, task_ids, checkpoint=True, is_top=True, since=rules.graph_epoch)
        self._review(top)

    # ---- asking

    def take(self, task_id: str) -> Decision:
        """The decision about a task; asked for once."""
        return self.decisions.pop(task_id)

    def holds(self, decision: Decision, taken: str) -> bool:
        """True if a checked task took just these results: it need not run again."""
        stored = decision.record.fingerprints if decision.record else None
        return stored is not None and stored.taken == taken != ""

    def continuation_of(self, record: TaskRecord) -> Graph:
        """A stored continuation, with the functions of now in the place of older ones.

        Its tasks were pickled with the code of then; a correction would not reach them.
        """
        return with_functions(continuation_of(record), self._graph)

    def match(self, former: TaskRecord | None, graph: Graph) -> dict[int, str]:
        """Which tasks of a new continuation were tasks of the former one, by position and content.

        Only tasks with a checkpoint, whose function, arguments and inputs are the same. What they
        take is compared as for any other task.

        :returns: their ids by position.
        """
        if former is None or former.graph is None:
            return {}
        before = continuation_of(former)
        pairs = zip(graph.tasks, before.tasks, former.task_ids, strict=False)
        return {
            position: task_id
            for position, (now, then, task_id) in enumerate(pairs)
            if (now.name, now.upstream) == (then.name, then.upstream)
            and _is_same(self._records.get(task_id), now)
        }

    def forget_records(self) -> None:
        """Keep no records in memory that no task can need any more."""
        if not self._may_match:
            self._records.clear()

    # ---- deciding

    def review(self, graph: Graph, task_ids: Sequence[str], *, checkpoint: bool) -> None:
        """Decide about the tasks of a continuation, and of those that it leads to.

        :param checkpoint: what tasks do that don't say whether they keep one.
        """
        self._review(_Level(graph, task_ids, checkpoint=checkpoint, is_top=False))

    def _review(self, level: _Level) -> None:
        levels = [level]
        if self._is_first:
            self._decide_first(levels.pop())
        while levels:
            level = levels[-1]
            if level.is_done:
                levels.pop()
                if levels:
                    levels[-1].known.append(level.outcome)
            elif (nested := self._decide_next(level)) is not None:
                if level.is_at_last:
                    # In its place, as its result is also that of the level: loops may be endless.
                    nested.catches = nested.catches or level.catches
                    nested.recipe = nested.recipe if level.is_top else level.recipe
                    levels.pop()
                levels.append(nested)

    def _decide_first(self, level: _Level) -> None:
        """Decide about tasks none of which has a checkpoint: those of a kind have the same lot."""
        tasks = Tasks.of(level.graph.tasks)
        decided: dict[tuple[int, bool], Decision] = {}
        for row, task_id in zip(tasks.rows, level.task_ids, strict=True):
            key = row[0], self._is_new(level, task_id)
            if key not in decided:
                decided[key] = self._decide(level, tasks.kinds[row[0]], task_id, None)
            self.decisions[task_id] = decided[key]
            self.counts[decided[key].kind] += 1

    def _decide_next(self, level: _Level) -> _Level | None:
        task, task_id = level.next_task
        if task_id in self.decisions:
            raise repeated(task_id)
        now = level.fingerprints_of(task, task_id, self._records.get(task_id))
        decision = self._decide(level, task, task_id, now)
        self.decisions[task_id] = decision
        self.counts[decision.kind] += 1
        record = decision.record
        if decision.verdict is Verdict.REUSED and record and record.graph is not None:
            return _Level(
                self.continuation_of(record),
                record.task_ids,
                checkpoint=level.keeps(task),
                is_top=False,
                catches=task.options.catch_exceptions,
                recipe=now.recipe,
                since=None if level.since is None else max(level.since, record.epoch),
            )
        has_former = record is not None and record.graph is not None
        self._may_match |= has_former or decision.verdict is Verdict.CHECKED
        level.known.append(level.known_of(task, decision, now))
        return None

    def _decide(
        self, level: _Level, task: Task, task_id: str, now: Fingerprints | None
    ) -> Decision:
        record = self._records.get(task_id)
        on_change = task.options.on_change or self._rules.on_change
        is_new = self._is_new(level, task_id)
        verdict, result = Verdict.RUNS, None
        if record is None or now is None:
            reason = self._why_it_runs(level, task, task_id, is_new=is_new)
        else:
            verdict, reason = _judge(level, task, record, now, is_strict=on_change != "reuse")
            if task_id in self._rules.final:
                verdict, reason = Verdict.REUSED, "the workflow's output is of it"
            if record.result is not None:
                is_of_others = level.is_top and level.is_at_last and not level.keeps(task)
                result = _as_taken(record.result, task, is_of_others=is_of_others)
                if result is None:
                    verdict, reason = Verdict.RUNS, "it does not catch exceptions any more"
        return Decision(
            verdict=verdict,
            reason=reason,
            record=record,
            result=result,
            identity=result.identity if result and verdict is Verdict.REUSED else "",
            is_new=is_new,
            is_forgotten=task_id in self._forgotten,
            on_change=on_change,
            fingerprints=now,
            catches=task.options.catch_exceptions,
        )

    def _is_new(self, level: _Level, task_id: str) -> bool:
        return level.is_top and self._known is not None and task_id not in self._known

    def _why_it_runs(self, level: _Level, task: Task, task_id: str, *, is_new: bool) -> str:
        if start := self._forgotten.get(task_id):
            return "restarted from it" if start == task_id else f"restarted from {start}"
        if is_new:
            return "it is new"
        if task_id in self._rules.lost:
            return "its checkpoint is damaged"
        return "it has no checkpoint yet" if level.keeps(task) else "it keeps no checkpoint"


def needed(graph: Graph, task_ids: Sequence[str], decisions: Mapping[str, Decision]) -> set[int]:
    """Those of a graph's tasks whose results are needed for that of its last one."""
    wanted: set[int] = set()
    pending = [len(graph.tasks) - 1]
    while pending:
        index = pending.pop()
        if index not in wanted:
            wanted.add(index)
            if decisions[task_ids[index]].verdict is not Verdict.REUSED:
                pending.extend(graph.tasks[index].upstream)
    return wanted


def with_functions(graph: Graph, given: Graph) -> Graph:
    """A stored graph with the functions of the given one in the place of those of the same names.

    A function that can be imported is pickled by its name, and so is the one of now anyhow.
    """
    blobs = list(graph.blobs)
    current: dict[int, tuple[int, NamedFunction, NamedFunction]] = {}
    for name, then in graph.functions.items():
        now = given.functions.get(name)
        if now is not None and given.blobs[now.blob] != graph.blobs[then.blob]:
            current[then.blob] = (len(blobs), then, now)
            blobs.append(given.blobs[now.blob])
    if not current:
        return graph

    def with_function(kind: Task) -> Task:
        if kind.function not in current:
            return kind
        blob, then, now = current[kind.function]
        return kind._replace(function=blob, code=now.code if kind.code == then.code else kind.code)

    return replace(graph, tasks=Tasks.of(graph.tasks).with_kinds(with_function), blobs=blobs)


# ---- one graph


class Known(NamedTuple):
    """What those that take a task's result have to know of it.

    :ivar identity: of its result, ``""`` if that is not known yet.
    :ivar code: of a task that keeps no checkpoint: it counts for those that take its result.
    :ivar is_suspect: its result may be another one than in the run before.
    """

    recipe: str
    result: Result | None = None
    identity: str = ""
    code: str = ""
    keeps: bool = True
    is_suspect: bool = False


class _Level:
    """The tasks of one graph, decided about one after the other.

    :ivar known: of those that are.
    :ivar catches: and ``recipe``: of the task whose continuation it is.
    :ivar since: the epoch from which on checkpoints are of this very graph, None if not known.
    """

    def __init__(
        self,
        graph: Graph,
        task_ids: Sequence[str],
        *,
        checkpoint: bool,
        is_top: bool,
        catches: bool = False,
        recipe: str = "",
        since: int | None = None,
    ) -> None:
        self.is_top = is_top
        self.since = since
        self.graph = graph
        self.task_ids = task_ids
        self.checkpoint = checkpoint
        self.catches = catches
        self.recipe = recipe
        self.known: list[Known] = []

    @property
    def is_done(self) -> bool:
        return len(self.known) == len(self.graph.tasks)

    @property
    def is_at_last(self) -> bool:
        return len(self.known) == len(self.graph.tasks) - 1

    @property
    def next_task(self) -> tuple[Task, str]:
        return self.graph.tasks[len(self.known)], self.task_ids[len(self.known)]

    def keeps(self, task: Task) -> bool:
        """True if the task keeps a checkpoint."""
        own = task.options.checkpoint
        return self.checkpoint if own is None else own

    def has_made(self, record: TaskRecord) -> bool:
        """True if the record was committed by a run of this very graph."""
        return self.since is not None and record.epoch >= self.since

    def suspects(self, task: Task) -> list[str]:
        """The tasks that it takes the results of and that may give other ones."""
        indexes = dict.fromkeys(task.upstream)
        return [self.task_ids[index] for index in indexes if self.known[index].is_suspect]

    def fingerprints_of(self, task: Task, task_id: str, record: TaskRecord | None) -> Fingerprints:
        """What the task is made of now.

        :param record: its own, which saves work where it takes no results.
        """
        literals = literals_of(task)
        then = record.fingerprints if record else None
        if not task.upstream and then is not None and then.literals == literals:
            return Fingerprints(
                literals=literals, recipe=then.recipe, taken=combine(), code=task.code
            )
        return made_of(task, task_id, literals, [self.known[index] for index in task.upstream])

    def known_of(self, task: Task, decision: Decision, now: Fingerprints) -> Known:
        keeps = self.keeps(task)
        is_suspect = bool(self.suspects(task))
        if decision.verdict is Verdict.REUSED and decision.result is not None:
            return Known(recipe=now.recipe, result=decision.result, identity=decision.identity)
        if keeps:  # else what stands for its result is what it is made of, which is known
            is_suspect |= decision.kind in ("changed", "checked", "new")
        return Known(
            recipe=now.recipe,
            identity="" if keeps or is_suspect else derived_identity(now),
            code="" if keeps else now.code,
            keeps=keeps,
            is_suspect=is_suspect,
        )

    @property
    def outcome(self) -> Known:
        """What is known of the task whose continuation it is."""
        last = self.known[-1]
        result = last.result
        if result is not None and self.catches and result.form is Form.VALUE:
            result = result._replace(form=Form.CAUGHT_VALUE)
        return Known(
            recipe=self.recipe,
            result=result,
            identity=result.identity if result else "",
            is_suspect=last.is_suspect,
        )


def made_of(task: Task, task_id: str, literals: str, upstream: Sequence[Known]) -> Fingerprints:
    """What goes into a task's result, given what its arguments are and what it takes."""
    return Fingerprints(
        literals=literals,
        recipe=combine(literals, of_text(task_id), *[other.recipe for other in upstream]),
        taken=combine(*[other.identity for other in upstream]),
        code=combined_code(task, [other.code for other in upstream if not other.keeps]),
    )


def literals_of(task: Task) -> str:
    """The fingerprint of a task's arguments, but for the results that it takes."""
    if isinstance(task.arguments, int):
        return task.literals
    if not task.arguments:
        return _of_shape(task.shape, len(task.upstream))
    scalars = [of_scalar(value) for value in task.arguments]
    inputs = [of_input(position) for position in range(len(task.upstream))]
    return of_arguments(*task.shape.fill(scalars, inputs))


@functools.lru_cache(maxsize=1_000)
def _of_shape(shape: Shape, inputs: int) -> str:
    return of_arguments(*shape.fill([], [of_input(position) for position in range(inputs)]))


def combined_code(task: Task, uncheckpointed: Sequence[str]) -> str:
    """The code that a task's checkpoint is made by.

    :param uncheckpointed: code of the tasks upstream that keep no checkpoint: they count as parts
        of those that take their results.
    """
    return combine(task.code, *uncheckpointed) if uncheckpointed else task.code


def derived_identity(fingerprints: Fingerprints) -> str:
    """What stands for the result of a task that keeps no checkpoint: what that is made of."""
    return combine(fingerprints.literals, fingerprints.taken)


def _judge(
    level: _Level, task: Task, record: TaskRecord, now: Fingerprints, *, is_strict: bool
) -> tuple[Verdict, str]:
    then = record.fingerprints or Fingerprints()
    arguments, code = compare(then.literals, now.literals), compare(then.code, now.code)
    if arguments is Comparison.CHANGED:
        return Verdict.RUNS, "its arguments have changed"
    if is_strict and code is Comparison.CHANGED:
        return Verdict.RUNS, "its code has changed"
    if level.has_made(record):
        changed = code is Comparison.CHANGED
        return Verdict.REUSED, _SAME_INPUTS + (", its code has changed" if changed else "")
    if is_strict and Comparison.UNKNOWN in (arguments, code):
        what = "arguments" if arguments is Comparison.UNKNOWN else "code"
        return Verdict.RUNS, f"its {what} can't be compared"
    if suspects := level.suspects(task):
        return Verdict.CHECKED, f"it takes what may change: {', '.join(suspects[:5])}"
    taken = compare(then.taken, now.taken)
    if taken is Comparison.CHANGED:
        return Verdict.RUNS, "the results that it takes have changed"
    if taken is Comparison.UNKNOWN:
        # A result upstream is not there any more. It is not needed if nothing says that it changed.
        recipe = compare(then.recipe, now.recipe)
        if recipe is Comparison.CHANGED:
            return Verdict.CHECKED, "what it takes is made of other arguments"
        if is_strict and recipe is Comparison.UNKNOWN:
            return Verdict.RUNS, "what it takes can't be compared"
    if code is Comparison.CHANGED:
        return Verdict.REUSED, f"{_SAME_INPUTS}, its code has changed"
    if arguments is Comparison.UNKNOWN:
        return Verdict.REUSED, "its checkpoint does not say what it was made of"
    return Verdict.REUSED, _SAME_INPUTS


_SAME_INPUTS = "its inputs are the same"


def _as_taken(result: Result, task: Task, *, is_of_others: bool) -> Result | None:
    """A committed result as the task's options of now want it; None if they can't have it.

    :param is_of_others: the options are perhaps not those of the task that made it.
    """
    catches = task.options.catch_exceptions
    if catches and result.form is Form.VALUE:
        return result._replace(form=Form.CAUGHT_VALUE)
    if catches or is_of_others:
        return result
    if result.form is Form.CAUGHT_VALUE:
        return result._replace(form=Form.VALUE)
    return None if result.form is Form.CAUGHT_ERROR else result


def _is_same(record: TaskRecord | None, task: Task) -> bool:
    then = record.fingerprints if record else None
    return (
        then is not None
        and compare(then.literals, literals_of(task)) is Comparison.SAME
        and compare(then.code, task.code) is Comparison.SAME
    )
