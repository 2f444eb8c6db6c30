"""The commands of ``rayworkflow``, and how they are called.

What only reads (list, status, watch, graph, output) needs the storage and nothing else: no Ray, and nothing
is unpickled. What acts goes through the API and so through the manager of a Ray cluster.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

from airflow_provider_rayworkflow.workflow import api
from airflow_provider_rayworkflow.workflow.cli.watch import watch
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowError
from airflow_provider_rayworkflow.workflow.format.shown_text import escaped, one_line
from airflow_provider_rayworkflow.workflow.import_path import check_call, load_function
from airflow_provider_rayworkflow.workflow.model.event_posts import read_settings
from airflow_provider_rayworkflow.workflow.model.graph import DEFAULT_MAX_RETRIES, Graph
from airflow_provider_rayworkflow.workflow.model.ids import check_workflow_id
from airflow_provider_rayworkflow.workflow.model.progress import progress_line
from airflow_provider_rayworkflow.workflow.model.records import (
    Encoding,
    Form,
    OnChange,
    Result,
    StatusRecord,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline.describe import (
    describe_graph,
    describe_task,
    describe_workflow,
)
from airflow_provider_rayworkflow.workflow.offline.fork import fork
from airflow_provider_rayworkflow.workflow.offline.plan import make_plan
from airflow_provider_rayworkflow.workflow.offline.prune import PRUNED_BY_DEFAULT, prune
from airflow_provider_rayworkflow.workflow.storage import (
    DEFAULT_STORAGE,
    STORAGE_VARIABLE,
    WorkflowStore,
    local_folder,
    open_store,
    resolve_storage,
    shown,
)
from airflow_provider_rayworkflow.workflow.storage.events import EventStore
from airflow_provider_rayworkflow.workflow.storage.honest_statuses import (
    HonestStatuses,
    list_workflows,
)
from airflow_provider_rayworkflow.workflow.storage.snapshot import read_snapshot

Json = dict[str, Any]


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code.

    :param arguments: by default those of the process.
    """
    options = _parser().parse_args(arguments)
    try:
        answer: Answer = options.command(options)
        text = _json(answer.value) if options.json else answer.text
        if text is not None:
            print(escaped(text), flush=True)
        problems = answer.problems
    except BrokenPipeError:  # of ``| head``; Python would complain once more at its exit
        _close_stdout()
        return 0
    except Exception as exc:  # Ray and storages raise of every kind; a traceback helps nobody here
        problems = (_one_line(exc),)
        if isinstance(exc, OSError) and not isinstance(exc, ConnectionError):
            _close_stdout()  # a full disk, perhaps, which Python would meet again at its exit
    for problem in problems:
        print(f"rayworkflow: {one_line(problem)}", file=sys.stderr)
    return 1 if problems else 0


def _close_stdout() -> None:
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _json(value: Any) -> str:
    # DEL is the one character that a terminal obeys and JSON leaves as it is.
    return json.dumps(value, indent=2).replace("\x7f", "\\u007f")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a command prints.

    :ivar value: for ``--json``.
    :ivar text: for people; None if the command has written it already.
    :ivar problems: what failed of a command that does several things, or is damaged.
    """

    value: Any
    text: str | None
    problems: tuple[str, ...] = ()


class UnavailableError(WorkflowError):
    """What was asked for is not there, or not for a reader without Ray."""


# ---- usage


class _Parser(argparse.ArgumentParser):
    """Tells of wrong usage without what a terminal would obey."""

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(escaped(message), file)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rayworkflow", description="Look at durable Ray workflows, and act on them."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[Any], Answer], help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(command=command)
        sub.add_argument(
            "--storage",
            metavar="URI",
            type=_storage,
            help=f"where workflows are stored; by default ${STORAGE_VARIABLE} or {DEFAULT_STORAGE}",
        )
        sub.add_argument("--json", action="store_true", help="print JSON instead of text")
        return sub

    def add_of_one(
        name: str, command: Callable[[Any], Answer], help: str
    ) -> argparse.ArgumentParser:
        sub = add(name, command, help)
        sub.add_argument("workflow_id", metavar="ID", type=_workflow_id, help="the workflow's id")
        return sub

    listing = add("list", _list, "List workflows and their statuses.")
    listing.add_argument(
        "--status",
        metavar="STATUS",
        nargs="+",
        action="extend",
        type=str.upper,
        choices=_LISTED,
        help=f"only those with one of these: {', '.join(_LISTED)}",
    )
    status = add_of_one("status", _status, "Show how a workflow stands, or one of its tasks.")
    status.add_argument("--task", metavar="TASK", help="the id of one of its tasks")
    watching = add_of_one("watch", _watch, "Show how a workflow runs, until it has stopped.")
    watching.add_argument(
        "--interval", metavar="SECONDS", type=float, default=2.0, help="between two looks"
    )
    watching.add_argument("--once", action="store_true", help="show it once, and don't wait")
    add_of_one("graph", _graph, "Show the tasks of a workflow and which of them are committed.")
    output = add_of_one("output", _output, "Print the output of a workflow, if it is JSON.")
    output.add_argument("--task", metavar="TASK", help="the output of this task instead")
    resume_all = add("resume-all", _resume_all, "Resume all workflows that were interrupted.")
    resume_all.add_argument(
        "--include-failed", action="store_true", help="also those that have failed"
    )
    planning = add_of_one("plan", _plan, "Show what a run or resume would do; runs nothing.")
    planning.add_argument(
        "--workflow",
        metavar="MODULE:FUNCTION",
        help="the function that returns the graph to run; by default the stored graph, as resume",
    )
    planning.add_argument(
        "--arguments", metavar="JSON", type=_arguments, default={}, help="for that function"
    )
    planning.add_argument(
        "--on-change",
        choices=get_args(OnChange),
        help="what becomes of committed tasks that have changed; by default reuse",
    )
    planning.add_argument("--from-task", metavar="TASK", default="", help="as of resume")
    forking = add_of_one(
        "fork", _fork, "Make a new workflow of a workflow's checkpoints; needs no cluster."
    )
    forking.add_argument("new_id", metavar="NEW-ID", type=_workflow_id, help="of the new workflow")
    forking.add_argument(
        "--from-task",
        metavar="TASK",
        default="",
        help="leave out the checkpoints of this task and of all that depend on it",
    )
    resuming = add_of_one(
        "resume", _resume, "Go on with a workflow where it stopped; don't wait for it."
    )
    resuming.add_argument(
        "--from-task", metavar="TASK", help="run this task again, and all that depend on it"
    )
    pruning = add("prune", _prune, "Delete workflows that ended long ago; needs no cluster.")
    pruning.add_argument(
        "--older-than",
        metavar="TIME",
        type=_duration,
        required=True,
        help="since they ended: 90s, 15m, 12h, 30d",
    )
    pruning.add_argument(
        "--status",
        metavar="STATUS",
        nargs="+",
        action="extend",
        type=str.upper,
        choices=_PRUNED,
        help=f"which ones; by default {', '.join(PRUNED_BY_DEFAULT)}",
    )
    pruning.add_argument(
        "--keep-outputs",
        action="store_true",
        help="of successful ones keep status, graph and output, and delete the other checkpoints",
    )
    pruning.add_argument("--dry-run", action="store_true", help="only say which ones")
    add("event-token", _event_token, "Print the token that senders of HTTP events need.")
    acting = [
        resuming,
        resume_all,
        add_of_one("suspend", _suspend, "Stop a workflow so that it can be resumed."),
        add_of_one("cancel", _cancel, "Stop a workflow for good."),
        add_of_one("delete", _delete, "Delete all that is stored of a workflow."),
    ]
    for sub in acting:
        sub.add_argument(
            "--address", help="of the Ray cluster; by default $RAY_ADDRESS or this machine's"
        )
    return parser


_LISTED = [status.value for status in WorkflowStatus if status is not WorkflowStatus.NONE]


_PRUNED = ["SUCCESSFUL", "FAILED", "RESUMABLE", "CANCELED"]
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(text: str) -> float:
    if text[-1:] not in _UNITS_S or not text[:-1].isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: give 90s, 15m, 12h or 30d")
    return float(text[:-1]) * _UNITS_S[text[-1]]


def _storage(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("the storage is empty: give an absolute path or a URI")
    return text


def _arguments(text: str) -> Json:
    try:
        arguments = json.loads(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {exc}") from None
    if not isinstance(arguments, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object: give names and values")
    return arguments


def _workflow_id(text: str) -> str:
    try:
        return check_workflow_id(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


# ---- reading


def _list(options: Any) -> Answer:
    store = _open(options)
    problems: list[str] = []

    def leave_out(problem: WorkflowError) -> None:
        problems.append(str(problem))

    honest = HonestStatuses(store, now=time.time(), report=leave_out)
    found = [
        (workflow_id, status, key.epoch)
        for workflow_id, status, key in list_workflows(store, honest, leave_out)
        if not options.status or status in options.status
    ]
    if not found:
        text = f"No workflows in {shown(store.bytes.uri)}."
        return Answer(value=[], text=text, problems=tuple(problems))
    names = ("workflow_id", "status", "epoch")
    return Answer(
        value=[dict(zip(names, row, strict=True)) for row in found],
        text=_table(("WORKFLOW", "STATUS", "EPOCH"), found),
        problems=tuple(problems),
    )


def _status(options: Any) -> Answer:
    store = _open(options)
    record = _read(store, options.workflow_id)
    if options.task is not None:
        task = describe_task(store, record, options.task)
        return Answer(value=task, text=_describe_task(task))
    value = _status_value(record)
    return Answer(value=value, text=_describe_status(record, value))


def _status_value(record: StatusRecord) -> Json:
    value = {
        "workflow_id": record.workflow_id,
        **describe_workflow(record),
        "epoch": record.epoch,
        "created_at": record.created_at,
    }
    if record.ended_at is not None or record.progress is not None:  # they are counted by then
        value["tasks"] = {
            "total": record.tasks_total,
            "done": record.tasks_done,
            "reused": record.tasks_reused,
        }
    if record.reuse is not None:
        value["reuse"] = record.reuse.to_json()
    if record.status.is_active and record.progress is not None:
        value["progress"] = record.progress.to_json()
    return value


def _describe_status(record: StatusRecord, value: Json) -> str:
    rows = [
        ("workflow", record.workflow_id),
        ("status", record.status),
        ("created", _time(record.created_at)),
        ("started", _time(record.started_at)),
        ("ended", _time(record.ended_at)),
        ("epoch", record.epoch),
    ]
    if "tasks" in value:
        tasks = "{total}, of which {done} are done ({reused} reused from earlier runs)"
        rows.append(("tasks", tasks.format(**value["tasks"])))
    if record.reuse is not None:
        rows.append(("went on", record.reuse))
    if "progress" in value:
        rows.append(("progress", progress_line(record)))
    if record.user_metadata:
        rows.append(("metadata", json.dumps(record.user_metadata)))
    failure = record.failure
    if failure is None:
        return _fields(rows)
    rows.append(("failed task", failure.task_id or "none"))
    rows.append(("error", f"{failure.type}: {failure.message}"))
    return f"{_fields(rows)}\n\n{failure.traceback}".rstrip()


def _describe_task(task: Json) -> str:
    stats = task["stats"]
    rows = [
        ("task", task["task_id"]),
        ("takes", ", ".join(task["workflow_refs"]) or "nothing"),
        ("options", _describe_options(task) or "none"),
        ("metadata", json.dumps(task["user_metadata"])),
        ("started", _time(stats.get("start_time"))),
        ("ended", _time(stats.get("end_time"))),
    ]
    return _fields(rows)


def _watch(options: Any) -> Answer:
    store = _open(options)
    _read(store, options.workflow_id)

    def look() -> StatusRecord | None:
        found = HonestStatuses(store, now=time.time()).read(options.workflow_id)
        return None if found is None else found.honest_record

    record = watch(
        look,
        interval_s=options.interval,
        once=options.once,
        out=None if options.json else sys.stdout,
    )
    problem = f"workflow {record.workflow_id} is {record.status}"
    is_well = options.once or record.status is WorkflowStatus.SUCCESSFUL
    return Answer(value=_status_value(record), text=None, problems=() if is_well else (problem,))


def _graph(options: Any) -> Answer:
    store = _open(options)
    record = _read(store, options.workflow_id)
    described = describe_graph(store, record)
    tasks = described["tasks"]
    failed = record.failure.task_id if record.failure else None
    rows = [
        (
            task["task_id"],
            "failed" if task["task_id"] == failed else task["checkpoint"] or "-",
            _seconds(task["stats"]),
            ", ".join(task["workflow_refs"]) or "-",
            _describe_options(task) or "-",
        )
        for task in tasks
    ]
    committed = sum(task["checkpoint"] in ("committed", "continued") for task in tasks)
    title = f"{one_line(record.workflow_id)} {record.status}: {committed} of {len(tasks)} tasks committed"
    table = _table(("TASK", "CHECKPOINT", "SECONDS", "TAKES", "OPTIONS"), rows)
    value = {
        "workflow_id": record.workflow_id,
        "status": record.status,
        "failure": record.failure and record.failure.to_json(),
        **described,
    }
    problems = tuple(f"{damage} A resume runs its task again." for damage in described["damaged"])
    return Answer(value=value, text=f"{title}\n\n{table}", problems=problems)


def _output(options: Any) -> Answer:
    store = _open(options)
    record = _read(store, options.workflow_id)
    if options.task is not None:
        value = _value_of_task(store, record, options.task)
    else:
        value = _value_of_workflow(store, record)
    text = value if isinstance(value, str) else json.dumps(value, indent=2)
    return Answer(value=value, text=text)


def _value_of_workflow(store: WorkflowStore, record: StatusRecord) -> Any:
    workflow_id = record.workflow_id
    if record.failure is not None:
        raise UnavailableError(
            f"Workflow {workflow_id!r} is {record.status}: task {record.failure.task_id!r} failed "
            f"with {record.failure.type}. `rayworkflow status` shows the traceback."
        )
    if record.status is not WorkflowStatus.SUCCESSFUL:
        raise UnavailableError(
            f"Workflow {workflow_id!r} is {record.status} and has no output. "
            "`rayworkflow graph` shows which tasks are committed; --task gives the output of one."
        )
    if record.output is not None and not record.output.problem:
        return record.output.value
    # Perhaps it was only too large for the status document.
    return _value_of_task(store, record, None)


def _value_of_task(store: WorkflowStore, record: StatusRecord, task_id: str | None) -> Any:
    """A task's value; None: the workflow's."""
    workflow_id = record.workflow_id
    snapshot = read_snapshot(store, record)
    result = snapshot.output if task_id is None else snapshot.result_of(task_id)
    if result is None:
        snapshot.raise_damage()
        raise UnavailableError(
            f"Task {task_id or snapshot.output_id!r} of workflow {workflow_id!r} has no "
            "checkpoint that counts. `rayworkflow graph` lists the tasks."
        )
    if result.encoding is not Encoding.JSON or result.form is Form.CAUGHT_ERROR:
        what = "a caught exception and " if result.form is Form.CAUGHT_ERROR else ""
        call = f"{workflow_id!r}, task_id={task_id!r}" if task_id else repr(workflow_id)
        raise UnavailableError(
            f"The output is {what}pickled, and this command unpickles nothing. In Python: "
            f"workflow.init(storage={shown(store.bytes.uri)!r}); workflow.get_output({call})"
        )
    return _load_json(store, result)


def _load_json(store: WorkflowStore, result: Result) -> Any:
    data = store.read_value(result.blob) if result.blob is not None else result.inline or b""
    value = json.loads(bytes(data))
    return [value, None] if result.form is Form.CAUGHT_VALUE else value


def _plan(options: Any) -> Answer:
    store, workflow_id = _open(options), options.workflow_id
    if options.arguments and not options.workflow:
        raise UnavailableError("--arguments are those of --workflow, which is not given.")
    plan = make_plan(
        store,
        workflow_id,
        HonestStatuses(store, now=time.time()).read(workflow_id),
        _build_graph(options.workflow, options.arguments) if options.workflow else None,
        on_change=options.on_change or ("reuse" if options.workflow else None),
        from_task=options.from_task,
    )
    return Answer(value=plan.to_json(), text=str(plan))


def _build_graph(workflow: str, arguments: Json) -> Graph:
    """Call the function that an import path names; Ray is imported, and not started."""
    from airflow_provider_rayworkflow.workflow.runtime.graphs.dag import encode_dag

    sys.path.insert(0, os.getcwd())  # as `python -m` has it
    function = load_function(workflow)
    check_call(workflow, function, arguments)
    return encode_dag(function(**arguments))


def _open(options: Any) -> WorkflowStore:
    _check_is_there(options.storage)
    return WorkflowStore(open_store(resolve_storage(options.storage)))


def _check_is_there(storage: str | None) -> None:
    """A folder that was named and is not there is a mistake, not an empty storage."""
    folder = local_folder(storage) if storage else None
    if folder is not None and not os.path.isdir(folder):
        raise UnavailableError(
            f"There is no folder {folder!r} that this user may see. Give --storage the path or URI "
            "of a storage that is there; the first workflow makes it."
        )


def _read(store: WorkflowStore, workflow_id: str) -> StatusRecord:
    """The status record with its honest status."""
    found = HonestStatuses(store, now=time.time()).read(workflow_id)
    if found is None:
        raise UnavailableError(f"There is no workflow {workflow_id!r} in {shown(store.bytes.uri)}.")
    return found.honest_record


# ---- acting


def _resume(options: Any) -> Answer:
    _connect(options)
    api.resume_async(options.workflow_id, from_task=options.from_task)
    return _status_now(options.workflow_id)


def _resume_all(options: Any) -> Answer:
    _connect(options)
    results: list[Json] = [
        {"workflow_id": workflow_id, "resumed": error is None, "error": error and _one_line(error)}
        for workflow_id, error in api.resume_each(options.include_failed)
    ]
    rows = [(result["workflow_id"], "yes" if result["resumed"] else "no") for result in results]
    return Answer(
        value=results,
        text=_table(("WORKFLOW", "RESUMED"), rows) if rows else "Nothing to resume.",
        problems=tuple(f"{r['workflow_id']}: {r['error']}" for r in results if r["error"]),
    )


def _suspend(options: Any) -> Answer:
    _connect(options)
    api.suspend(options.workflow_id)
    return _status_now(options.workflow_id)


def _cancel(options: Any) -> Answer:
    _connect(options)
    api.cancel(options.workflow_id)
    return _status_now(options.workflow_id)


def _delete(options: Any) -> Answer:
    _connect(options)
    api.delete(options.workflow_id)
    value = {"workflow_id": options.workflow_id, "deleted": True}
    return Answer(value=value, text=f"{options.workflow_id} is deleted")


def _fork(options: Any) -> Answer:
    store = _open(options)
    fork(
        store,
        options.workflow_id,
        options.new_id,
        from_task=options.from_task,
        now=time.time(),
    )
    record = _read(store, options.new_id)
    value = {"workflow_id": record.workflow_id, "status": record.status}
    return Answer(value=value, text=f"{record.workflow_id} is {record.status}")


def _prune(options: Any) -> Answer:
    store = _open(options)
    problems: list[str] = []
    pruned = prune(
        store,
        older_than_s=options.older_than,
        now=time.time(),
        statuses=options.status or PRUNED_BY_DEFAULT,
        keep_outputs=options.keep_outputs,
        dry_run=options.dry_run,
        report=problems.append,
    )
    names = ("workflow_id", "status", "kept_output")
    rows = [(one.workflow_id, one.status.value, one.kept_output) for one in pruned]
    verb = "would be pruned" if options.dry_run else "are pruned"
    lines = [f"{one_line(workflow_id)}  {status}" for workflow_id, status, _ in rows]
    return Answer(
        value=[dict(zip(names, row, strict=True)) for row in rows],
        text="\n".join([*lines, f"{len(rows)} workflows {verb}."]),
        problems=tuple(problems),
    )


def _event_token(options: Any) -> Answer:
    token = read_settings(os.environ).token
    if token is None:
        store = open_store(resolve_storage(options.storage))  # it is made for the token
        token = EventStore(store).token()
    return Answer(value={"token": token}, text=token)


def _connect(options: Any) -> None:
    _check_is_there(options.storage)
    from airflow_provider_rayworkflow.workflow.runtime.service import connect

    connect.join(options.address)
    # With a storage that the cluster's manager does not have, this raises.
    api.init(storage=options.storage or os.environ.get(STORAGE_VARIABLE))


def _status_now(workflow_id: str) -> Answer:
    status = api.get_status(workflow_id)
    value = {"workflow_id": workflow_id, "status": status}
    return Answer(value=value, text=f"{workflow_id} is {status}")


# ---- text


def _table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [titles, *([one_line(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _fields(rows: Sequence[tuple[str, Any]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {one_line(str(value))}" for name, value in rows)


def _describe_options(task: Json) -> str:
    options = dict(task["task_options"])
    shown = options.pop("ray_options") | {
        name: value for name, value in options.items() if value != _DEFAULTS.get(name)
    }
    return ", ".join(f"{name}={value}" for name, value in shown.items())


_DEFAULTS = {
    "task_type": "FUNCTION",
    "max_retries": DEFAULT_MAX_RETRIES,
    "catch_exceptions": False,
    "retry_exceptions": False,
    "checkpoint": True,
}


def _time(timestamp: float | None) -> str:
    if timestamp is None:
        return "-"
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _seconds(stats: Json) -> str:
    return f"{stats['end_time'] - stats['start_time']:.2f}" if stats else "-"


def _one_line(exc: Exception) -> str:
    return next(iter(str(exc).splitlines()), "") or type(exc).__name__
