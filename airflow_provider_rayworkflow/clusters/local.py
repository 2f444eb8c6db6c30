"""Ray inside the process of an Airflow task, for one workflow: no server, no set-up.

Ray's processes end with the task process, however that ends. What is committed stays in storage.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.connection import tokens
from airflow_provider_rayworkflow.connection.jobs_api import without_variables
from airflow_provider_rayworkflow.connection.settings import ConnectionSettings
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowError,
    RayWorkflowInputError,
    RayWorkflowInterruptedError,
    RayWorkflowStillActiveError,
    RayWorkflowStorageError,
    RayWorkflowUnreachableError,
)
from airflow_provider_rayworkflow.hooks import RayWorkflowHook, StoredWorkflow
from airflow_provider_rayworkflow.tries.definition import check_environment
from airflow_provider_rayworkflow.tries.run_spec import RunSpec
from airflow_provider_rayworkflow.workflow.exceptions import (
    StorageError,
    WorkflowNotResumableError,
    WorkflowStillActiveError,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.records import StartOptions

log = get_logger(__name__)

Json = dict[str, Any]

_START_ATTEMPTS = 3
_CLOSE_TIMEOUT_S = 10.0


class EmbeddedRay:
    """Runs one workflow on a Ray cluster of this process alone.

    :param spec: what to run, the definition's function loaded.
    """

    ends_with_process = True

    def __init__(self, hook: RayWorkflowHook, spec: RunSpec) -> None:
        self._hook = hook
        self._spec = spec
        self._has_manager = False
        self._is_ours = False
        self._output: Any = None

    def prepare(self) -> None:
        """Build the graph.

        :raises RayWorkflowInputError: when the author's function returns none, or for a
            runtime_env that can't be used.
        """
        check_environment(self._spec.runtime_env)
        self._graph  # noqa: B018 builds it

    def submit(self, options: StartOptions) -> None:
        """Start, resume or attach to the workflow; starts Ray if it is not running yet.

        When this returns, the workflow is stored.

        :raises RayWorkflowStillActiveError: if it should restart and another process runs it.
        :raises RayWorkflowInputError: if the graph can't be a workflow.
        :raises RayWorkflowStorageError: if the storage can't be used.
        :raises RayWorkflowUnreachableError: if Ray does not start.
        :raises RayWorkflowInterruptedError: if Ray does not work.
        """
        import ray

        if self._is_ours and ray.is_initialized():
            # Submitted before, so the manager died. If Ray did, calls of what is left of it wait
            # for ever.
            log.warning("Ray in the task process starts anew")
            ray.shutdown()
        if not ray.is_initialized():
            _start_ray(self._hook.settings, self._spec.runtime_env)
        from_task = options.from_task or None
        with _errors_of_airflow(self._spec.workflow_id):
            workflow.init(storage=self._hook.storage_for_ray)
            self._has_manager = True
            # Kept: Ray complains about a reference to an error that is dropped without a look.
            if self._spec.definition is None:
                self._output = workflow.resume_async(self._spec.workflow_id, from_task=from_task)
            else:
                self._output = workflow.run_async(
                    self._graph,
                    workflow_id=self._spec.workflow_id,
                    metadata=self._spec.metadata,
                    on_existing=options.on_existing,
                    on_change=options.on_change or "reuse",
                    from_task=from_task,
                )
            self._is_ours = True

    def attach(self) -> None:
        """Nothing to do: another process runs it, and the storage says how it stands."""

    def rejoin(self, carried: Json) -> None:
        """Nothing to do: a try with Ray in its process is not deferred."""

    @property
    def carried(self) -> Json:
        return {}

    def has_begun(self, found: StoredWorkflow | None) -> bool:
        """True: a workflow that is submitted here is stored at once."""
        return True

    def was_stopped_by_other(self, found: StoredWorkflow) -> bool:
        """False: an earlier try has ended with its process, and stops nothing any more."""
        return False

    def stop(self, how: Literal["suspend", "cancel"]) -> None:
        """Stop the workflow if this process runs it."""
        if self._is_ours:
            if how == "cancel":
                workflow.cancel(self._spec.workflow_id)
            else:
                workflow.suspend(self._spec.workflow_id)

    def close(self, *, suspend: bool = False, detach: bool = False) -> None:
        """Suspend what still runs and stop Ray. Never raises; nothing is lost if it fails."""
        _stop_ray(has_manager=self._has_manager)

    @cached_property
    def _graph(self) -> Any:
        """The Ray DAG of the author's function; None for what is stored."""
        if self._spec.definition is None:
            return None
        with keeping_sigterm_handler():  # the author's function may start Ray
            return self._spec.definition.build_graph()


@contextmanager
def _errors_of_airflow(workflow_id: str) -> Iterator[None]:
    """Raise what the runtime raises as one of the provider's errors."""
    import ray

    try:
        yield
    except WorkflowStillActiveError as exc:
        raise RayWorkflowStillActiveError(workflow_id) from exc
    except WorkflowNotResumableError as exc:
        raise RayWorkflowError(f"Workflow {workflow_id!r} can't be resumed: {exc}") from exc
    except (TypeError, ValueError) as exc:
        raise RayWorkflowInputError(f"Workflow {workflow_id!r} can't be run: {exc}") from exc
    except StorageError as exc:
        raise RayWorkflowStorageError(str(exc)) from exc
    except ray.exceptions.RayError as exc:
        raise RayWorkflowInterruptedError(workflow_id, f"Ray failed ({exc})") from exc


def resume_all(hook: RayWorkflowHook, *, include_failed: bool) -> dict[str, Exception | None]:
    """Resume what was interrupted with Ray in this process, and wait for the end of it.

    :returns: the ids, each with the error that kept it from being resumed.
    """
    import ray

    _start_ray(hook.settings)
    try:
        workflow.init(storage=hook.storage_for_ray)
        resumed = dict(workflow.api.resume_each(include_failed))
        outputs = [workflow.get_output_async(name) for name, error in resumed.items() if not error]
        if outputs:
            ray.wait(outputs, num_returns=len(outputs), fetch_local=False)
        return resumed
    except StorageError as exc:
        raise RayWorkflowStorageError(str(exc)) from exc
    finally:
        _stop_ray(has_manager=True)


@contextmanager
def keeping_sigterm_handler() -> Iterator[None]:
    """Undo what Ray does to SIGTERM when it starts: Airflow calls ``on_kill`` by that signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _start_ray(settings: ConnectionSettings, runtime_env: Json | None = None) -> None:
    import ray

    _give_token()
    for attempt in range(1, _START_ATTEMPTS + 1):
        begun = time.monotonic()
        try:
            with keeping_sigterm_handler(), _passing_on_sys_path(), _starting_in_another_group():
                _init_ray(settings, runtime_env)
        except Exception as exc:  # Ray raises just that when the machine is too busy for it
            ray.shutdown()
            if runtime_env and isinstance(exc, (TypeError, ValueError)):
                raise RayWorkflowInputError(
                    f"The runtime_env can't be used: {without_variables(str(exc), runtime_env)}"
                ) from None  # the cause has the variables' values in its text
            if attempt == _START_ATTEMPTS:
                raise RayWorkflowUnreachableError(
                    f"Ray did not start in the task process: {exc}"
                ) from exc
            log.warning("Ray did not start in the task process, trying again: %s", exc)
        else:
            seconds = time.monotonic() - begun
            log.info("Ray started in the task process in %.1f s", seconds)
            return


def _give_token() -> None:
    """Have Ray authenticate by a token of this process alone, unless there is one.

    Ray would write one into the user's home, which may not be writable; and of several processes
    that do so at once, each may start with another one than its Ray's processes read.
    """
    if not tokens.is_disabled() and not tokens.find_token().value:
        os.environ[tokens.TOKEN_VARIABLE] = secrets.token_hex(32)


def _init_ray(settings: ConnectionSettings, runtime_env: Json | None) -> None:
    import ray

    memory_mb = settings.object_store_memory_mb
    ray.init(
        address="local",  # never a cluster that RAY_ADDRESS or a file of this machine names
        num_cpus=settings.num_cpus,
        object_store_memory=memory_mb and memory_mb * 1024 * 1024,
        runtime_env=runtime_env,
        include_dashboard=False,
        configure_logging=False,  # Airflow's logging is set up already
    )


@contextmanager
def _passing_on_sys_path() -> Iterator[None]:
    """Let Ray's workers import what this process can: Airflow has put the DAGs' folder there."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextmanager
def _starting_in_another_group() -> Iterator[None]:
    """Start Ray's processes outside of this process's group.

    Airflow stops a task with a SIGTERM to the whole group: Ray would be gone before ``on_kill``
    can suspend or cancel the workflow. Ray's processes end with this one all the same, because Ray
    asks the kernel for that.
    """
    own_group = os.getpgrp()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, process_group=0) as leader:
        try:
            os.setpgid(0, leader.pid)
        except PermissionError:  # the leader of a session, and so not started by Airflow
            yield
            return
        try:
            yield
        except BaseException:
            os.setpgid(0, own_group)
            os.killpg(leader.pid, signal.SIGKILL)  # what of Ray has started
            raise
        finally:
            os.setpgid(0, own_group)


def _stop_ray(*, has_manager: bool) -> None:
    if "ray" not in sys.modules:
        return
    import ray

    if not ray.is_initialized():
        return
    if has_manager:
        try:
            _close_manager()
        except Exception as exc:  # Ray may be broken: then the lease just runs out
            log.warning("The workflow manager did not close: %s", exc)
    ray.shutdown()


def _close_manager() -> None:
    import ray

    from airflow_provider_rayworkflow.workflow.runtime.manager_handle import get_manager

    ray.get(get_manager().close.remote(), timeout=_CLOSE_TIMEOUT_S)
