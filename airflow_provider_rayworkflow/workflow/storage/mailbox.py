"""What a side that has only the storage tells a cluster: what to run, and what to stop.

Airflow's side writes, the manager reads. An *owner* is the try of a task instance that waits for a
workflow now; the latest one counts. It takes the workflow over before it asks how that stands, so
that what an earlier try still wants is recognised as old.

The life of a submission: its try takes the workflow over and then writes it (:meth:`Mailbox.submit`).
The manager whose cluster it names finds it, begins the workflow, writes a :class:`SubmissionAnswer`
and then deletes it. The try reads the answer and deletes it (:meth:`Mailbox.delete_answer`). So a submission
without an answer is open, whatever died meanwhile.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    DataLoadError,
    KeyNotFoundError,
    StorageError,
)
from airflow_provider_rayworkflow.workflow.format.documents import (
    dump_document,
    dump_frame,
    load_frames,
    load_line,
    understanding,
    well_typed,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.model.records import OnChange, OnFailure
from airflow_provider_rayworkflow.workflow.model.retention import check_retention
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore

log = get_logger(__name__)

Json = dict[str, Any]

#: How to stop a workflow: so that it can be resumed, or for good.
How = Literal["suspend", "cancel"]

#: What became of a submission. ``"refused"``: the same again would be refused again; ``"failed"``: it may
#: work later; ``"queue full"``: there is neither a slot nor a place in the queue now.
AnswerOutcome = Literal["accepted", "refused", "failed", "queue full"]

#: The token of a request, or of a submission, that does not come from an owner.
ANYBODY = "anybody"


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """What a manager shall run. Arguments may be secrets: it is stored, never shown.

    :ivar submission_id: unique for each submission of a workflow.
    :ivar token: of the owner that submits it, or :data:`ANYBODY`.
    :ivar cluster: the id in the lease of the manager that shall run it (:attr:`Lease.cluster`).
    :ivar runtime_env: Ray's, of the author: JSON, with ``{"archive": "<sha256>", ...}`` for each local folder
        (:func:`.clusters.archives.with_archives`). Variables in it may be secrets.
    :ivar workflow: import path of a function that returns a graph; ``""`` with ``graph``. Without
        either, the workflow is resumed as it is stored.
    :ivar arguments: keywords for that function.
    :ivar on_existing: as for ``run``.
    :ivar python: ``"3.11"``: the Python that pickled ``graph``.
    :ivar package_version: of the submitting side.
    :ivar graph: of a function that the cluster can't import.
    :ivar on_change: and ``from_task``: as for ``run``; ``""`` for no task.
    :ivar on_failure: as for ``run``; None: as in the run before, else ``"stop"``.
    :ivar traceparent: the trace of who submits it, ``""`` for none.
    :ivar retention: days by status (:func:`check_retention`) for which the manager keeps ended workflows from now
        on; empty for ever.
    :ivar connection: the id of Airflow's connection, which has the retention; ``""`` for none.
    :ivar epoch: the workflow's latest one when it was first submitted; 0 for none. One of :data:`ANYBODY` is
        void once the workflow has a later one, and an hour after ``submitted_at`` (seconds since the epoch).
    """

    workflow_id: str
    submission_id: str
    token: str
    workflow: str
    arguments: Json
    user_metadata: Json
    on_existing: Literal["resume", "restart"]
    submitted_at: float
    python: str
    package_version: str
    max_running_workflows: int | None = None
    max_pending_workflows: int | None = None
    graph: bytes | None = None
    on_change: OnChange = "reuse"
    on_failure: OnFailure | None = None
    from_task: str = ""
    traceparent: str = ""
    cluster: str = ""
    epoch: int = 0
    runtime_env: Json = field(default_factory=dict)
    retention: dict[str, float] = field(default_factory=dict)
    connection: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmissionAnswer:
    """What became of a submission.

    :ivar message: for people; ``""`` if it was accepted.
    :ivar answered_at: seconds since the epoch.
    """

    workflow_id: str
    submission_id: str
    outcome: AnswerOutcome
    message: str
    answered_at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """Who waits for a workflow.

    :ivar token: unique for each try.
    :ivar submission_id: its latest submission, ``""`` for none.
    """

    workflow_id: str
    token: str
    submission_id: str
    since: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StopRequest:
    """A request to stop a workflow, by its owner or by a user who manages workflows.

    An owner's is void once another owner has taken the workflow over; a user's, once the workflow is
    started over.

    :ivar token: of the owner, or :data:`ANYBODY`.
    :ivar base_epoch: with :data:`ANYBODY`: of the workflow that is meant.
    """

    workflow_id: str
    token: str
    how: How
    requested_at: float
    base_epoch: int = 0

    @classmethod
    def by_anybody(cls, workflow_id: str, base_epoch: int, *, how: How, now: float) -> StopRequest:
        return cls(
            workflow_id=workflow_id,
            token=ANYBODY,
            how=how,
            requested_at=now,
            base_epoch=base_epoch,
        )


def python_version() -> str:
    """What two Pythons must have in common to exchange pickled functions: ``"3.11"``."""
    return ".".join(platform.python_version_tuple()[:2])


class Mailbox:
    """Submissions, answers, owners and stop requests on one storage.

    :param signing: the keys of the documents; None for those of the environment.
    """

    def __init__(self, store: ByteStore, *, signing: SigningKeys | None = None) -> None:
        self._store = store
        self._signing = signing
        self._unreadable: set[str] = set()

    def submit(self, submission: Submission) -> None:
        """Take the workflow over, and store a submission for a manager; a read and two writes.

        In this order: a manager that finds a submission of a try that is not the owner drops it. What
        the owner before has submitted is deleted, with its answer: that try may be dead, and its
        cluster gone. With :data:`ANYBODY` as its token, the workflow keeps its owner: one write.
        """
        earlier = ""
        if submission.token != ANYBODY:
            earlier = self._latest_submission(submission.workflow_id)
            self.take_over(
                Owner(
                    workflow_id=submission.workflow_id,
                    token=submission.token,
                    submission_id=submission.submission_id,
                    since=submission.submitted_at,
                )
            )
        self.write_submission(submission)
        if earlier not in ("", submission.submission_id):
            self.delete_answer(submission.workflow_id, earlier)

    def write_submission(self, submission: Submission) -> None:
        """Store a submission; one write."""
        body = {name: getattr(submission, name) for name in submission.__slots__ if name != "graph"}
        graph = [] if submission.graph is None else dump_frame({}, [submission.graph])
        key = keys.submission_key(submission.workflow_id, submission.submission_id)
        self._store.put(key, dump_document(key, "submission", body, graph, signing=self._signing))

    def read_submission(self, key: str) -> Submission:
        """Read a submission that :meth:`list_submissions` has found; one read.

        :raises KeyNotFoundError: when it has been taken or withdrawn since.
        :raises CorruptedDataError: when it is damaged, or the submission of another key.
        """
        body, frames = load_frames(key, "submission", self._store.get(key), signing=self._signing)
        graph = next((bytes(payload) for _, payload in frames), None)
        with understanding(key, "submission"):
            submission = well_typed(Submission(**body, graph=graph))
            check_retention(submission.retention)
        own_key = keys.submission_key(submission.workflow_id, submission.submission_id)
        if key != own_key:
            raise CorruptedDataError(key, f"it is the submission of {own_key!r}")
        return submission

    def list_submissions(self) -> list[str]:
        """The keys of all open submissions, in their order; one listing, no reads.

        A folder that can't be listed is left out; that is logged once.

        :raises DataLoadError: when nothing can be listed.
        """
        found = []
        for entry in self._store.list(keys.SUBMISSIONS):
            if entry.problem is not None:
                self._warn_once(entry.key, f"Submissions can't be listed: {entry.problem}")
            elif keys.is_submission_key(entry.key):
                found.append(entry.key)
        return sorted(found)

    def is_open(self, workflow_id: str, submission_id: str) -> bool:
        """True as long as a submission has neither been taken nor withdrawn; one small read."""
        try:
            self._store.get(keys.submission_key(workflow_id, submission_id), 0, 1)
        except KeyNotFoundError:
            return False
        return True

    def delete_submission(self, workflow_id: str, submission_id: str) -> None:
        self._store.delete([keys.submission_key(workflow_id, submission_id)])

    def write_answer(self, answer: SubmissionAnswer) -> bool:
        """Answer a submission, unless it has an answer: the first one counts. One write.

        :returns: False if there was an answer.
        """
        key = keys.answer_key(answer.workflow_id, answer.submission_id)
        document = dump_document(key, "answer", asdict(answer), signing=self._signing)
        return self._store.put_if_absent(key, document)

    def read_answer(self, workflow_id: str, submission_id: str) -> SubmissionAnswer | None:
        """What became of a submission, None as long as it is open; one read.

        :raises CorruptedDataError: when the answer is damaged, or to another submission.
        """
        key = keys.answer_key(workflow_id, submission_id)
        try:
            body = load_line(key, "answer", self._store.get(key), signing=self._signing)
        except KeyNotFoundError:
            return None
        with understanding(key, "answer"):
            answer = well_typed(SubmissionAnswer(**body))
            if answer.outcome not in get_args(AnswerOutcome):
                raise ValueError(f"outcome is {answer.outcome!r:.100}")
        if (answer.workflow_id, answer.submission_id) != (workflow_id, submission_id):
            raise CorruptedDataError(key, "it is the answer to another submission")
        return answer

    def delete_answer(self, workflow_id: str, submission_id: str) -> None:
        """Forget a submission that has been answered; two writes.

        First what may be left of the submission: without its answer it would be open again.
        """
        self.delete_submission(workflow_id, submission_id)
        self._store.delete([keys.answer_key(workflow_id, submission_id)])

    def forget_orphaned(self, is_unknown: Callable[[str], bool], *, before: float) -> int:
        """Delete the answers for workflows that never began, from before a time; returns how many.

        :param is_unknown: True for the segment (:func:`.keys.quote_id`) of a workflow that is not stored.
        :param before: seconds since the epoch.
        """
        found = [
            entry.key
            for entry in self._store.list(keys.ANSWERS)
            if entry.problem is None and is_unknown(keys.segment_of(entry.key.rpartition("/")[0]))
        ]
        old = []
        for key in found:
            try:
                body = load_line(key, "answer", self._store.get(key), signing=self._signing)
                with understanding(key, "answer"):
                    if well_typed(SubmissionAnswer(**body)).answered_at < before:
                        old.append(key)
            except (KeyNotFoundError, DataLoadError):
                continue  # read since, or damaged: it stays
        self._store.delete(old)
        return len(old)

    def take_over(self, owner: Owner) -> None:
        """Become the owner. From here on managers ignore what earlier owners request."""
        key = keys.owner_key(owner.workflow_id)
        self._store.put(key, dump_document(key, "owner", asdict(owner), signing=self._signing))

    def read_owner(self, workflow_id: str) -> Owner | None:
        key = keys.owner_key(workflow_id)
        try:
            body = load_line(key, "owner", self._store.get(key), signing=self._signing)
        except KeyNotFoundError:
            return None
        with understanding(key, "owner"):
            return well_typed(Owner(**body))

    def request_stop(self, request: StopRequest) -> None:
        """Ask for a stop; one write, and obeyed within seconds by the manager that runs it.

        A cancel takes two: it has to be obeyed also instead of a resume, which lists the
        workflow's folder anyway, and asks for requests only if it finds word of one there.
        """
        if request.how == "cancel":
            self._store.put(keys.cancel_key(request.workflow_id, request.token), b"")
        key = keys.request_key(request.workflow_id, request.token)
        self._store.put(key, dump_document(key, "request", asdict(request), signing=self._signing))

    def read_request(self, workflow_id: str, token: str) -> StopRequest | None:
        """What an owner has requested."""
        return self._load_request(keys.request_key(workflow_id, token))

    def list_requests(self, workflow_id: str | None = None) -> Iterator[StopRequest]:
        """The requests that are still open: one listing, and a read for each.

        One that can't be read is left out.

        :param workflow_id: only those for this workflow.
        """
        folder = keys.REQUESTS if workflow_id is None else keys.requests_folder(workflow_id)
        for entry in self._store.list(folder):
            try:
                if entry.problem is not None:
                    raise entry.problem
                request = self._load_request(entry.key)
            except StorageError as exc:
                self._warn_once(entry.key, f"A stop request is of no use: {exc}")
                continue
            if request is not None:
                yield request

    def delete_request(self, request: StopRequest) -> None:
        workflow_id, token = request.workflow_id, request.token
        word = [keys.cancel_key(workflow_id, token)] if request.how == "cancel" else []
        self._store.delete([keys.request_key(workflow_id, token), *word])

    def is_valid(self, request: StopRequest, base_epoch: int) -> bool:
        """True until another owner takes the workflow over, or the workflow is started over.

        :param base_epoch: of the workflow as it is now.
        """
        if request.token == ANYBODY:
            return request.base_epoch == base_epoch
        owner = self.read_owner(request.workflow_id)
        return owner is not None and owner.token == request.token

    def _latest_submission(self, workflow_id: str) -> str:
        """The id of the submission of a workflow's owner; ``""`` for none."""
        try:
            owner = self.read_owner(workflow_id)
        except DataLoadError:
            return ""  # a damaged owner is replaced
        return owner.submission_id if owner else ""

    def _warn_once(self, key: str, message: str) -> None:
        if key not in self._unreadable:  # managers look again and again
            self._unreadable.add(key)
            log.warning("%s", message)

    def _load_request(self, key: str) -> StopRequest | None:
        try:
            body = load_line(key, "request", self._store.get(key), signing=self._signing)
        except KeyNotFoundError:
            return None  # dealt with since it was listed
        with understanding(key, "request"):
            request = well_typed(StopRequest(**body))
        own_key = keys.request_key(request.workflow_id, request.token)
        if key != own_key:
            raise CorruptedDataError(key, f"it is the request of {own_key!r}")
        return request
