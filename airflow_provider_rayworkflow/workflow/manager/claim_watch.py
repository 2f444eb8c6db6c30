"""Notices in the background that another manager has claimed a workflow, or that it was deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from airflow_provider_rayworkflow.workflow.exceptions import OwnershipLostError, StorageError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.manager.held_workflow import HeldWorkflow
from airflow_provider_rayworkflow.workflow.manager.registry import Registry

log = get_logger(__name__)

# At how many claims one look goes at most, where each is a look at files, or a request.
_LOOKS_AT_FILES = 200
_LOOKS_BY_REQUEST = 5


class ClaimWatch:
    """Looks at the claims of the workflows that one manager holds.

    :param on_lost: stops one that the manager has lost.
    """

    def __init__(
        self, known: Registry, *, on_lost: Callable[[HeldWorkflow, OwnershipLostError], None]
    ) -> None:
        self._known = known
        self._on_lost = on_lost
        self._looking: asyncio.Task[None] | None = None

    def begin_to_look(self) -> None:
        """Look at claims in the background, if no look is under way."""
        if self._known.live and (self._looking is None or self._looking.done()):
            self._looking = asyncio.ensure_future(self._look())

    async def _look(self) -> None:
        """Stop what another manager has claimed, or what was deleted, also if it writes nothing.

        A renewal looks at a bounded number of them, those first that were not looked at for longest.
        """
        is_cheap = self._known.store.bytes.reads_at_once == 1
        held = sorted(self._known.live.values(), key=lambda live: live.ownership.looked_at)
        for live in held[: _LOOKS_AT_FILES if is_cheap else _LOOKS_BY_REQUEST]:
            try:
                await self._known.in_thread(live.ownership.look)
            except OwnershipLostError as exc:
                if self._known.live.get(live.claim.workflow_id) is live:
                    self._on_lost(live, exc)
            except StorageError as exc:  # a write will show whether it is lost
                log.warning("Workflow %s: its claim can't be read: %s", live.claim.workflow_id, exc)

    def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
