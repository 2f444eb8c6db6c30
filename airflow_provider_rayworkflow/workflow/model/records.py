"""The records that storage, manager and readers share. They know JSON, not I/O."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from airflow_provider_rayworkflow.workflow.format.documents import JsonRecord, well_typed
from airflow_provider_rayworkflow.workflow.format.pickling import pickled_by_fields
from airflow_provider_rayworkflow.workflow.format.shortening import MAX_NAME_BYTES, shorten
from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.failed_tasks import FailedTasks
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

Json = dict[str, Any]

_MAX_BASES = 100

#: Where a workflow's metadata says which task instance started it.
ORIGIN_KEY = "airflow"

#: What ``run`` does when the id exists: go on with it, raise, or start over.
OnExisting = Literal["resume", "fail", "restart"]

#: How large metadata may be, as JSON in bytes: it is written anew with each status.
MAX_METADATA_BYTES = 256 * 1024

#: What a resume does with a committed task that has changed since: keep it if only its code has
#: changed, run it again, or raise.
OnChange = Literal["reuse", "rerun_changed", "refuse"]

#: What a run does when a task has failed for good: end, or run whatever does not depend on it first.
OnFailure = Literal["stop", "finish"]

#: When a task runs: when all tasks upstream have given a value, or when all have ended, or then if
#: one of them has failed or could not run.
When = Literal["all_success", "all_done", "any_failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StartOptions:
    """How a workflow is started, resumed or attached to.

    :ivar on_existing: what to do if the id exists.
    :ivar on_change: what to do with committed tasks that have changed; None: as in the run before,
        else ``"reuse"``.
    :ivar on_failure: what to do when a task has failed; None: as in the run before, else ``"stop"``.
    :ivar from_task: a task whose checkpoint, with those of all that depend on it, does not count;
        ``""`` for none.
    :ivar is_new: the id was made for this start and is unique: the manager skips the look at what is
        stored.
    :ivar traceparent: the trace that its tasks' spans join; ``""``: as in the run before.
    :ivar is_awaited: a worker process waits for it: there is a place in the queue for it, however
        full that is.
    :ivar submission_id: of the submission that asks for the start, ``""`` for none. The claim carries it,
        and a start for a submission that has begun is none.
    :ivar is_recovery: a restarted manager goes on with what the one before it held.
    """

    on_existing: OnExisting = "resume"
    on_change: OnChange | None = None
    on_failure: OnFailure | None = None
    from_task: str = ""
    is_new: bool = False
    traceparent: str = ""
    is_awaited: bool = False
    submission_id: str = ""
    is_recovery: bool = False


class Asker(NamedTuple):
    """A worker process that waits for a workflow.

    :ivar workflow_id: the workflow whose task waits; ``""`` for an actor, a plain Ray task, or a
        thread that a task has started.
    :ivar epoch: of that workflow's run.
    """

    workflow_id: str = ""
    epoch: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFailure(JsonRecord):
    """Why a task failed, as text that needs no unpickling.

    :ivar task_id: the workflow task.
    :ivar type: the exception's type, ``module.name``.
    :ivar message: its text.
    :ivar traceback: its traceback, as Python prints it.
    :ivar cause: what it failed of.
    :ivar bases: the names of the exception's type and of those that it is derived from; of the
        first cause, where Ray or a workflow in the task has wrapped that.

    However long its texts are given: they are cut, see :func:`shorten`.
    """

    task_id: str
    type: str
    message: str
    traceback: str
    cause: Cause = Cause.APPLICATION
    bases: tuple[str, ...] = ()

    @property
    def system(self) -> bool:
        """True for a lost worker, node or object, False for an exception of the task."""
        return not self.cause.is_of_task

    @property
    def asks_to_skip(self) -> bool:
        """True for Airflow's ``AirflowSkipException``: the task asks that its task instance be skipped."""
        return self._is_airflows("AirflowSkipException")

    @property
    def asks_not_to_retry(self) -> bool:
        """True for Airflow's ``AirflowFailException``: no retry is of use."""
        return self._is_airflows("AirflowFailException")

    def _is_airflows(self, name: str) -> bool:
        # By name: where tasks run there may be no Airflow, and its module differs by version.
        return any(base.startswith("airflow.") and base.endswith(f".{name}") for base in self.bases)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", shorten(self.type, MAX_NAME_BYTES))
        bases = tuple(shorten(base, MAX_NAME_BYTES) for base in self.bases[:_MAX_BASES])
        object.__setattr__(self, "bases", bases)
        for name in ("message", "traceback"):
            object.__setattr__(self, name, shorten(getattr(self, name)))

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"

    @classmethod
    def from_json(cls, value: Json) -> TaskFailure:
        typed = {"bases": tuple(value["bases"]), "cause": Cause(value["cause"])}
        return well_typed(cls(**value | typed))


@pickled_by_fields
@dataclass(frozen=True, kw_only=True, slots=True)
class JsonOutput(JsonRecord):
    """A workflow's output for readers that must not unpickle.

    :ivar value: the output, when it is JSON and small enough.
    :ivar problem: why ``value`` is missing, else ``""``.
    """

    value: Any = None
    problem: str = ""

    def __post_init__(self) -> None:
        if self.problem:
            object.__setattr__(self, "problem", shorten(self.problem, MAX_NAME_BYTES))


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningTask:
    """A task that a worker has begun, or an event that is waited for.

    :ivar attempt: which one of this epoch.
    :ivar started_at: seconds since the epoch.
    :ivar node: the host name of the worker's machine or pod, ``""`` for an event.
    """

    task_id: str
    attempt: int
    started_at: float
    node: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedAttempt:
    """A task that is tried again, and why its last attempt failed.

    :ivar attempt: the one that failed.
    :ivar error: type and message, shortened.
    :ivar note: which budget has paid for it, what is left of that, and what the next attempt asks for
        if that is more, as text.
    """

    task_id: str
    attempt: int
    error: str
    cause: Cause = Cause.APPLICATION
    note: str = ""

    @property
    def text(self) -> str:
        """The error with its cause and the note."""
        return f"{self.error} ({'; '.join(filter(None, [self.cause, self.note]))})"

    @classmethod
    def from_json(cls, value: Json) -> FailedAttempt:
        return well_typed(cls(**value | {"cause": Cause(value["cause"])}))


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress(JsonRecord):
    """What a running workflow is doing, as far as it is written down: some seconds late.

    A task counts as running when its worker has said so, which it does after a second. Until then
    it may still wait for a worker.

    :ivar at: when this was so, in seconds since the epoch.
    :ivar submitted: tasks that are handed to Ray and have not come back.
    :ivar running_total: of these, how many are known to run.
    :ivar running: of these, those that run longest; at most :data:`SHOWN_TASKS`.
    :ivar retried: tasks whose last attempt failed and that are tried again; as many at most.
    :ivar limited: how many tasks wait for their limits, by the names of these.
    """

    at: float
    submitted: int = 0
    running_total: int = 0
    running: tuple[RunningTask, ...] = ()
    retried: tuple[FailedAttempt, ...] = ()
    limited: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Json) -> Progress:
        running = tuple(well_typed(RunningTask(**task)) for task in value.pop("running"))
        retried = tuple(map(FailedAttempt.from_json, value.pop("retried")))
        return well_typed(cls(**value, running=running, retried=retried))


#: How many tasks of a kind a progress names.
SHOWN_TASKS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class ReuseCounts(JsonRecord):
    """How a run found the tasks when it began, or would: how many of each kind.

    :ivar reused: their checkpoint counts.
    :ivar checked: it counts if what they take comes out as it did before.
    :ivar changed: they had one that does not count.
    :ivar new: the graph of the run before did not have them.
    :ivar unfinished: they had no checkpoint yet.
    :ivar dropped: tasks with a checkpoint that the graph does not have any more.
    """

    reused: int = 0
    checked: int = 0
    changed: int = 0
    new: int = 0
    unfinished: int = 0
    dropped: int = 0

    def __str__(self) -> str:
        """One line, for a log."""
        tasks = "task" if self.reused == 1 else "tasks"
        parts = [f"{self.reused} {tasks} reused", f"{self.changed} changed", f"{self.new} new"]
        parts.append(f"{self.dropped} dropped")
        if self.checked:
            parts.append(f"{self.checked} run again only if what they take changes")
        if self.unfinished:
            parts.append(f"{self.unfinished} not finished before")
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusRecord:
    """One status document.

    Times are seconds since the epoch. ``started_at`` and ``ended_at`` are of the latest run or
    resume, ``created_at`` of the first.

    :ivar epoch: the claim under which it was written.
    :ivar number: rises with each status of an epoch.
    :ivar changed_at: when it got this status, in seconds since the epoch; 0 where that is not known.
    :ivar manager_id: who wrote it.
    :ivar tasks_total: tasks known so far, continuations included.
    :ivar tasks_done: of these, how many have a checkpoint or have ended.
    :ivar tasks_reused: of these, how many an earlier run had committed.
    :ivar failed_attempts: of the latest run, by :class:`.Cause`; those that were tried again, too.
    :ivar reuse: what the latest run found of earlier ones; None for a first run, and in a run's
        first seconds.
    :ivar failed_tasks: all tasks that failed it, where there are several; ``failure`` is of the first.
    :ivar stopped_by: whose stop request ended it, the token of an owner; ``""`` for none.
    :ivar progress: while it runs, and when it has run for some seconds.
    """

    workflow_id: str
    status: WorkflowStatus
    epoch: int
    number: int
    manager_id: str
    created_at: float
    changed_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    user_metadata: Json = field(default_factory=dict)
    tasks_total: int = 0
    tasks_done: int = 0
    tasks_reused: int = 0
    failure: TaskFailure | None = None
    failed_tasks: FailedTasks | None = None
    output: JsonOutput | None = None
    stopped_by: str = ""
    progress: Progress | None = None
    reuse: ReuseCounts | None = None
    failed_attempts: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> Json:
        value = {name: getattr(self, name) for name in self.__slots__}
        parts = {name: part.to_json() for name in _PARTS if (part := value[name])}
        return value | parts | {"status": self.status.value}

    @classmethod
    def from_json(cls, value: Json) -> StatusRecord:
        parts = {name: value[name] and kind.from_json(value[name]) for name, kind in _PARTS.items()}
        return well_typed(cls(**value | parts | {"status": WorkflowStatus(value["status"])}))


_PARTS: dict[str, type[JsonRecord]] = {
    "failure": TaskFailure,
    "failed_tasks": FailedTasks,
    "output": JsonOutput,
    "progress": Progress,
    "reuse": ReuseCounts,
}


class Encoding(StrEnum):
    """How a stored value became bytes."""

    JSON = "json"
    PICKLE = "pickle"
    #: The result of a map, see :mod:`.stored_map`: it refers to other stored values.
    MAP = "map"


class Form(StrEnum):
    """What a task's stored bytes mean to those who use its result."""

    #: The value itself.
    VALUE = "value"
    #: ``catch_exceptions``: the result is ``(value, None)``.
    CAUGHT_VALUE = "caught_value"
    #: ``catch_exceptions``: the bytes are an exception, the result is ``(None, exception)``.
    CAUGHT_ERROR = "caught_error"


@pickled_by_fields
@dataclass(frozen=True, kw_only=True, slots=True)
class Blob:
    """A large value in an object of its own, written by the worker that made it.

    :ivar size: of the object, in bytes.
    :ivar sum: stands for the content: half of its SHA-256, and its length.
    """

    key: str
    size: int
    sum: str


class Result(NamedTuple):
    """A task's result: where its bytes are and what they mean.

    One of ``inline``, ``blob`` and ``ref`` is there; a large value has both a blob and a ref
    while the cluster that made it still holds it in memory.

    :ivar inline: the bytes.
    :ivar blob: the object that has them.
    :ivar ref: an opaque reference of the runner to the value in memory.
    :ivar encoding: of ``inline``.
    """

    form: Form = Form.VALUE
    encoding: Encoding = Encoding.PICKLE
    inline: bytes | None = None
    blob: Blob | None = None
    ref: Any = None

    @property
    def content(self) -> str:
        """What stands for the content, as the sum of a blob does; ``""`` if the result is not stored."""
        if self.inline is None:
            return self.blob.sum if self.blob is not None else ""
        if self.encoding is Encoding.MAP:
            return self.inline.partition(b"\n")[0].decode("ascii", "replace")
        return hashlib.sha256(self.inline).hexdigest()

    @property
    def identity(self) -> str:
        """A hash of the content, 16 hex digits; ``""`` if the result is not stored."""
        if self.inline is None and self.blob is None:
            return ""
        text = f"{self.form} {self.encoding} {self.content}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Fingerprints(NamedTuple):
    """What a checkpoint was made of; ``""`` for what is not known. See :mod:`.fingerprints`.

    :ivar literals: of the arguments, but for the results that the task took.
    :ivar recipe: of the arguments of all tasks that went into it, its own and those upstream.
    :ivar taken: of the results that it took.
    :ivar code: of its function; with that of tasks upstream that keep no checkpoint.
    """

    literals: str = ""
    recipe: str = ""
    taken: str = ""
    code: str = ""


class TaskTimes(NamedTuple):
    """When a task's last attempt began and ended, in seconds since the epoch, and which it was.

    :ivar node: the host name of the machine or pod that ran it, ``""`` where that is not known.
    """

    started_at: float
    ended_at: float
    attempt: int
    node: str = ""

    def to_json(self) -> Json:
        value = self._asdict()
        if not self.node:
            del value["node"]
        return value

    @classmethod
    def from_json(cls, value: Json) -> TaskTimes:
        return well_typed(cls(**value))
