"""A workflow's tasks and edges as data, without Ray and without the user's objects.

Functions, arguments and Ray options are opaque bytes (``blobs``), each stored once however many
tasks share it. A task names its inputs by their position in ``upstream``; that is how the
pickled arguments refer to them, so that a graph can be put into another one unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from airflow_provider_rayworkflow.workflow.documents import (
    dump_frame,
    dump_line,
    load_frames,
    understanding,
)
from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError
from airflow_provider_rayworkflow.workflow.ids import TaskIds
from airflow_provider_rayworkflow.workflow.model import OnChange

Json = dict[str, Any]

#: Ray's own default for ``max_retries``.
DEFAULT_MAX_RETRIES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryOptions:
    """How a task's exceptions are retried. Lost workers have their own budget, ``max_retries``.

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
    :ivar max_retries: how often to try again; -1 = without end.
    :ivar retry_exceptions: True if an exception may be retried; which ones, the worker knows.
    :ivar metadata: the author's JSON.
    :ivar retry: how exceptions are retried, in place of ``retry_exceptions``.
    :ivar timeout_s: an attempt that takes longer is stopped; None = no limit.
    :ivar is_event: it waits for something, and so runs beside the workers.
    :ivar isolate: it shares no Ray task with others.
    :ivar on_change: what a resume does if it has changed; None = as the call says.
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

    def to_json(self) -> Json:
        if self is DEFAULT_OPTIONS:
            return {}
        changed = {
            name: value
            for name in self.__slots__
            if (value := getattr(self, name)) != getattr(DEFAULT_OPTIONS, name)
        }
        return changed | {"retry": asdict(self.retry)} if self.retry else changed

    @classmethod
    def from_json(cls, value: Json) -> TaskOptions:
        if not value:
            return DEFAULT_OPTIONS
        retry = value.get("retry")
        return cls(**value | {"retry": retry and RetryOptions(**retry)})


DEFAULT_OPTIONS = TaskOptions()


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One task of a graph.

    :ivar name: the id that it asks for; :class:`~.ids.TaskIds` makes it unique.
    :ivar named_by_author: False for a name made from the function.
    :ivar function: index of its blob.
    :ivar arguments: index of its blob.
    :ivar ray_options: index of the blob with the Ray options, -1 for none.
    :ivar upstream: indexes of the tasks whose results it takes, in the order of its arguments.
    :ivar shown_options: the Ray options as text, for people; no values of environment variables.
    :ivar literals: the fingerprint of its arguments, but for the results that it takes.
    :ivar code: the fingerprint of its function, or of the version that its author gave.
    """

    name: str
    function: int
    arguments: int
    upstream: tuple[int, ...] = ()
    named_by_author: bool = False
    ray_options: int = -1
    options: TaskOptions = DEFAULT_OPTIONS
    shown_options: Json = field(default_factory=dict)
    literals: str = ""
    code: str = ""


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
    """

    tasks: Sequence[Task]
    blobs: Sequence[bytes]
    functions: Mapping[str, NamedFunction] = field(default_factory=dict)

    def to_json(self) -> Json:
        codes: dict[str, int] = {}  # each stored once, as many tasks share one
        tasks = [_task_to_json(task, codes) for task in self.tasks]
        value: Json = {"tasks": tasks}
        if codes:
            value["codes"] = list(codes)
        if self.functions:
            value["functions"] = {name: asdict(known) for name, known in self.functions.items()}
        return value

    @classmethod
    def from_json(cls, value: Json, blobs: Sequence[bytes]) -> Graph:
        codes = value.get("codes", ())
        functions = value.get("functions", {})
        tasks = [_task_from_json(task, codes) for task in value["tasks"]]
        for index, task in enumerate(tasks):
            _check_indexes(index, task, len(blobs))
        return cls(
            tasks=tasks,
            blobs=blobs,
            functions={name: NamedFunction(**known) for name, known in functions.items()},
        )

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
    ids.reserve({task.name for task in graph.tasks if task.named_by_author})
    return [ids.allocate(task.name) for task in graph.tasks]


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


def _check_indexes(index: int, task: Task, blobs: int) -> None:
    is_good = (
        isinstance(task.name, str)
        and 0 <= task.function < blobs
        and 0 <= task.arguments < blobs
        and task.ray_options < blobs
        and all(0 <= other < index for other in task.upstream)
    )
    if not is_good:
        raise ValueError(f"task {index} refers to what is not there")


def _task_to_json(task: Task, codes: dict[str, int]) -> Json:
    value: Json = {"name": task.name, "function": task.function, "arguments": task.arguments}
    if task.upstream:
        value["upstream"] = task.upstream
    if task.named_by_author:
        value["named_by_author"] = True
    if task.ray_options >= 0:
        value["ray_options"] = task.ray_options
    if options := task.options.to_json():
        value["options"] = options
    if task.shown_options:
        value["shown_options"] = task.shown_options
    if task.literals:
        value["literals"] = task.literals
    if task.code:
        value["code"] = codes.setdefault(task.code, len(codes))
    return value


def _task_from_json(value: Json, codes: Sequence[str]) -> Task:
    return Task(
        **value
        | {
            "upstream": tuple(value.get("upstream", ())),
            "options": TaskOptions.from_json(value.get("options", {})),
            "code": codes[value["code"]] if "code" in value else "",
        }
    )
