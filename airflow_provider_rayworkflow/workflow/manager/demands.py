"""Whether what a submission asks for is still wanted, and what stands in its way."""

from __future__ import annotations

import asyncio

from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.storage.mailbox import (
    ANYBODY,
    Mailbox,
    StopRequest,
    Submission,
)

log = get_logger(__name__)

# Those of no owner: a user has asked for them and does not wait. The manager's job may take minutes.
_MOST_AGE_S = 3600.0


class Demands:
    """What the submissions for one manager ask for."""

    def __init__(self, known: Registry, mailbox: Mailbox) -> None:
        self._known = known
        self._mailbox = mailbox

    async def why_not(self, submission: Submission) -> str:
        """Why a submission is not to be run any more; ``""`` if it is.

        :raises StorageError: when that can't be read.
        """
        workflow_id, token = submission.workflow_id, submission.token
        if token == ANYBODY:
            reason = await self._known.in_thread(self._why_not_anybodys, submission)
            return f"Workflow {workflow_id} is not resumed: {reason}" if reason else ""
        owner, request = await asyncio.gather(
            self._known.in_thread(self._mailbox.read_owner, workflow_id),
            self._known.in_thread(self._mailbox.read_request, workflow_id, token),
        )
        reason = ""
        if owner is None or owner.token != token:
            reason = "another owner has taken it over since this was submitted"
        elif owner.submission_id != submission.submission_id:
            reason = "its owner has submitted it again since"
        elif request is not None:
            reason = f"its owner has asked to {request.how} it"
        return f"Workflow {workflow_id} is not started: {reason}" if reason else ""

    def _why_not_anybodys(self, submission: Submission) -> str:
        """Why it is not what its user means any more: it has no owner who would take it back. Blocks."""
        if self._known.clock() - submission.submitted_at > _MOST_AGE_S:
            return "that was asked for more than an hour ago, and no manager was up. Ask again"
        store, workflow_id = self._known.store, submission.workflow_id
        latest = store.last_epoch(workflow_id)
        if latest <= submission.epoch:
            return ""
        if store.read_claim(workflow_id, latest).submission_id == submission.submission_id:
            return ""  # a manager that died has begun it
        return "it has run since that was asked for"

    def stop_run(self, submission: Submission) -> None:
        """Ask the manager that runs a workflow, perhaps this one, to suspend it for a start-over. Blocks.

        The request is of that run: once the workflow is started over, it is void.

        :raises StorageError: when that can't be read or written.
        """
        workflow_id = submission.workflow_id
        found = self._known.find(workflow_id)
        if found is None or not found.status.is_active:
            return
        claim = self._known.store.read_claim(workflow_id, found.record.epoch)
        if claim.submission_id == submission.submission_id:
            return  # another manager of this cluster has begun it
        asked = self._mailbox.read_request(workflow_id, ANYBODY)
        if asked is None or asked.base_epoch != claim.base_epoch:
            log.info("Workflow %s is to start over: the run before is suspended", workflow_id)
            self._mailbox.request_stop(
                StopRequest.by_anybody(
                    workflow_id, claim.base_epoch, how="suspend", now=self._known.clock()
                )
            )
