"""Keeps the index: takes over the change logs of its manager, of managers that are gone, and of visitors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    UntrustedDataError,
    said_by,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.signing import SIGNING_KEY_VARIABLE
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.storage.change_logs import Change
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.index_updates import take_over
from airflow_provider_rayworkflow.workflow.storage.left_logs import LeftLogs

log = get_logger(__name__)


class IndexKeeper:
    """What one manager does for the index, in the background.

    What goes wrong here costs no workflow anything: it is tried again, and lists read the change logs.

    :param known: with the manager's own changes.
    """

    def __init__(self, known: Registry) -> None:
        self._known = known
        self._left = LeftLogs(
            known.store,
            own=known.manager_id,
            elapsed=known.tenure.clock,
            tell=known.changes.relay,
        )

    async def watch(self) -> None:
        """Take over what has changed: when it is much, and now and then. Others do so when the lease is lost."""
        intervals, changes, tenure = self._known.intervals, self._known.changes, self._known.tenure
        last = float("-inf")
        while not tenure.is_over:
            now = tenure.clock()
            is_old, has_failed = now - last >= intervals.index_s, False
            if is_old or changes.is_full.is_set():
                changes.is_full.clear()
                last = now
                has_failed = not await self._in_peace(self.take_over)
                if is_old:  # it may be damaged, or lost
                    changes.write_anew()
            await self._in_peace(self._take_over_left)
            if has_failed:
                await asyncio.sleep(intervals.left_logs_s)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(intervals.left_logs_s):
                    await changes.is_full.wait()

    async def close(self) -> None:
        """Let the index have the manager's log, which has been closed: no reader needs it then."""
        left = LeftLogs(self._known.store)
        await self._in_peace(lambda: self._known.in_thread(left.take_over, self._known.clock()))

    async def take_over(self) -> None:
        """Let the index have all that this manager has changed."""
        own, last_version = self._known.changes, self._known.store.index.last_version
        before = await self._known.in_thread(last_version)
        changes = [
            change
            for change in own.untaken
            if change.row is not None or not own.is_open(change.segment)
        ]
        is_new = await self._known.in_thread(self._take_over, changes, own.version)
        own.took(changes, before=before, after=await self._known.in_thread(last_version))
        if is_new and own.untaken:
            own.is_full.set()  # of what came meanwhile, lists read the statuses until it is taken over

    async def _take_over_left(self) -> None:
        await self._known.in_thread(self._left.take_over, self._known.clock())
        if self._left.misses_own and not self._known.tenure.is_over:
            self._known.changes.write_anew()

    async def _in_peace(self, call: Callable[[], Awaitable[object]]) -> bool:
        try:
            await call()
        except Exception as exc:
            log.warning("The index is not brought up to date: %s", said_by(exc))
            return False
        return True

    def _take_over(self, changes: Sequence[Change], since: int) -> bool:
        """Returns True if there was no index that serves, and it was made anew first."""
        store, now = self._known.store, self._known.clock()

        def take() -> bool:
            if not changes:
                return store.index.load() is not None
            return take_over(store, changes, since=since, now=now) is not None

        try:
            if take():
                return False
        except UntrustedDataError as exc:
            if self._left.has_strangers():
                log.warning(
                    "Lists read all statuses: others keep the index, who sign with another key or none. Give all "
                    "processes the same %s, then run `rayworkflow reindex`. %s",
                    SIGNING_KEY_VARIABLE,
                    exc,
                )
                return False
            log.warning("The index is made anew from all statuses, and signed: %s", exc)
        except CorruptedDataError as exc:
            log.warning("The index is damaged, and made anew from all statuses: %s", exc)
        rebuild(store, now=now)
        take()
        return True
