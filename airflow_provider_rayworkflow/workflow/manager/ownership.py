"""Whether this manager may still write for a workflow that it has claimed: asked around each write.

Before a write, the lease must be good, the claim must be there, and there must be no later one.
After it, the lease must still be good: then no other manager can have decided meanwhile to take the
workflow over, however long the process was stopped. Only then is anything told of what was written.
"""

from __future__ import annotations

from airflow_provider_rayworkflow.workflow.exceptions import OwnershipLostError
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.byte_store import Put, buffers
from airflow_provider_rayworkflow.workflow.storage.claims import HEAD_BYTES, claim_head, claim_put
from airflow_provider_rayworkflow.workflow.storage.leases import Tenure
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore


class Ownership:
    """One claimed epoch of a workflow.

    :param tenure: the manager's.
    :param look_interval_s: see :class:`Intervals`.
    """

    def __init__(
        self, store: WorkflowStore, claim: Claim, tenure: Tenure, *, look_interval_s: float
    ) -> None:
        self._store = store
        self._claim = claim
        self._tenure = tenure
        self._head = b""
        self._looked_at = 0.0
        #: True once the claim is made: before, there is nothing to look at.
        self.is_held = False
        self._interval_s = 0.0 if store.bytes.reads_at_once == 1 else look_interval_s

    def claim_put(self, graph: Graph | None) -> Put:
        """The write that makes the claim; if its object is new, the claim holds."""
        put = claim_put(self._claim, graph, signing=self._store.signing)
        self._head = bytes(buffers(put.data)[0][:HEAD_BYTES])
        self._looked_at = self._tenure.clock()
        return put

    def check(self) -> None:
        """Call right before a write. Up to two small reads. Blocks.

        :raises OwnershipLostError: when the write must not happen.
        :raises StorageError: when that can't be found out.
        """
        if self.is_held and self._tenure.clock() - self._looked_at >= self._interval_s:
            self.look()
        self.confirm()

    def confirm(self) -> None:
        """Call right after a write, before anything is told of it. Reads nothing.

        :raises OwnershipLostError: when others may have taken the workflow over meanwhile.
        """
        if self._tenure.is_over:
            raise self._lost("its lease could not be renewed in time, so others may own it by now")

    def look(self) -> None:
        """Look at the claims, however lately that was done. Two small reads. Blocks.

        :raises OwnershipLostError: when this one is gone, or there is a later one.
        :raises StorageError: when that can't be found out.
        """
        begun = self._tenure.clock()
        claim = self._claim
        key = keys.epoch_key(claim.workflow_id, claim.epoch)
        if claim_head(self._store.bytes, claim.workflow_id, claim.epoch + 1, 1) is not None:
            raise self._lost("")
        head = claim_head(self._store.bytes, claim.workflow_id, claim.epoch, len(self._head))
        if head is None:
            raise self._lost(f"its claim {key!r} was deleted while it ran", is_deleted=True)
        if head != self._head:
            raise self._lost(f"its claim {key!r} was replaced while it ran", is_deleted=True)
        self._looked_at = begun

    @property
    def looked_at(self) -> float:
        """When that was done last, by the tenure's clock."""
        return self._looked_at

    def _lost(self, reason: str, *, is_deleted: bool = False) -> OwnershipLostError:
        return OwnershipLostError(
            self._claim.workflow_id, self._claim.epoch, reason=reason, is_deleted=is_deleted
        )
