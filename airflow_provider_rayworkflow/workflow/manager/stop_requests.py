"""Obeys stop requests that lie in the storage: from processes that can't reach the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from airflow_provider_rayworkflow.workflow.exceptions import (
    StorageError,
    WorkflowError,
    WorkflowNotFoundError,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.offline.lifecycle import obey_pending_cancel
from airflow_provider_rayworkflow.workflow.storage.leases import LEASE_TTL_S
from airflow_provider_rayworkflow.workflow.storage.mailbox import StopRequest

log = get_logger(__name__)

#: A request that no manager has dealt with for so long is forgotten.
_MAX_AGE_S = 24 * 3600.0


class StopRequests:
    """The requests for the workflows of one manager.

    A request is obeyed if it is still valid (see :class:`StopRequest`), and
    dropped if not. It is deleted when the stop is stored, so that a manager which is restarted in
    between finds it again. To cancel a workflow whose manager is dead, any manager will do.

    :param stop: stops a workflow that the manager holds; True when that is stored, False where the
        workflow's owner or a later manager has to obey.
    """

    def __init__(self, known: Registry, *, stop: Callable[[StopRequest], Awaitable[bool]]) -> None:
        self._known = known
        self._mailbox = known.store.mailbox
        self._stop = stop
        self._obeying: dict[StopRequest, asyncio.Task[None]] = {}

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._known.intervals.poll_s)
            try:
                if self._known.live:
                    await self.look()
            except StorageError as exc:  # the next look may be luckier
                log.warning("Stop requests can't be read: %s", exc)
            except Exception:  # the loop must live
                log.exception("Stop requests can't be read")

    async def look(self) -> None:
        """Begin to obey what is requested now.

        :raises StorageError: when that can't be read.
        """
        for request in await self._known.in_thread(lambda: list(self._mailbox.list_requests())):
            try:
                await self._consider(request)
            except StorageError as exc:  # of this request: the others are looked at
                log.warning("Workflow %s: a request to stop it waits: %s", request.workflow_id, exc)

    async def _consider(self, request: StopRequest) -> None:
        if request in self._obeying:
            return
        live = self._known.live.get(request.workflow_id)
        if live is not None:
            base_epoch = live.claim.base_epoch
            if await self._known.in_thread(self._mailbox.is_valid, request, base_epoch):
                self._obeying[request] = asyncio.create_task(self._obey(request))
                return
            log.info(
                "Workflow %s goes on: it was taken over, or started over, since it was to %s",
                request.workflow_id,
                request.how,
            )
            await self._known.in_thread(self._mailbox.delete_request, request)
            return
        age_s = self._known.clock() - request.requested_at
        if request.how == "cancel" and age_s > LEASE_TTL_S:
            await self._known.in_thread(self._cancel_unowned, request)
        if age_s > _MAX_AGE_S:
            await self._known.in_thread(self._mailbox.delete_request, request)

    def _cancel_unowned(self, request: StopRequest) -> None:
        now = self._known.clock()
        found = self._known.statuses.read(request.workflow_id)
        if found is None or found.status.is_active:
            return  # it may begin; or another manager runs it and will look
        try:
            if obey_pending_cancel(
                self._known.store, found, manager_id=self._known.manager_id, now=now
            ):
                log.info("Workflow %s is canceled: it was asked for", request.workflow_id)
            else:
                self._mailbox.delete_request(request)
        except WorkflowNotFoundError:  # nothing is left that could be resumed
            self._mailbox.delete_request(request)
        except WorkflowError as exc:
            log.warning("Workflow %s could not be canceled: %s", request.workflow_id, exc)

    async def _obey(self, request: StopRequest) -> None:
        log.info("Workflow %s: its owner asks to %s it", request.workflow_id, request.how)
        try:
            if await self._stop(request):
                await self._known.in_thread(self._mailbox.delete_request, request)
        except WorkflowError as exc:
            log.warning("Workflow %s could not be stopped: %s", request.workflow_id, exc)
        except Exception:  # of a storage's client, for example
            log.exception("Workflow %s could not be stopped", request.workflow_id)
        finally:
            del self._obeying[request]
