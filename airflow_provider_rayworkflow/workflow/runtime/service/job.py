"""What a Ray job runs for a side that can reach the cluster only through the Jobs API.

``python -m airflow_provider_rayworkflow.workflow.runtime.service.job --storage … --workflow-id …
--submission-id …``: reads from the storage what to run, hands it to the cluster's manager, prints
what the tasks print, and ends as the workflow ends. From the hand-over on, the workflow does not
depend on this process.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import queue
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from airflow_provider_rayworkflow.workflow.exceptions import (
    KeyNotFoundError,
    StorageError,
    WorkflowError,
)
from airflow_provider_rayworkflow.workflow.import_path import check_call, load_function
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.limits import Limits, check_limits
from airflow_provider_rayworkflow.workflow.model.records import StartOptions, StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.runtime.graphs.dag import check_dag, encode_dag
from airflow_provider_rayworkflow.workflow.runtime.graphs.environments import (
    current_environment,
    with_environment,
)
from airflow_provider_rayworkflow.workflow.runtime.locations import store_at
from airflow_provider_rayworkflow.workflow.runtime.logs import log_to_stderr
from airflow_provider_rayworkflow.workflow.runtime.service import connect, versions
from airflow_provider_rayworkflow.workflow.runtime.service.task_logs import printing_logs_of
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, shown
from airflow_provider_rayworkflow.workflow.storage.mailbox import (
    QUEUE_FULL_EXIT_CODE,
    REFUSED_EXIT_CODE,
    Mailbox,
    Submission,
    python_version,
)
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader

_POLL_INTERVAL_S = 1.0
_WAIT_FOR_OTHER_VERSION_S = 600.0
#: Where Ray gives a job's driver its runtime environment.
_JOB_CONFIG_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"


class JobError(WorkflowError):
    """The submission can't be run. The message is all that the other side gets to see."""


class RefusedError(WorkflowError):
    """What the submission asks for can't be done, and never will be."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a submission; 0 if its workflow was successful. See also the exit codes of ``mailbox``."""
    options = _parser().parse_args(arguments)
    log_to_stderr()
    try:
        job = _Job(
            options.storage,
            options.workflow_id,
            options.submission_id,
            own_modules=options.own_modules,
        )
        return job.run()
    except queue.Full as exc:
        print(f"Workflow {options.workflow_id} is not started: {exc}", flush=True)
        return QUEUE_FULL_EXIT_CODE
    except RefusedError as exc:
        print(exc, file=sys.stderr, flush=True)
        return REFUSED_EXIT_CODE
    except (WorkflowError, ValueError) as exc:
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr, flush=True)
        return 1


class _Job:
    def __init__(self, uri: str, workflow_id: str, submission_id: str, *, own_modules: int) -> None:
        self._own_modules = own_modules
        self._uri = uri
        self._workflow_id = workflow_id
        self._submission_id = submission_id
        self._store = store_at(uri)
        self._statuses = StatusReader(self._store)
        self._mailbox = Mailbox(self._store.bytes)

    def run(self) -> int:
        submission = self._read_submission()
        if reason := self._why_not(submission):
            print(f"Workflow {self._workflow_id} is not started: {reason}", flush=True)
            self._mailbox.delete_submission(self._workflow_id, self._submission_id)
            return 1
        manager = join_manager(
            self._store,
            self._uri,
            own_modules=self._own_modules,
            limits=check_limits(submission.max_running_workflows, submission.max_pending_workflows),
        )
        try:
            graph = build_graph(submission)
        except RefusedError:
            self._mailbox.delete_submission(self._workflow_id, self._submission_id)
            raise
        with printing_logs_of(self._workflow_id):
            try:
                self._hand_over(manager, graph, submission)
            except (queue.Full, ValueError) as exc:
                self._mailbox.delete_submission(self._workflow_id, self._submission_id)
                if isinstance(exc, ValueError):
                    raise RefusedError(str(exc)) from exc
                raise
            # The workflow is stored: its arguments are not needed here any more.
            self._mailbox.delete_submission(self._workflow_id, self._submission_id)
            record, status = self._wait(manager)
        print(f"Workflow {self._workflow_id} is {status}", flush=True)
        if record is not None and record.failure is not None and status.can_be_resumed:
            failure = record.failure
            print(f"Task {failure.task_id}: {failure.type}: {failure.message}", flush=True)
        return 0 if status is WorkflowStatus.SUCCESSFUL else 1

    def _hand_over(self, manager: Any, graph: bytes | None, submission: Submission) -> None:
        if graph is None:
            connect.call(
                manager.ask.remote(
                    "resume",
                    self._workflow_id,
                    from_task=submission.from_task,
                    traceparent=submission.traceparent,
                )
            )
            return
        connect.call(
            manager.submit.remote(
                self._workflow_id,
                graph,
                submission.user_metadata,
                StartOptions(
                    on_existing=submission.on_existing,
                    on_change=submission.on_change,
                    from_task=submission.from_task,
                    traceparent=submission.traceparent,
                ),
            )
        )

    def _read_submission(self) -> Submission:
        try:
            return self._mailbox.read_submission(self._workflow_id, self._submission_id)
        except KeyNotFoundError:
            raise JobError(
                f"The cluster does not find what to run in its storage {shown(self._uri)!r}: "
                f"there is no submission {self._submission_id!r}. The storage must be one that "
                "Airflow and the cluster both see."
            ) from None
        except StorageError as exc:
            raise JobError(f"The cluster can't read {shown(self._uri)!r}: {exc}") from exc

    def _why_not(self, submission: Submission) -> str:
        owner = self._mailbox.read_owner(self._workflow_id)
        if owner is None or owner.token != submission.token:
            return "another owner has taken it over since this was submitted"
        request = self._mailbox.read_request(self._workflow_id, submission.token)
        return f"its owner has asked to {request.how} it" if request else ""

    def _wait(self, manager: Any) -> tuple[StatusRecord | None, WorkflowStatus]:
        while True:
            try:
                status = WorkflowStatus(
                    connect.call(manager.ask.remote("queries.get_status", self._workflow_id))
                )
            except RayError:
                status = self._stored()[1]  # the manager is being restarted
            if not status.is_active:
                return self._stored()
            time.sleep(_POLL_INTERVAL_S)

    def _stored(self) -> tuple[StatusRecord | None, WorkflowStatus]:
        found = self._statuses.read(self._workflow_id)
        return (found.record, found.status) if found else (None, WorkflowStatus.NONE)


def join_manager(
    store: WorkflowStore, uri: str, *, own_modules: int, limits: Limits | None = None
) -> Any:
    """The manager of this job's cluster, of this version; started if need be.

    :param own_modules: how many of the job's ``py_modules``, from the first one on, are ours.
    """
    ray.init(logging_level=logging.WARNING)
    if not versions.is_in_place(store):
        ray.shutdown()
        _start_manager(store, uri, own_modules)
        ray.init(logging_level=logging.WARNING)
    return connect.manager(storage=uri, limits=limits)


def build_graph(submission: Submission) -> bytes | None:
    """The graph to run, its tasks in the runtime environment of this job; None for the stored one.

    :raises JobError: when it can't be made; its message has the author's traceback.
    :raises RefusedError: when the function gives something else than a graph.
    """
    if submission.graph is not None:
        here = python_version()
        if submission.python != here:
            raise JobError(
                f"The workflow is a function of the DAG file, pickled by Python "
                f"{submission.python}, and the cluster has Python {here}. Use the same Python on "
                "both sides, or give the workflow as an import path."
            )
        graph = Graph.from_bytes(submission.graph)
        return with_environment(graph, current_environment()).to_bytes()
    if not submission.workflow:
        return None
    try:
        function = load_function(submission.workflow)
        check_call(submission.workflow, function, submission.arguments)
    except ValueError as exc:
        raise JobError(
            f"{exc} It is looked up on the cluster: ship it with the task's runtime_env "
            "(working_dir or py_modules), or install it there."
        ) from exc
    except Exception as exc:
        raise JobError(
            f"The workflow {submission.workflow!r} can't be imported on the cluster:\n"
            f"{traceback.format_exc()}"
        ) from exc
    try:
        dag = function(**submission.arguments)
    except Exception as exc:
        raise JobError(
            f"The workflow {submission.workflow!r} gave no graph:\n{traceback.format_exc()}"
        ) from exc
    try:
        check_dag(dag)
        return encode_dag(dag).to_bytes()
    except (TypeError, ValueError) as exc:  # the next try would give the same
        raise RefusedError(f"{submission.workflow!r} gave no graph: {exc}") from exc


def _start_manager(store: WorkflowStore, uri: str, own_modules: int) -> None:
    """Start a manager of this version, in place of one of another version.

    It gets a Ray job of its own, since it keeps the runtime environment of the job that starts
    it, and one author's would be in the way of the others'.
    """
    config = os.environ.pop(_JOB_CONFIG_VARIABLE, None)
    modules = json.loads(config or "{}").get("runtime_env", {}).get("py_modules", [])[:own_modules]
    ray.init(
        runtime_env={"py_modules": modules} if modules else None,
        logging_level=logging.WARNING,
        log_to_driver=False,
    )
    try:
        versions.replace_other_version(store, wait_s=_WAIT_FOR_OTHER_VERSION_S)
        connect.manager(storage=uri)
    finally:
        ray.shutdown()
        if config is not None:
            os.environ[_JOB_CONFIG_VARIABLE] = config


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name if __spec__ else __name__}")
    parser.add_argument("--storage", required=True, help="path or URI, without secrets")
    parser.add_argument("--workflow-id", required=True)
    parser.add_argument("--submission-id", required=True)
    parser.add_argument(
        "--own-modules",
        type=int,
        default=0,
        help="how many of the job's py_modules, from the first one on, are of this package",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
