"""A workflow's tasks and edges as data, without Ray and without the user's objects.

Functions, arguments and Ray options are opaque bytes (``blobs``), each stored once however many
tasks share it. A task names its inputs by their position in ``upstream``; that is how the
pickled arguments refer to them, so that a graph can be put into another one unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeVar, overload

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError
from airflow_provider_rayworkflow.workflow.format.documents import (
    dump_frame,
    dump_line,
    load_frames,
    understanding,
)
from airflow_provider_rayworkflow.workflow.model.cache_options import CacheOptions
from airflow_provider_rayworkflow.workflow.model.escalation import Escalation
from airflow_provider_rayworkflow.workflow.model.ids import TaskIds
from airflow_provider_rayworkflow.workflow.model.map_rules import MapRules
from airflow_provider_rayworkflow.workflow.model.records import OnChange, When
from airflow_provider_rayworkflow.workflow.model.task_limits import TaskLimit

Json = dict[str, Any]
T = TypeVar("T")

#: Ray's own default for ``max_retries``.
DEFAULT_MAX_RETRIES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryOptions:
    """How a task's exceptions are retried. Lost workers and nodes have their own :mod:`.budgets`.

    The wait before attempt *n* + 1 is ``wait_initial_s * wait_factor ** (n - 1)``, at most
    ``wait_max_s``, and of that a random part between half and all.

    :ivar attempts: how often the task is tried in all.
    """

    attempts: int
    wait_initial_s: float = 1.0
    wait_factor: float = 2.0
    wait_max_s: float = 60.0

    def wait_s(self, failures: int, random: float) -> float:
        """The wait after so many failures; ``random`` is between 0 and 1."""
        try:
            wait = min(self.wait_max_s, self.wait_initial_s * self.wait_factor ** (failures - 1))
        except OverflowError:
            wait = self.wait_max_s if self.wait_initial_s else 0.0
        return wait * (0.5 + random / 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskOptions:
    """What the author asked for, as far as the scheduler decides by it.

    :ivar checkpoint: None = as the task that created it, True at the top.
    :ivar max_retries: how often to try again after failures of the system; -1 = without end.
    :ivar retry_exceptions: True if an exception may be retried; which ones, the worker knows.
    :ivar metadata: the author's JSON.
    :ivar retry: how exceptions are retried, in place of ``retry_exceptions``.
    :ivar timeout_s: an attempt that takes longer is stopped; None = no limit.
    :ivar is_event: it waits for something, and so runs beside the workers.
    :ivar isolate: it shares no Ray task with others.
    :ivar on_change: what a resume does if it has changed; None = as the call says.
    :ivar stop_grace_s: how long an attempt may go on when it is to be stopped; None = as is usual.
    :ivar max_preemptions: how often to try again after a lost node; -1 = without end; None, as for
        the next two, is the default, see :func:`.budget_of`.
    :ivar max_oom_retries: the same after a lack of memory.
    :ivar max_crashes: the same after the end of the worker.
    :ivar escalation: how its demands grow with its attempts; None = they do not.
    :ivar when: when it runs, by how the tasks upstream have ended.
    :ivar cleanup_s: it runs also after a cancel, for so long at most; None = not then.
    :ivar heartbeat_timeout_s: an attempt that is silent for longer is stopped; None = no limit.
    :ivar cache: which results of other workflows stand for its own; None = none.
    :ivar limits: that it shares with tasks of other workflows, in the order of their names.
    :ivar map_rules: of the map whose item it is; None = of none.
    :ivar expands: it gives the continuation of a map, whatever its items are.
    :ivar gathers: it takes the stored results themselves, and does not load them.
    """

    catch_exceptions: bool = False
    checkpoint: bool | None = None
    max_retries: int = DEFAULT_MAX_RETRIES
    retry_exceptions: bool = False
    metadata: Json = field(default_factory=dict)
    retry: RetryOptions | None = None
    timeout_s: float | None = None
    is_event: bool = False
    isolate: bool = False
    on_change: OnChange | None = None
    stop_grace_s: float | None = None
    max_preemptions: int | None = None
    max_oom_retries: int | None = None
    max_crashes: int | None = None
    escalation: Escalation | None = None
    when: When = "all_success"
    cleanup_s: float | None = None

    @property
    def takes_failures(self) -> bool:
        """True if it may run though a task upstream has failed."""
        return self.when != "all_success"

    heartbeat_timeout_s: float | None = None
    cache: CacheOptions | None = None
    limits: tuple[TaskLimit, ...] = ()
    map_rules: MapRules | None = None
    expands: bool = False
    gathers: bool = False

    @property
    def has_rate(self) -> bool:
        """True if one of its limits counts how many tasks begin in a time."""
        return bool(self.limits) and any(limit.rate is not None for limit in self.limits)

    @property
    def outlives_failures(self) -> bool:
        """True if it runs also when a failure stops all others. What gathers the items of a map has no such rule."""
        return self.takes_failures and not self.gathers

    @property
    def max_failed(self) -> int:
        """How many items of its map may fail, 0 for a task that is no item."""
        return self.map_rules.max_failed if self.map_rules else 0

    def to_json(self) -> Json:
        if self is DEFAULT_OPTIONS:
            return {}
        changed = {
            name: value
            for name in self.__slots__
            if (value := getattr(self, name)) != getattr(DEFAULT_OPTIONS, name)
        }
        if self.retry:
            changed["retry"] = asdict(self.retry)
        if self.escalation:
            changed["escalation"] = self.escalation.to_json()
        if self.cache:
            changed["cache"] = self.cache.to_json()
        if self.limits:
            changed["limits"] = [limit.to_json() for limit in self.limits]
        if self.map_rules:
            changed["map_rules"] = self.map_rules.to_json()
        return changed

    @classmethod
    def from_json(cls, value: Json) -> TaskOptions:
        if not value:
            return DEFAULT_OPTIONS
        retry = value.get("retry")
        escalation, cache = value.get("escalation"), value.get("cache")
        map_rules = value.get("map_rules")
        typed = {
            "retry": retry and RetryOptions(**retry),
            "escalation": escalation and Escalation.from_json(escalation),
            "cache": cache and CacheOptions.from_json(cache),
            "limits": tuple(map(TaskLimit.from_json, value.get("limits", ()))),
            "map_rules": map_rules and MapRules(**map_rules),
        }
        return cls(**value | typed)


DEFAULT_OPTIONS = TaskOptions()

Scalar = str | int | float | bool | None
Scalars = tuple[Scalar, ...]


class Shape(NamedTuple):
    """How plain arguments are put together of scalars, such as JSON gives back, and of inputs.

    :ivar places: for each argument the position of the input that it is, -1 for the next scalar.
    :ivar keywords: the names of the last arguments.
    """

    places: tuple[int, ...] = ()
    keywords: tuple[str, ...] = ()

    def fill(self, scalars: Sequence[T], inputs: Sequence[T]) -> tuple[list[T], dict[str, T]]:
        """Arguments and keyword arguments, of anything that stands for scalars and inputs."""
        if not self.keywords and not (inputs and scalars):
            return [inputs[place] for place in self.places] if inputs else list(scalars), {}
        rest = iter(scalars)
        values = [next(rest) if place < 0 else inputs[place] for place in self.places]
        named = len(values) - len(self.keywords)
        return values[:named], dict(zip(self.keywords, values[named:], strict=True))


#: Pickled, or plain ones.
Arguments = bytes | tuple[Scalars, Shape]


class Task(NamedTuple):
    """One task of a graph.

    :ivar name: the id that it asks for, without its item; :class:`TaskIds` makes it unique.
    :ivar function: index of its blob.
    :ivar named_by_author: False for a name made from the function.
    :ivar ray_options: index of the blob with the Ray options, -1 for none.
    :ivar shown_options: the Ray options as text, for people; no values of environment variables.
    :ivar code: the fingerprint of its function, or of the version that its author gave.
    :ivar shape: of its arguments.
    :ivar arguments: index of their blob, or where they are plain the scalars among them.
    :ivar upstream: indexes of the tasks whose results it takes, in the order of its arguments.
    :ivar literals: the fingerprint of arguments in a blob, but for the results that it takes.
    :ivar item: of a map, what tells it from the others of the same name; ``""`` for a task of no map.
    """

    # What many tasks of a graph have in common: their kind.
    name: str
    function: int
    named_by_author: bool = False
    ray_options: int = -1
    options: TaskOptions = DEFAULT_OPTIONS
    shown_options: Mapping[str, Any] = {}
    code: str = ""
    shape: Shape = Shape()
    # Their own.
    arguments: int | Scalars = ()
    upstream: tuple[int, ...] = ()
    literals: str = ""
    item: str = ""

    @property
    def full_name(self) -> str:
        """The id that it asks for."""
        return _full_name(self.name, self.item)


_SHARED = Task._fields.index("arguments")

#: Of a task: the index of its kind, and what is its own; its item only where it has one.
Row = (
    tuple[int, int | Scalars, tuple[int, ...], str]
    | tuple[int, int | Scalars, tuple[int, ...], str, str]
)


class Tasks(Sequence[Task]):
    """The tasks of a graph as rows: what many of them have in common is there once.

    :ivar kinds: tasks without anything of their own.
    """

    def __init__(self, kinds: Sequence[Task], rows: Sequence[Row]) -> None:
        self.kinds = kinds
        self.rows = rows
        self._shared = [kind[:_SHARED] for kind in kinds]

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> Tasks:
        """Make rows of tasks."""
        if isinstance(tasks, cls):
            return tasks
        kinds = [task._replace(arguments=(), upstream=(), literals="", item="") for task in tasks]
        rows = [
            row_of(index, task.arguments, task.upstream, task.literals, task.item)
            for index, task in enumerate(tasks)
        ]
        return cls(kinds, rows)

    def with_kinds(self, change: Callable[[Task], Task]) -> Tasks:
        """These tasks with their kinds changed."""
        return Tasks([change(kind) for kind in self.kinds], self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Tasks: ...
    def __getitem__(self, index: int | slice) -> Task | Tasks:
        if isinstance(index, slice):
            return Tasks(self.kinds, self.rows[index])
        row = self.rows[index]
        own = row[1:] if len(row) == 5 else (*row[1:], "")
        return Task._make(self._shared[row[0]] + own)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    def to_json(self) -> Json:
        return {"kinds": [_kind_to_json(kind) for kind in self.kinds], "tasks": self.rows}

    @classmethod
    def from_json(cls, value: Json) -> Tasks:
        kinds = [_kind_from_json(kind) for kind in value["kinds"]]
        return cls(kinds, [_row_from_json(*row) for row in value["tasks"]])

    def check(self, blobs: int) -> None:
        """Return if everything that tasks refer to is there.

        :param blobs: how many there are.
        :raises ValueError: if not.
        """
        for kind in self.kinds:
            if not _is_whole(kind, blobs):
                raise ValueError(f"the tasks {kind.name!r:.100} refer to what is not there")
        sizes = [_sizes(kind.shape) for kind in self.kinds]
        for index, (kind_index, arguments, upstream, literals, *item) in enumerate(self.rows):
            scalars, inputs = sizes[kind_index]
            if isinstance(arguments, int):
                is_good = 0 <= arguments < blobs
            else:
                is_good = len(arguments) == scalars and len(upstream) >= inputs
            if upstream:
                is_good = is_good and min(upstream) >= 0 and max(upstream) < index
                is_good = is_good and _INT.issuperset(map(type, upstream))
            is_good = is_good and type(literals) is str and (not item or type(item[0]) is str)
            if not (is_good and kind_index >= 0):
                raise ValueError(f"task {index} refers to what is not there")


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedFunction:
    """A function that is pickled with its code, and that its module and name find again.

    :ivar blob: index of its blob.
    :ivar code: its fingerprint.
    """

    blob: int
    code: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """Tasks, inputs before the tasks that use them; the last one gives the output.

    :ivar functions: by name, the functions of its tasks and of those that its tasks may make.
    :ivar code: which code its workers import (:func:`.code_of`), also for continuations of its tasks.
    """

    tasks: Sequence[Task]
    blobs: Sequence[bytes]
    functions: Mapping[str, NamedFunction] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> Json:
        value = Tasks.of(self.tasks).to_json()
        if self.functions:
            value["functions"] = {name: asdict(known) for name, known in self.functions.items()}
        if self.code:
            value["code"] = dict(self.code)
        return value

    @classmethod
    def from_json(cls, value: Json, blobs: Sequence[bytes]) -> Graph:
        tasks = Tasks.from_json(value)
        tasks.check(len(blobs))
        functions = value.get("functions", {})
        return cls(
            tasks=tasks,
            blobs=blobs,
            functions={name: NamedFunction(**known) for name, known in functions.items()},
            code={str(name): str(text) for name, text in value.get("code", {}).items()},
        )

    def arguments_of(self, task: Task) -> Arguments:
        """The arguments of a task: pickled ``(args, kwargs, retryable)``, or scalars and shape."""
        if isinstance(task.arguments, int):
            return self.blobs[task.arguments]
        return task.arguments, task.shape

    def to_bytes(self) -> bytes:
        """The graph on its own, as a worker returns a continuation."""
        return b"".join([dump_line("graph", self.to_json()), *self.dump_blobs()])

    @classmethod
    def from_bytes(cls, data: bytes, *, key: str = "") -> Graph:
        """Read what :meth:`to_bytes` made; ``key`` names it in errors."""
        body, frames = load_frames(key, "graph", data)
        return read_graph(key, body, list(frames))

    def dump_blobs(self) -> list[bytes | bytearray | memoryview]:
        """The blobs as one frame, to stand behind the JSON."""
        return dump_frame({"sizes": [len(blob) for blob in self.blobs]}, self.blobs)


def allocate_ids(graph: Graph, ids: TaskIds) -> list[str]:
    """Unique ids for a graph's tasks, in their order; names that authors gave go first."""
    tasks = Tasks.of(graph.tasks)
    ids.reserve({kind.name for kind in tasks.kinds if kind.named_by_author})
    names = [kind.name for kind in tasks.kinds]
    return [
        ids.allocate(_full_name(names[row[0]], row[4]) if len(row) == 5 else names[row[0]])
        for row in tasks.rows
    ]


def read_graph(key: str, body: Json, frames: list[tuple[Json, memoryview]]) -> Graph:
    """Put a graph together from its document's JSON and frames.

    :raises CorruptedDataError: when the frame with the blobs is missing.
    """
    if not frames:
        raise CorruptedDataError(key, "the functions and arguments of its graph are missing")
    header, payload = frames[0]
    blobs, start = [], 0
    with understanding(key, "graph"):
        for size in header["sizes"]:
            blobs.append(bytes(payload[start : start + size]))
            start += size
        return Graph.from_json(body, blobs)


def _is_whole(kind: Task, blobs: int) -> bool:
    places, keywords = kind.shape
    return (
        isinstance(kind.name, str)
        and 0 <= kind.function < blobs
        and kind.ray_options < blobs
        and {type(place) for place in places} <= {int}
        and {type(name) for name in keywords} <= {str}
        and len(set(keywords)) == len(keywords) <= len(places)
    )


def _sizes(shape: Shape) -> tuple[int, int]:
    """How many scalars and inputs it needs."""
    scalars = sum(place < 0 for place in shape.places)
    return scalars, max(shape.places, default=-1) + 1


def _kind_to_json(kind: Task) -> Json:
    value: Json = {"name": kind.name, "function": kind.function}
    if kind.named_by_author:
        value["named_by_author"] = True
    if kind.ray_options >= 0:
        value["ray_options"] = kind.ray_options
    if options := kind.options.to_json():
        value["options"] = options
    if kind.shown_options:
        value["shown_options"] = kind.shown_options
    if kind.code:
        value["code"] = kind.code
    if kind.shape != Shape():
        value["shape"] = kind.shape
    return value


def _kind_from_json(value: Json) -> Task:
    options = TaskOptions.from_json(value.get("options", {}))
    shape = Shape(*map(tuple, value.get("shape", ())))
    return Task(**value | {"options": options, "shape": shape})


def row_of(
    kind: int, arguments: int | Scalars, upstream: tuple[int, ...], literals: str, item: str = ""
) -> Row:
    """The row of a task."""
    row = kind, arguments, upstream, literals
    return (*row, item) if item else row


def _full_name(name: str, item: str) -> str:
    return f"{name}[{item}]" if item else name


def _row_from_json(
    kind: int, arguments: Any, upstream: list[int], literals: str, item: str = ""
) -> Row:
    if type(arguments) is not int:
        arguments = tuple(arguments)
        if not _SCALARS.issuperset(map(type, arguments)):
            raise TypeError(f"{arguments!r:.100} are no scalars")
    return row_of(kind, arguments, tuple(upstream), literals, item)


_SCALARS = frozenset({str, int, float, bool, type(None)})
_INT = frozenset({int})
