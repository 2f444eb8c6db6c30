"""Keeps one manager's lease."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from airflow_provider_rayworkflow.workflow.exceptions import LeaseLostError, StorageError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.model.limits import Limits
from airflow_provider_rayworkflow.workflow.storage.leases import Lease, Process

log = get_logger(__name__)


class LeaseKeeper:
    """Writes the lease of one manager, and extends its tenure with each renewal.

    The others are as for :class:`Lease`, which it writes first with the next renewal.

    :param limits: as they are now.
    :param process: None for this one.
    :param version: of the package.
    """

    def __init__(
        self,
        known: Registry,
        limits: Limits,
        actor_id: str,
        *,
        process: Process | None,
        version: str,
        cluster: str,
    ) -> None:
        self._known = known
        self._lease = Lease(
            manager_id=known.manager_id,
            actor_id=actor_id,
            process=process or Process.current(),
            renewed_at=0,
            package_version=version,
            limits=limits.to_json(),
            cluster=cluster,
        )
        self._limits = self._lease.limits
        self._retention = self._lease.retention
        self._renewing = threading.Lock()

    def renew(self) -> None:
        """Write the lease anew; it is good for its time from before this call. Blocks.

        :raises LeaseLostError: when the tenure is over: others may have decided that this manager
            is dead.
        :raises StorageError: when it can't be written.
        """
        with self._renewing:
            tenure = self._known.tenure
            begun = tenure.clock()
            if tenure.is_over:
                raise LeaseLostError
            self._lease = replace(
                self._lease,
                renewed_at=self._known.clock(),
                renewals=self._lease.renewals + 1,
                limits=self._limits,
                retention=self._retention,
            )
            self._known.store.leases.write(self._lease)
            tenure.extend(begun)

    def set_limits(self, limits: Limits) -> None:
        """Have the next renewal write these limits, for the manager after this one."""
        self._limits = limits.to_json()

    def set_retention(self, retention: Mapping[str, float]) -> None:
        """Have the next renewal write this retention, for the manager after this one."""
        self._retention = dict(retention)

    def earlier(self) -> list[Lease]:
        """The leases of earlier managers of the same actor. Blocks."""
        return [
            lease
            for lease in self._known.store.leases.list_all()
            if lease.actor_id == self._lease.actor_id and lease.manager_id != self._lease.manager_id
        ]

    def delete_earlier(self, earlier: Sequence[Lease]) -> None:
        """Delete leases of earlier managers; one that can't be deleted stays. Blocks."""
        for lease in earlier:
            try:
                self._known.store.leases.delete(lease.manager_id)
            except StorageError as exc:
                log.warning("The lease of an earlier manager stays: %s", exc)
