"""The manager as a detached Ray actor."""

from __future__ import annotations

import asyncio
import gc
import inspect
import operator
import warnings
from typing import TYPE_CHECKING, Any

import ray

from airflow_provider_rayworkflow.workflow.exceptions import StorageError, said_by
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.event_posts import RefusedPostError
from airflow_provider_rayworkflow.workflow.model.limits import Limits
from airflow_provider_rayworkflow.workflow.model.records import Asker, StartOptions
from airflow_provider_rayworkflow.workflow.runtime.locations import store_at
from airflow_provider_rayworkflow.workflow.runtime.logs import log_to_stderr
from airflow_provider_rayworkflow.workflow.storage import shown

if TYPE_CHECKING:
    from airflow_provider_rayworkflow.workflow.manager.http_events import Fate
    from airflow_provider_rayworkflow.workflow.manager.manager import Manager
    from airflow_provider_rayworkflow.workflow.runtime.service.outputs import Reply
    from airflow_provider_rayworkflow.workflow.runtime.service.runner import RayRunner
    from airflow_provider_rayworkflow.workflow.runtime.worker.packs import Packed

log = get_logger(__name__)

Json = dict[str, Any]

_WAKE_INTERVAL_S = 2.0

# How many there may be before garbage is collected; ten thousand take a megabyte or two.
_NEW_OBJECTS = 10_000


class WorkflowManagementActor:
    """Calls go to one :class:`Manager`, made at the first of them.

    Calls start the manager at need, and raise :class:`StorageError` while it can't start because
    its storage fails. Times are in seconds.

    :param uri: the location of the storage, for :func:`store_at`.
    :param sharing: short tasks may share a Ray task.
    :param is_kept: the keeper of a local Ray, and not Ray, starts another one after it.
    """

    def __init__(self, uri: str, limits: Limits, sharing: bool, is_kept: bool = False) -> None:
        log_to_stderr()
        # The records of a workflow's tasks stay as long as it runs. To look through them at every
        # 700 new objects took a quarter of the time that 10,000 tasks take here.
        gc.set_threshold(_NEW_OBJECTS)
        self._uri = uri
        self._limits = limits
        self._sharing = sharing
        self._is_kept = is_kept
        self._runner: RayRunner | None = None
        self._manager: Manager | None = None
        self._starting = asyncio.Lock()
        context = ray.get_runtime_context()
        with warnings.catch_warnings(action="ignore"):  # Ray warns of itself here
            was_restarted = context.was_current_actor_reconstructed
        if was_restarted:
            # Ray restarted us: recover without waiting for the first call. Only a call can
            # reach the event loop from here.
            context.current_actor.wake.remote()

    async def wake(self) -> None:
        """Start the manager; while the storage can't be used, try again every two seconds."""
        while True:
            try:
                await self._ready()
                return
            except StorageError as exc:
                log.warning("The manager waits for its storage: %s", said_by(exc))
                await asyncio.sleep(_WAKE_INTERVAL_S)

    async def _ready(self) -> Manager:
        async with self._starting:
            if self._manager is None:
                # In this process only: who calls it needs the class, and half a second less.
                from airflow_provider_rayworkflow.workflow.runtime.service import manager_process

                manager, self._runner = manager_process.make_manager(
                    self._uri, self._limits, sharing=self._sharing, is_kept=self._is_kept
                )
                await manager.start()  # tasks run and hand back, while it recovers workflows
                manager_process.keep_lease(manager, asyncio.get_running_loop())
                self._manager = manager
            return self._manager

    async def configure(
        self,
        uri: str | None,
        limits: Limits,
        sharing: bool | None,
        retention: dict[str, float] | None = None,
    ) -> str:
        """Check that the manager is as the caller wants it, and set limits that are still unset.

        :param uri: None for any storage.
        :param sharing: None for either.
        :param retention: set in place of what was; None for no change.
        :returns: :attr:`ByteStore.weakness` of its storage, ``""`` for none.
        :raises ValueError: when it has another storage, other limits or another ``sharing``.
        """
        if uri is not None and uri != self._uri:
            raise ValueError(
                f"The workflow manager of this cluster stores in {shown(self._uri)!r}, and "
                f"{shown(uri)!r} was asked for. Use the same storage, or another Ray cluster."
            )
        if sharing is not None and sharing != self._sharing:
            raise ValueError(
                f"The workflow manager of this cluster runs with sharing={self._sharing}, and "
                f"sharing={sharing} was asked for. Pass the same value or None, or use another "
                "Ray cluster."
            )
        manager = await self._ready()
        has_changed = manager.set_limits(limits)
        if retention is not None:
            has_changed |= manager.pruner.set_retention(retention, by="workflow.init of a driver")
        if has_changed:
            await asyncio.to_thread(manager.renew_lease)
        return store_at(self._uri).bytes.weakness

    async def submit(
        self, workflow_id: str, graph: bytes, user_metadata: Json, options: StartOptions
    ) -> None:
        """See :meth:`Manager.submit`."""
        manager = await self._ready()
        await manager.submit(workflow_id, graph, user_metadata=user_metadata, options=options)

    async def submit_new(
        self, workflows: list[tuple[str, bytes, Json, StartOptions]]
    ) -> list[BaseException | None]:
        """Submit several new workflows at once.

        :param workflows: the arguments of :meth:`submit` for each.
        :returns: for each, in their order, the error of :meth:`submit`, or None.
        """
        calls = [self.submit(*arguments) for arguments in workflows]
        return await asyncio.gather(*calls, return_exceptions=True)

    async def ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of :class:`Manager`; what it returns and raises goes to the caller.

        :param method: its name; ``"queries.get_status"`` is one of a part of the manager.
        """
        answer = operator.attrgetter(method)(await self._ready())(*args, **kwargs)
        return await answer if inspect.isawaitable(answer) else answer

    async def location(self) -> str:
        """The location of the storage, as :func:`store_at` takes it. Needs no manager."""
        return self._uri

    async def wait_output(
        self, workflow_id: str, task_id: str | None, was_waiting: bool, asker: Asker | None
    ) -> Reply:
        """Wait for the output of a workflow, or for the result of one of its tasks.

        :param task_id: None for the output.
        :param was_waiting: the caller ran or resumed it, and so wants it to go on here if the
            manager that runs it elsewhere dies.
        :param asker: where the caller is a worker process.
        :returns: a :class:`Reply`: ``ray.get`` gives the caller the value itself.
        :raises WorkflowError: when it failed, was canceled or suspended: see :func:`.outputs.reply`.
        :raises ValueError: when there is no such workflow, or it ended without such a result.
        """
        from airflow_provider_rayworkflow.workflow.runtime.service.outputs import reply

        manager = await self._ready()
        async with manager.runs.waiting(asker, workflow_id):
            output = await manager.queries.wait_output(workflow_id, task_id, take_over=was_waiting)
        return reply(self._uri, output, was_waiting=was_waiting)

    async def fail(self, error: Exception) -> None:
        """Raise the error, so that the reference of this call stands for a call that failed."""
        raise error

    async def hand_back(self, number: int, done: Packed) -> None:
        """Take back the tasks that a slow Ray task has not begun: :meth:`RayRunner.hand_back`."""
        if self._runner is not None:
            self._runner.hand_back(number, done)

    async def post_event(
        self, workflow_id: str, event_key: str, payload: Any, wait_s: float
    ) -> Fate | RefusedPostError:
        """Store an HTTP event, then wait for its fate.

        :param payload: JSON, as Python has it.
        :param wait_s: how long to wait for the workflow; after that the fate is ``"stored"``.
        :returns: the fate, or the error of :meth:`HttpEvents.post`.
        """
        events = (await self._ready()).http_events
        try:
            return await events.post(workflow_id, event_key, payload, wait_s=wait_s)
        except RefusedPostError as exc:
            return exc  # returned, so that Ray makes no other error of it

    async def close(self) -> None:
        """Suspend all workflows and give the lease back."""
        if self._manager is not None:
            await self._manager.close()
