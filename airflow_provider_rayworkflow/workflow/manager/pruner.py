"""Deletes workflows that the retention does not keep any longer: by itself, slowly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

from airflow_provider_rayworkflow.workflow.exceptions import said_by
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.manager.lease_keeper import LeaseKeeper
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.offline.prune import Pruned, prune_few_by_few
from airflow_provider_rayworkflow.workflow.storage.overview import Overview

log = get_logger(__name__)

_DAY_S = 86_400.0
#: With so many workflows that are deleted a round ends.
MOST_A_ROUND = 500
# Between so many, the manager sees whether it has to stop.
_FEW = 20


class Pruner:
    """What one manager deletes in the background.

    What goes wrong here costs no workflow anything: the next round tries it again.

    :param lease: has the retention for the manager after this one.
    :param forget: told the id of each workflow that was deleted.
    :param most_a_round: in workflows; what is left waits for the next round.
    """

    def __init__(
        self,
        known: Registry,
        lease: LeaseKeeper,
        *,
        forget: Callable[[str], None],
        most_a_round: int = MOST_A_ROUND,
    ) -> None:
        self._known = known
        self._lease = lease
        self._forget = forget
        self._most = most_a_round
        self._retention: dict[str, float] = {}
        self._is_on = asyncio.Event()
        self._few: asyncio.Future[list[Pruned] | None] | None = None

    def set_retention(self, retention: Mapping[str, float], *, by: str) -> bool:
        """Keep workflows for so many days by status from now on; True if that changes anything.

        It survives a restart of the manager with the next renewal of the lease.

        :param retention: as :func:`check_retention` gives it; empty to delete nothing.
        :param by: who wants that, for the log.
        """
        if retention == self._retention:
            return False
        log.info("Ended workflows are kept for %s. Set by %s", _shown(retention), by)
        self._retention = dict(retention)
        self._lease.set_retention(retention)
        if retention:
            self._is_on.set()
        else:
            self._is_on.clear()
        return True

    async def watch(self) -> None:
        """Delete what is too old: at once where there is a retention, and again and again."""
        intervals = self._known.intervals
        while True:
            await self._is_on.wait()
            has_index = True
            try:
                has_index = await self._known.in_thread(self._has_index)
                if has_index:
                    await self._prune()
            except Exception as exc:
                log.warning("Old workflows are not deleted now: %s", said_by(exc))
            # An index that is missing is made within that time.
            await asyncio.sleep(
                intervals.retention_s
                if has_index
                else min(intervals.retention_s, intervals.left_logs_s)
            )

    async def close(self) -> None:
        """Wait for the few that are being deleted now."""
        if self._few is not None:
            await asyncio.wait([self._few])

    async def _prune(self) -> None:
        left, deleted = self._most, 0
        statuses = sorted(self._retention)
        for number, status in enumerate(statuses):
            # No status takes the others' share.
            share = left // (len(statuses) - number)
            done = await self._prune_status(status, share)
            left -= done
            deleted += done
        if deleted:
            log.info("%d workflows that the retention does not keep are deleted", deleted)

    async def _prune_status(self, status: str, most: int) -> int:
        days, done = self._retention.get(status), 0
        if days is None:
            return 0
        few_by_few = prune_few_by_few(
            self._known.store,
            status,
            older_than_s=days * _DAY_S,
            now=self._known.clock(),
            few=min(_FEW, max(1, most)),
        )
        while done < most and not self._known.tenure.is_over:
            if self._retention.get(status) != days:
                return done  # it was changed meanwhile
            pruned = await self._next(few_by_few)
            if pruned is None:
                return done
            for one in pruned:
                self._forget(one.workflow_id)
            done += len(pruned)
        return done

    async def _next(self, few_by_few: Iterator[list[Pruned]]) -> list[Pruned] | None:
        self._few = asyncio.ensure_future(self._known.in_thread(next, few_by_few, None))
        # The thread goes on if this is canceled; :meth:`close` waits for it.
        self._few.add_done_callback(lambda few: few.cancelled() or few.exception())
        return await asyncio.shield(self._few)

    def _has_index(self) -> bool:
        # Without one, each round would read all that is stored.
        return Overview(self._known.store, self._known.clock).load()


def _shown(retention: Mapping[str, float]) -> str:
    if not retention:
        return "ever: the retention is off"
    return ", ".join(f"{days:g} days ({status})" for status, days in sorted(retention.items()))
