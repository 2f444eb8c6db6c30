"""The review of one graph: each of its tasks is compared with its checkpoint, in order. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_rayworkflow.workflow.model.fingerprints import Comparison, combine, compare
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.records import Encoding, Fingerprints, Form, Result
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.scheduling.decision import (
    OTHER_OPTIONS,
    Decision,
    TaskAction,
)
from airflow_provider_rayworkflow.workflow.scheduling.levels import continuation_of
from airflow_provider_rayworkflow.workflow.scheduling.task_fingerprints import (
    TaskInput,
    derived_identity,
    literals_of,
    made_of,
)

_SAME_INPUTS = "its inputs are the same"


class GraphReview:
    """The tasks of one graph, decided about one after the other.

    :ivar decided: the tasks that are decided about, as inputs of those after them.
    :ivar catches: and ``recipe``: of the task whose continuation the graph is.
    :ivar is_open: that of the task whose continuation the graph is, see :meth:`is_open_at`.
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
        is_open: bool = False,
        since: int | None = None,
    ) -> None:
        self.is_top = is_top
        self.since = since
        self.graph = graph
        self.task_ids = task_ids
        self.checkpoint = checkpoint
        self.catches = catches
        self.recipe = recipe
        self.is_open = is_open
        self.decided: list[TaskInput] = []

    # ---- where it is

    @property
    def is_done(self) -> bool:
        return len(self.decided) == len(self.graph.tasks)

    @property
    def is_at_last(self) -> bool:
        return len(self.decided) == len(self.graph.tasks) - 1

    @property
    def next_task(self) -> tuple[Task, str]:
        return self.graph.tasks[len(self.decided)], self.task_ids[len(self.decided)]

    @property
    def outcome(self) -> TaskInput:
        """The task whose continuation the graph is, as its dependents see it."""
        last = self.decided[-1]
        result = last.result
        if result is not None and self.catches and result.form is Form.VALUE:
            result = result._replace(form=Form.CAUGHT_VALUE)
        return TaskInput(
            recipe=self.recipe,
            result=result,
            identity=result.identity if result else "",
            is_suspect=last.is_suspect,
            is_open=last.is_open or self.is_open,
            is_lost=last.is_lost,
            refers_to_lost=last.refers_to_lost,
            order=last.order,
        )

    # ---- one task

    def keeps(self, task: Task) -> bool:
        """True if the task keeps a checkpoint."""
        own = task.options.checkpoint
        return self.checkpoint if own is None else own

    def suspects(self, task: Task) -> list[str]:
        """The tasks upstream whose results may differ from those of the run before."""
        indexes = dict.fromkeys(task.upstream)
        return [self.task_ids[index] for index in indexes if self.decided[index].is_suspect]

    def refers_to_lost(self, task: Task, record: TaskRecord, order: int) -> bool:
        """True if the task's result may refer to a value that is lost: the result of a map refers to others.

        So it does also where a task upstream was committed again since. A continuation may have the result of a map
        among its arguments.

        :param order: of the record.
        """
        upstream = [self.decided[index] for index in task.upstream]
        if record.graph is not None:
            return any(
                one.refers_to_lost
                or (task.options.expands and is_map(one.result) and one.order > order)
                for one in upstream
            )
        if not is_map(record.result):
            return False
        return any(one.is_lost or one.order > order for one in upstream)

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
        return made_of(task, task_id, literals, [self.decided[index] for index in task.upstream])

    def judge(
        self, task: Task, record: TaskRecord, now: Fingerprints, *, is_strict: bool
    ) -> tuple[TaskAction, str]:
        """Compare the task with its checkpoint.

        :param now: what the task is made of now.
        :param is_strict: changed code makes the task run again.
        :returns: what becomes of the task, and the reason.
        """
        then = record.fingerprints or Fingerprints()
        if not task.options.expands or compare(then.code, now.code) is Comparison.SAME:
            return self._judge(task, record, then, now, is_strict=is_strict)
        as_code = now._replace(code=then.code)  # of a map, this says how its items run
        action, reason = self._judge(task, record, then, as_code, is_strict=is_strict)
        if action is TaskAction.RUNS:
            return action, reason
        has_other_code = action is TaskAction.CHECKED or self._has_other_functions(record)
        also = f", and {reason if action is TaskAction.CHECKED else 'other code'}"
        return TaskAction.RUNS, OTHER_OPTIONS + (also if has_other_code else "")

    def _has_other_functions(self, record: TaskRecord) -> bool:
        """True if a function of a stored continuation is another one now."""
        if record.graph is None:
            return False
        functions = self.graph.functions
        return any(
            name in functions and functions[name].code != known.code
            for name, known in continuation_of(record).functions.items()
        )

    def _judge(
        self,
        task: Task,
        record: TaskRecord,
        then: Fingerprints,
        now: Fingerprints,
        *,
        is_strict: bool,
    ) -> tuple[TaskAction, str]:
        arguments, code = compare(then.literals, now.literals), compare(then.code, now.code)
        if arguments is Comparison.CHANGED:
            return TaskAction.RUNS, "its arguments have changed"
        if is_strict and code is Comparison.CHANGED:
            return TaskAction.RUNS, "its code has changed"
        reused = _SAME_INPUTS + (", its code has changed" if code is Comparison.CHANGED else "")
        if task.options.takes_failures:
            return self._judge_by_ends(task, then, now, reused)
        if self._is_of_now(task, record):
            return TaskAction.REUSED, reused  # it was committed by a run of this very graph
        if is_strict and Comparison.UNKNOWN in (arguments, code):
            what = "arguments" if arguments is Comparison.UNKNOWN else "code"
            return TaskAction.RUNS, f"its {what} can't be compared"
        if suspects := self.suspects(task):
            return TaskAction.CHECKED, f"it takes what may change: {', '.join(suspects[:5])}"
        taken = compare(then.taken, now.taken)
        if taken is Comparison.CHANGED:
            return TaskAction.RUNS, "the results that it takes have changed"
        if taken is Comparison.UNKNOWN:
            # A result upstream is gone. It is not needed if nothing says that it changed.
            recipe = compare(then.recipe, now.recipe)
            if recipe is Comparison.CHANGED:
                return TaskAction.CHECKED, "what it takes is made of other arguments"
            if is_strict and recipe is Comparison.UNKNOWN:
                return TaskAction.RUNS, "what it takes can't be compared"
        if code is not Comparison.CHANGED and arguments is Comparison.UNKNOWN:
            return TaskAction.REUSED, "its checkpoint does not say what it was made of"
        return TaskAction.REUSED, reused

    def _judge_by_ends(
        self, task: Task, then: Fingerprints, now: Fingerprints, reused: str
    ) -> tuple[TaskAction, str]:
        """Judge a task that has run by how those that it takes have ended, with or without a value."""
        if then.taken == now.taken != "":
            return TaskAction.REUSED, reused
        if all(self.decided[index].result is not None for index in task.upstream):
            return TaskAction.RUNS, "the tasks that it takes have ended otherwise"
        return TaskAction.CHECKED, "the tasks that it takes may end otherwise"

    def _is_of_now(self, task: Task, record: TaskRecord) -> bool:
        """True if the task took just what the tasks upstream give in this graph."""
        is_open = any(self.decided[index].is_open for index in task.upstream)
        return not is_open and self.since is not None and record.epoch >= self.since

    def as_taken(self, result: Result, task: Task) -> Result | None:
        """A committed result of the next task, in the form that its options ask for now.

        :returns: None if it is an exception, which the task does not catch any more.
        """
        catches = task.options.catch_exceptions
        if catches and result.form is Form.VALUE:
            return result._replace(form=Form.CAUGHT_VALUE)
        # The output may be that of a continuation, whose tasks have options of their own.
        if catches or (self.is_top and self.is_at_last and not self.keeps(task)):
            return result
        if result.form is Form.CAUGHT_VALUE:
            return result._replace(form=Form.VALUE)
        return None if result.form is Form.CAUGHT_ERROR else result

    def is_open_at(self, task: Task) -> bool:
        """True if the task, or one upstream, may have taken a failure: its result may be another one now."""
        upstream = [self.decided[index] for index in task.upstream]
        return task.options.takes_failures or any(one.is_open for one in upstream)

    def as_input(self, task: Task, decision: Decision, now: Fingerprints) -> TaskInput:
        """The task, as its dependents see it.

        :param now: what the task is made of now.
        """
        keeps = self.keeps(task)
        is_suspect = bool(self.suspects(task))
        is_open = self.is_open_at(task)
        if decision.action is TaskAction.REUSED and decision.result is not None:
            return TaskInput(
                recipe=now.recipe,
                result=decision.result,
                identity=decision.identity,
                is_open=is_open,
            )
        if keeps:  # else what stands for its result is what it is made of, which is known
            is_suspect |= decision.kind in ("changed", "checked", "new")
        is_suspect |= is_open
        return TaskInput(
            recipe=now.recipe,
            identity="" if keeps or is_suspect else derived_identity(now),
            code="" if keeps else now.code,
            keeps=keeps,
            is_suspect=is_suspect,
            is_open=is_open,
        )


def is_map(result: Result | None) -> bool:
    """True for the result of a map, which refers to other stored values."""
    return result is not None and result.encoding is Encoding.MAP
