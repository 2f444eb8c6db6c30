"""Obeys stop requests that lie in the storage: from processes that can't reach the cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import Executor as ThreadPool
from typing import Any, TypeVar

from airflow_provider_rayworkflow.workflow.exceptions import StorageError, WorkflowError
from airflow_provider_rayworkflow.workflow.storage.bytes import ByteStore
from airflow_provider_rayworkflow.workflow.storage.handover import Handover, StopRequest

log = logging.getLogger(__name__)

T = TypeVar("T")

#: How often the storage is asked for requests, while there is a workflow to be stopped.
POLL_INTERVAL_S = 2.0
#: A request that no manager has dealt with for so long is forgotten.
_MAX_AGE_S = 24 * 3600.0


class StopRequests:
    """The requests for the workflows of one manager.

    A request is obeyed if it comes from the workflow's owner, and dropped if somebody else has
    taken the workflow over since. It is deleted when the stop is stored, so that a manager which
    is restarted in between finds it again.

    :param threads: where storage calls block.
    :param held: the ids of the workflows that the manager holds.
    :param stop: stops one of them and returns when that is stored.
    :param clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: ByteStore,
        threads: ThreadPool,
        *,
        held: Callable[[], Collection[str]],
        stop: Callable[[StopRequest], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self._handover = Handover(store)
        self._threads = threads
        self._held = held
        self._stop = stop
        self._clock = clock
        self._obeying: dict[StopRequest, asyncio.Task[None]] = {}

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            try:
                if self._held():
                    await self.look()
            except StorageError as exc:  # the next look may be luckier
                log.warning("Stop requests can't be read: %s", exc)
            except Exception:  # the loop must live
                log.exception("Stop requests can't be read")

    async def look(self) -> None:
        """Begin to obey what is requested now.

        :raises StorageError: when that can't be read.
        """
        for request in await self._in_thread(lambda: list(self._handover.list_requests())):
            await self._consider(request)

    async def settle(self) -> None:
        """Wait until all that was begun is done."""
        await asyncio.gather(*self._obeying.values())

    async def _consider(self, request: StopRequest) -> None:
        if request in self._obeying:
            return
        if request.workflow_id in self._held():
            if await self._in_thread(self._handover.is_from_owner, request):
                self._obeying[request] = asyncio.create_task(self._obey(request))
                return
            log.info(
                "Workflow %s goes on: the one who asked to %s it does not own it any more",
                request.workflow_id,
                request.how,
            )
            await self._in_thread(self._handover.delete_request, request)
        elif self._clock() > request.requested_at + _MAX_AGE_S:
            await self._in_thread(self._handover.delete_request, request)

    async def _obey(self, request: StopRequest) -> None:
        log.info("Workflow %s: its owner asks to %s it", request.workflow_id, request.how)
        try:
            await self._stop(request)
            await self._in_thread(self._handover.delete_request, request)
        except WorkflowError as exc:
            log.warning("Workflow %s could not be stopped: %s", request.workflow_id, exc)
        finally:
            del self._obeying[request]

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)
