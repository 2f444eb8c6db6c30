"""Finds submissions in the storage and begins their workflows.

A submission is never lost and never run twice, whatever dies when. The steps are: the workflow is
claimed under the submission's id, its first status is written, the answer is written, the
submission is deleted. A manager that finds the submission after a death in between sees by the claim
whether its run has begun (:meth:`.Admission.begin`), and does what is left.

Costs: one listing a second while there is nothing to do (86,400 requests a day). For each submission,
besides what the start of its workflow costs: seven reads, a write and a delete.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    KeyNotFoundError,
    LeaseLostError,
    OwnershipLostError,
    StorageError,
    UntrustedDataError,
    WorkflowError,
    WorkflowStillActiveError,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.shortening import shorten
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.manager.admission import Admission
from airflow_provider_rayworkflow.workflow.manager.demands import Demands
from airflow_provider_rayworkflow.workflow.manager.pruner import Pruner
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.limits import Limits, check_limits
from airflow_provider_rayworkflow.workflow.model.records import ORIGIN_KEY, StartOptions
from airflow_provider_rayworkflow.workflow.storage.mailbox import (
    AnswerOutcome,
    Mailbox,
    Submission,
    SubmissionAnswer,
)

log = get_logger(__name__)

# Each of them may have a worker of its own that builds its graph.
MOST_AT_ONCE = 16


class BuildError(WorkflowError):
    """The graph of a submission can't be made here and now. The message is all that its try gets to see."""


class RefusedError(WorkflowError):
    """What a submission asks for can't be done, and never will be."""


class Builder(Protocol):
    """Makes the graphs of submissions, each in the runtime environment of its author."""

    async def build(self, submission: Submission) -> bytes | None:
        """The graph to run, as :meth:`Graph.from_bytes` reads it; None for the stored one.

        A call that is canceled ends what it has begun.

        :raises BuildError: when it can't be made; the message has the author's traceback.
        :raises RefusedError: when the next call would give the same.
        """


class SubmissionReader:
    """The submissions for one manager.

    :param builder: None for a manager that takes none.
    :param takes: the cluster and the version of the package that a submission must name: others wait
        for a manager of theirs.
    :param pruner: of the manager; the retention of the latest submission counts.
    :param set_limits: as :meth:`Manager.set_limits`; what it changes is in the next renewal of the lease.
    """

    def __init__(
        self,
        known: Registry,
        admission: Admission,
        builder: Builder | None,
        *,
        takes: tuple[str, str],
        pruner: Pruner,
        set_limits: Callable[[Limits], bool],
    ) -> None:
        self._known = known
        self._admission = admission
        self._builder = builder
        self._takes = takes
        self._pruner = pruner
        self._set_limits = set_limits
        self._mailbox = Mailbox(known.store.bytes, signing=known.store.signing)
        self._demands = Demands(known, self._mailbox)
        self._taking: dict[str, asyncio.Task[None]] = {}
        self._builds: set[asyncio.Future[bytes | None]] = set()
        self._left: set[str] = set()  # for other managers, or damaged: not read again
        self._not_before: dict[str, float] = {}  # failed for now, by the loop's clock
        self._is_closed = False

    @property
    def count_taking(self) -> int:
        """How many submissions are on their way; their workflows may not be held yet."""
        return len(self._taking)

    async def watch(self) -> None:
        """Look again and again, until cancelled or fenced: at once after a look that found work."""
        while self._builder is not None and not self._known.tenure.is_over:
            has_found = False
            try:
                has_found = await self.look()
            except StorageError as exc:  # the next look may be luckier
                log.warning("Submissions can't be listed: %s", exc)
            except Exception:  # the loop must live
                log.exception("Submissions can't be listed")
            if len(self._taking) >= MOST_AT_ONCE:
                await asyncio.wait(self._taking.values(), return_when=asyncio.FIRST_COMPLETED)
            elif not has_found:
                await asyncio.sleep(self._known.intervals.submissions_s)

    async def look(self) -> bool:
        """Begin to take what is open, as much as may be under way at once; True if there was anything new.

        :raises StorageError: when it can't be listed.
        """
        found = await self._known.in_thread(self._mailbox.list_submissions)
        self._left &= set(found)
        now = asyncio.get_running_loop().time()
        self._not_before = {
            key: time for key, time in self._not_before.items() if time > now and key in found
        }
        passed_over = self._left | self._not_before.keys() | self._taking.keys()
        new = [key for key in found if key not in passed_over]
        for key in new[: max(0, MOST_AT_ONCE - len(self._taking))]:
            task = self._taking[key] = asyncio.create_task(self._take(key))
            task.add_done_callback(partial(self._end, key))
        return bool(new)

    def _end(self, key: str, _: asyncio.Task[None]) -> None:
        del self._taking[key]

    async def settle(self) -> None:
        """Wait until all that was begun is done."""
        await asyncio.gather(*self._taking.values(), return_exceptions=True)

    async def close(self) -> None:
        """Take nothing more. What is being built stays for the next manager; what is being started, starts."""
        self._is_closed = True
        for build in self._builds:
            build.cancel()
        await self.settle()

    # ---- one submission

    async def _take(self, key: str) -> None:
        try:
            await self._deal_with(key)
        except KeyNotFoundError:  # taken since it was listed, or withdrawn
            self._put_off(key)  # or else what it goes on from has vanished
        except (LeaseLostError, OwnershipLostError) as exc:
            log.warning("A submission stays for another manager: %s", exc)
            self._put_off(key)
        except asyncio.CancelledError:
            if not self._is_closed:
                raise
        except StorageError as exc:
            log.warning("A submission waits: %s", exc)
            self._put_off(key)
        except Exception:
            log.exception("A submission waits")
            self._put_off(key)

    def _put_off(self, key: str) -> None:
        loop = asyncio.get_running_loop()
        self._not_before[key] = loop.time() + self._known.intervals.retry_s

    async def _deal_with(self, key: str) -> None:
        try:
            submission = await self._known.in_thread(self._mailbox.read_submission, key)
        except CorruptedDataError as exc:
            self._left.add(key)
            log.warning("A submission is of no use: %s", exc)
            if isinstance(exc, UntrustedDataError):
                await self._known.in_thread(self._refuse_untrusted, key, str(exc))
            return
        if (submission.cluster, submission.package_version) != self._takes:
            self._left.add(key)
            return
        if await self._known.in_thread(
            self._mailbox.read_answer, submission.workflow_id, submission.submission_id
        ):
            await self._known.in_thread(self._delete, submission)
            return
        outcome, message = await self._outcome(key, submission)
        if self._known.tenure.is_over:
            raise LeaseLostError
        await self._known.in_thread(self._answer, submission, outcome, message)

    async def _outcome(self, key: str, submission: Submission) -> tuple[AnswerOutcome, str]:
        """Begin the workflow; what became of that.

        :raises StorageError: when it may work a moment later.
        :raises OwnershipLostError: or LeaseLostError when this manager may not decide.
        """
        try:
            if reason := await self._demands.why_not(submission):
                return "failed", reason
            graph = await self._build(key, submission)
            until = asyncio.get_running_loop().time() + self._known.intervals.stop_timeout_s
            has_begun = False
            while not has_begun:
                # To build, or to stop a run, takes a while. Another manager may have been faster, and
                # the try may have gone on.
                await self._known.in_thread(self._mailbox.read_submission, key)
                if reason := await self._demands.why_not(submission):
                    return "failed", reason
                has_begun = await self._begin_or_stop(submission, graph, until=until)
        except queue.Full as exc:
            return "queue full", str(exc)
        except (OwnershipLostError, LeaseLostError, KeyNotFoundError):
            raise
        except (RefusedError, ValueError) as exc:  # asked for again, it would be the same
            return "refused", str(exc)
        except BuildError as exc:
            return "failed", str(exc)
        except WorkflowError as exc:
            if isinstance(exc, StorageError) and exc.is_transient:
                raise
            return "failed", _described(exc)
        except Exception as exc:
            log.exception("Workflow %s could not be started", submission.workflow_id)
            return "failed", _described(exc)
        return "accepted", ""

    async def _build(self, key: str, submission: Submission) -> Graph | None:
        """The graph to run, None for the stored one. Ends what nothing waits for any more.

        :raises KeyNotFoundError: when the submission was withdrawn meanwhile.
        :raises BuildError: also when it takes too long, or its try has gone on.
        """
        if self._builder is None or self._is_closed:
            raise asyncio.CancelledError
        build = asyncio.ensure_future(self._builder.build(submission))
        self._builds.add(build)
        until = asyncio.get_running_loop().time() + self._known.intervals.build_timeout_s
        try:
            while not (await asyncio.wait([build], timeout=self._known.intervals.build_s))[0]:
                await self._check_wanted(key, submission, until=until)
            data = build.result()
        finally:
            build.cancel()
            self._builds.discard(build)
        return None if data is None else await self._known.read_graph(data)

    async def _check_wanted(self, key: str, submission: Submission, *, until: float) -> None:
        """Return if a graph is to be built on; errors are those of :meth:`_build`."""
        if asyncio.get_running_loop().time() >= until:
            most_s = self._known.intervals.build_timeout_s
            raise BuildError(
                f"The graph was not built within {most_s:g} s. Look what "
                f"{submission.workflow or 'the runtime_env'!r} waits for: modules that are imported and "
                "functions that give a graph must not wait for anything."
            )
        try:
            await self._known.in_thread(self._mailbox.read_submission, key)
            reason = await self._demands.why_not(submission)
        except KeyNotFoundError:
            raise
        except StorageError as exc:  # the next look may be luckier
            log.warning("Whether %s is still to be built is not known: %s", key, exc)
            return
        if reason:
            raise BuildError(reason)

    async def _begin_or_stop(
        self, submission: Submission, graph: Graph | None, *, until: float
    ) -> bool:
        """Begin the workflow; False while the run that it replaces is being stopped.

        :param until: how long it may be, by the loop's clock.
        :raises WorkflowStillActiveError: when that run has not stopped by then.
        """
        loop = asyncio.get_running_loop()
        try:
            await self._take_settings(submission)
            metadata = submission.user_metadata if graph is not None else {}
            options = _start_options(submission, has_graph=graph is not None)
            await self._admission.begin(submission.workflow_id, graph, metadata, options)
        except WorkflowStillActiveError:
            if submission.on_existing != "restart" or loop.time() >= until:
                raise
            if self._is_closed:
                raise asyncio.CancelledError from None
            await self._known.in_thread(self._demands.stop_run, submission)
            await asyncio.sleep(self._known.intervals.watch_s)
            return False
        return True

    async def _take_settings(self, submission: Submission) -> None:
        """Set the limits that are still unset, and the retention.

        :raises BuildError: when other limits are in force.
        """
        try:
            self._set_limits(
                check_limits(submission.max_running_workflows, submission.max_pending_workflows)
            )
            self._pruner.set_retention(submission.retention, by=_submitter(submission))
        except ValueError as exc:  # they may be others later
            raise BuildError(f"ValueError: {exc}") from exc

    def _answer(self, submission: Submission, outcome: AnswerOutcome, message: str) -> None:
        """Write the answer, then delete the submission. Blocks."""
        self._mailbox.write_answer(
            SubmissionAnswer(
                workflow_id=submission.workflow_id,
                submission_id=submission.submission_id,
                outcome=outcome,
                message=shorten(message),
                answered_at=self._known.clock(),
            )
        )
        if message:
            log.warning("Workflow %s, %s: %s", submission.workflow_id, outcome, message)
        self._delete(submission)

    def _refuse_untrusted(self, key: str, why: str) -> None:
        """Answer a submission that is not signed with our keys: its try would wait for ever. Blocks.

        Nothing of it is believed but for whom it is.
        """
        unverified = Mailbox(self._known.store.bytes, signing=SigningKeys())
        submission = unverified.read_submission(key)
        if (submission.cluster, submission.package_version) == self._takes:
            self._answer(submission, "failed", why)

    def _delete(self, submission: Submission) -> None:
        self._mailbox.delete_submission(submission.workflow_id, submission.submission_id)


def _submitter(submission: Submission) -> str:
    """Who submits, for the log, as far as that is known."""
    parts = [f"the submission of workflow {submission.workflow_id}"]
    match submission.user_metadata.get(ORIGIN_KEY):
        case {"dag_id": dag_id, "task_id": task_id, "run_id": run_id}:
            parts.append(f"by task {task_id} of DAG {dag_id} in run {run_id}")
    if submission.connection:
        parts.append(f"with connection {submission.connection}")
    return shorten(" ".join(parts))


def _start_options(submission: Submission, *, has_graph: bool) -> StartOptions:
    options = StartOptions(
        from_task=submission.from_task,
        on_failure=submission.on_failure,
        traceparent=submission.traceparent,
        submission_id=submission.submission_id,
    )
    if not has_graph:
        return options
    return replace(options, on_existing=submission.on_existing, on_change=submission.on_change)


def _described(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}"
