"""Where everything lies. The only module that makes or reads keys, but :mod:`.index_keys`, :mod:`.saved_keys`, :mod:`.cached_keys`.

Keys are ``/``-separated, relative to the storage root. Epochs and pieces of a log count from 1; events, journal
segments and statuses from 0; attempts count from 1, and 0 stands for a value that a fork has
copied. Sizes are in bytes.

.. code-block:: text

    v1/status/<workflow>/<epoch>-<number>-<STATUS>-<manager>.json   the latest one counts
    v1/workflows/<workflow>/<epoch>.epoch                       a claim, with the graph if new
    v1/workflows/<workflow>/<epoch>-<segment>.journal           small checkpoints
    v1/workflows/<workflow>/<epoch>-<task hash>-<attempt>-<size>.value   one large checkpoint
    v1/workflows/<workflow>/saved/<task hash>/...      what its unfinished tasks have saved
    v1/workflows/<workflow>/<owner token>.cancel   empty: there is a request to cancel it
    v1/leases/<manager>.json
    v1/changes/<writer>.json                            what a manager or a visitor has changed lately
    v1/index/roots/<version>.json                       the root of the index; the highest version counts
    v1/index/nodes/<version>-<random>-<number>.node     a node of the index
    v1/events/<workflow>/<event key>/<number>.json                   what came by HTTP
    v1/event_token.json                                 what its senders have to send along
    v1/submissions/<workflow>/<submission>.submission   what a manager shall run
    v1/answers/<workflow>/<submission>.json                         what became of that
    v1/cache/<key>/...                                  results that tasks of other workflows take
    v1/archives/<sha256>.zip                            a folder of code that tasks need
    v1/archive_uses/<sha256>/<workflow>.json            a workflow uses that archive
    v1/workflows/<workflow>/<sha256>.archive            empty: it uses that archive
    v1/owners/<workflow>.json                                       who waits for it
    v1/requests/<workflow>/<owner token>.json                       who wants it stopped
    v1/watchers/<watcher>.json                              which ends it has passed on
    v1/logs/<workflow>/<epoch>-<number>.jsonl           what its tasks print and log, in pieces
    v1/probe/<random>                       the test whether the storage takes writes

The names of status documents sort by epoch, then number, so that a listing alone tells the status
and an owner that lost its epoch can't overwrite what its successor wrote.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

FORMAT = "v1"
STATUSES = f"{FORMAT}/status"
LEASES = f"{FORMAT}/leases"
EVENTS = f"{FORMAT}/events"
INDEX = f"{FORMAT}/index"
EVENT_TOKEN = f"{FORMAT}/event_token.json"
REQUESTS = f"{FORMAT}/requests"
SUBMISSIONS = f"{FORMAT}/submissions"
ANSWERS = f"{FORMAT}/answers"
ARCHIVE_USES = f"{FORMAT}/archive_uses"
CHANGES = f"{FORMAT}/changes"
WATCHERS = f"{FORMAT}/watchers"
_WORKFLOWS = f"{FORMAT}/workflows"
_LOGS = f"{FORMAT}/logs"

# What stays as it is in a name. Capital letters are quoted, so that ids which differ only in case
# stay apart where file names do not.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-.+=,@")
_MAX_NAME = 200  # file names end at 255 bytes
_CUT = 100  # how much of a longer one is kept
_HASHED = "~"  # never the result of quoting
_PLAIN_SEGMENT = re.compile(f"(?!\\.)[{re.escape(''.join(sorted(_PLAIN)))}]{{1,{_MAX_NAME}}}")
_SHA256 = re.compile("[0-9a-f]{64}")
_HASHED_SEGMENT = re.compile(f"[^/]{{{_CUT}}}{_HASHED}[0-9a-f]{{64}}")


#: What is in an object, as far as its key tells.
_OfRuns = Literal["lease", "status", "graph", "checkpoints", "value", "saved", "log"]
Kind = Literal[_OfRuns, "index", "change", "cache", "other"]

_KINDS: dict[str, Kind] = {"epoch": "graph", "journal": "checkpoints", "value": "value"}
_KINDS |= {"state": "saved", "files": "saved", "piece": "saved"}
_FOLDERS: dict[str, Kind] = {
    f"{LEASES}/": "lease",
    f"{STATUSES}/": "status",
    f"{_LOGS}/": "log",
    f"{INDEX}/": "index",
    f"{FORMAT}/cache/": "cache",
    f"{CHANGES}/": "change",
}


def kind_of(key: str) -> Kind:
    """The kind of an object by its key, ``"other"`` for an unknown one; for figures of the storage."""
    for folder, kind in _FOLDERS.items():
        if key.startswith(folder):
            return kind
    return _KINDS.get(key.rpartition(".")[2], "other")


def quote_id(text: str) -> str:
    """Make one path segment of an id; ids that differ give different segments.

    :returns: at most 200 ASCII characters; of a longer id its begin and its SHA-256.
    :raises UnicodeEncodeError: for a lone surrogate.
    """
    if _PLAIN_SEGMENT.fullmatch(text):
        return text
    quoted = "".join(
        char if char in _PLAIN else "".join(f"%{byte:02x}" for byte in char.encode())
        for char in text
    )
    if quoted.startswith("."):  # hidden files are not listed
        quoted = "%2e" + quoted[1:]
    if len(quoted) <= _MAX_NAME:
        return quoted
    return f"{quoted[:_CUT]}{_HASHED}{hashlib.sha256(text.encode()).hexdigest()}"


def quote_prefix(text: str) -> str:
    """What the segments of all ids begin with that begin with this text.

    :raises ValueError: when it is too long to be told from the segments of long ids.
    """
    quoted = quote_id(text)
    if len(quoted) > _CUT:
        raise ValueError(f"The prefix {text!r:.200} is too long; give a shorter one.")
    return quoted


def segment_prefixes(text: str) -> tuple[str, ...]:
    """What the segments begin with of all ids that begin with this text; other ids' may, too.

    In the order of the segments.

    :raises UnicodeEncodeError: for a lone surrogate, which no id has.
    """
    quoted = quote_id(text)
    if len(quoted) <= _CUT:
        return (quoted,)
    cut = quoted[:_CUT] + _HASHED
    return (cut,) if _HASHED in quoted else (quoted, cut)


def unquote_id(segment: str) -> str | None:
    """The id of a segment of :func:`quote_id`; None for a long id, which its segment only begins."""
    return None if _HASHED in segment else unquote(segment, errors="strict")


def _is_segment(text: str) -> bool:
    """True for what :func:`quote_id` may have made."""
    if _PLAIN_SEGMENT.fullmatch(text) or _HASHED_SEGMENT.fullmatch(text):
        return True
    try:
        return _HASHED not in text and quote_id(unquote(text, errors="strict")) == text
    except UnicodeDecodeError:
        return False


def workflow_folder(workflow_id: str) -> str:
    """The folder of a workflow's claims, journals, large values and marks of cancels."""
    return f"{_WORKFLOWS}/{quote_id(workflow_id)}"


def status_folder(workflow_id: str) -> str:
    """The folder of a workflow's status documents, whose keys :func:`status_key` makes."""
    return status_folder_of(quote_id(workflow_id))


def status_folder_of(segment: str) -> str:
    """The same, by the segment of the workflow's id."""
    return f"{STATUSES}/{segment}"


def epoch_key(workflow_id: str, epoch: int) -> str:
    """The document of a claim: creating it claims the epoch."""
    return f"{workflow_folder(workflow_id)}/{epoch:08d}.epoch"


def journal_key(workflow_id: str, epoch: int, segment: int) -> str:
    """One segment of an epoch's journal, which holds small checkpoints."""
    return f"{workflow_folder(workflow_id)}/{epoch:08d}-{segment:08d}.journal"


def value_key(workflow_id: str, epoch: int, task_id: str, attempt: int, size: int) -> str:
    """The large result of one attempt of a task.

    :param size: of the whole object.
    """
    name = f"{epoch:08d}-{task_hash(task_id)}-{attempt}-{size}"
    return f"{workflow_folder(workflow_id)}/{name}.value"


def task_hash(task_id: str) -> str:
    """What stands for a task's id in the key of its value: 32 hex digits of its SHA-256."""
    return hashlib.sha256(task_id.encode(errors="surrogatepass")).hexdigest()[:32]


def lease_key(manager_id: str) -> str:
    """The lease of a manager.

    :param manager_id: goes into the key as it is, so it must be one plain path segment.
    """
    return f"{LEASES}/{manager_id}.json"


def manager_of_lease(key: str) -> str | None:
    """The id of the manager that has a lease, by the lease's key; None for a foreign file."""
    folder, _, name = key.rpartition("/")
    manager_id, _, ending = name.rpartition(".")
    return manager_id if folder == LEASES and ending == "json" and manager_id else None


def change_log_key(writer: str) -> str:
    """The change log of a manager or a visitor.

    :param writer: its id, which goes into the key as it is, so it must be one plain path segment.
    """
    return f"{CHANGES}/{writer}.json"


def writer_of_change_log(key: str) -> str | None:
    """Who wrote a change log, by its key; None for a foreign file."""
    folder, _, name = key.rpartition("/")
    writer, _, ending = name.rpartition(".")
    return writer if folder == CHANGES and ending == "json" and writer else None


def events_folder(workflow_id: str) -> str:
    """The folder of all HTTP events of a workflow."""
    return f"{EVENTS}/{quote_id(workflow_id)}"


def event_folder(workflow_id: str, event_key: str) -> str:
    """The folder of the HTTP events that were posted to a workflow under one event key."""
    return f"{events_folder(workflow_id)}/{quote_id(event_key)}"


def event_key(workflow_id: str, event_key: str, number: int) -> str:
    """One HTTP event.

    :param number: in the order in which events came under the event key, from 0.
    """
    return f"{event_folder(workflow_id, event_key)}/{number:08d}.json"


def segment_of_event(key: str) -> str | None:
    """The segment of the workflow's id in the key of an event; None for a foreign file."""
    *_, name = parts = key.split("/")
    stem, _, ending = name.rpartition(".")
    is_ours = len(parts) == 5 and ending == "json" and _number(stem) >= 0
    return parts[2] if is_ours else None


def submissions_folder(workflow_id: str) -> str:
    """The folder of the submissions of a workflow."""
    return f"{SUBMISSIONS}/{quote_id(workflow_id)}"


def submission_key(workflow_id: str, submission_id: str) -> str:
    """What one manager shall run.

    :param submission_id: unique for each submission of a workflow.
    """
    return f"{submissions_folder(workflow_id)}/{quote_id(submission_id)}.submission"


def is_submission_key(key: str) -> bool:
    """True for the key of a submission; False for a foreign file."""
    *_, name = parts = key.split("/")
    stem, _, ending = name.rpartition(".")
    return len(parts) == 4 and ending == "submission" and bool(stem) and _is_segment(stem)


def answer_folder(workflow_id: str) -> str:
    """The folder of the answers to the submissions of a workflow."""
    return f"{ANSWERS}/{quote_id(workflow_id)}"


def answer_key(workflow_id: str, submission_id: str) -> str:
    """What became of one submission."""
    return f"{answer_folder(workflow_id)}/{quote_id(submission_id)}.json"


def archive_key(sha256: str) -> str:
    """An archive of code.

    :param sha256: of its bytes, as 64 hex digits.
    :raises ValueError: for anything else.
    """
    return f"{FORMAT}/archives/{_checked_sha256(sha256)}.zip"


def archive_uses_folder(sha256: str) -> str:
    """The folder of the uses of an archive."""
    return f"{ARCHIVE_USES}/{_checked_sha256(sha256)}"


def archive_use_key(sha256: str, workflow_id: str) -> str:
    """That a workflow uses an archive, where the archive's uses are counted."""
    return f"{archive_uses_folder(sha256)}/{quote_id(workflow_id)}.json"


def parse_archive_use(key: str) -> tuple[str, str] | None:
    """The SHA-256 of the archive and the workflow's segment; None for a foreign file."""
    *_, sha256, name = parts = key.split("/")
    stem, _, ending = name.rpartition(".")
    if len(parts) != 4 or ending != "json" or not _SHA256.fullmatch(sha256):
        return None
    return (sha256, stem) if _is_segment(stem) else None


def archive_mark_key(workflow_id: str, sha256: str) -> str:
    """The same as an empty object in the workflow's own folder, so that its deletion finds the use."""
    return f"{workflow_folder(workflow_id)}/{_checked_sha256(sha256)}.archive"


def parse_archive_mark(key: str) -> str | None:
    """The SHA-256 of the archive; None for any other object in a workflow's folder."""
    stem, _, ending = key.rpartition("/")[2].rpartition(".")
    return stem if ending == "archive" and _SHA256.fullmatch(stem) else None


def _checked_sha256(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise ValueError(f"{text!r:.100} is no SHA-256.")
    return text


def owner_key(workflow_id: str) -> str:
    """The document of a workflow's owner: the try that waits for it now."""
    return f"{FORMAT}/owners/{quote_id(workflow_id)}.json"


def requests_folder(workflow_id: str) -> str:
    """The folder of the stop requests for a workflow."""
    return f"{REQUESTS}/{quote_id(workflow_id)}"


def request_key(workflow_id: str, token: str) -> str:
    """The stop request of one owner.

    :param token: of the owner, or :data:`.mailbox.ANYBODY`.
    """
    return f"{requests_folder(workflow_id)}/{quote_id(token)}.json"


def cancel_key(workflow_id: str, token: str) -> str:
    """An empty object in the workflow's own folder: there is a request to cancel under the token."""
    return f"{workflow_folder(workflow_id)}/{quote_id(token)}.cancel"


def watcher_key(name: str) -> str:
    """The document of a watcher (:class:`.Completions`): which ends it has passed on.

    :param name: goes into the key as it is, so it must be one plain path segment.
    """
    return f"{WATCHERS}/{name}.json"


def logs_folder(workflow_id: str) -> str:
    """The folder of the pieces of a workflow's log."""
    return f"{_LOGS}/{quote_id(workflow_id)}"


def log_key(workflow_id: str, epoch: int, number: int) -> str:
    """One piece of the log of a workflow's tasks.

    :param number: in the order in which the pieces of one epoch were written, from 1.
    """
    return f"{logs_folder(workflow_id)}/{epoch:08d}-{number:08d}.jsonl"


@dataclass(frozen=True, slots=True, order=True)
class LogFile:
    """What the name of a piece of a log says; pieces sort in the order of their lines.

    :ivar size: in bytes, as the listing says.
    """

    epoch: int
    number: int
    key: str
    size: int


def parse_log_file(key: str, size: int) -> LogFile | None:
    """Read the name of a piece of a log; None for a foreign file.

    :param size: of the object, as the listing says.
    """
    stem, _, ending = key.rpartition("/")[2].rpartition(".")
    parts = stem.split("-")
    numbers = [_number(part) for part in parts]
    if ending != "jsonl" or len(parts) != 2 or min(numbers) < 1:
        return None
    return LogFile(numbers[0], numbers[1], key, size)


def probe_key(name: str) -> str:
    """An object that is written to find out what the storage can do, and deleted at once.

    :param name: goes into the key as it is; random, so that two managers don't meet.
    """
    return f"{FORMAT}/probe/{name}"


@dataclass(frozen=True, slots=True, order=True)
class StatusKey:
    """What the name of a status document says; the greatest of a workflow counts.

    :ivar segment: of the workflow's id, as :func:`quote_id` makes it.
    """

    epoch: int
    number: int
    status: WorkflowStatus
    manager_id: str
    segment: str

    @property
    def name(self) -> str:
        """The name of the document in the folder of its workflow."""
        stem = f"{self.epoch:08d}-{self.number:04d}-{self.status.value}-{self.manager_id}"
        return f"{stem}.json"

    @property
    def key(self) -> str:
        """The key of the document."""
        return f"{STATUSES}/{self.segment}/{self.name}"


def status_key(
    workflow_id: str, *, epoch: int, number: int, status: WorkflowStatus, manager_id: str
) -> StatusKey:
    """The name of a status document; its ``key`` is where the document lies."""
    return StatusKey(epoch, number, status, manager_id, quote_id(workflow_id))


def segment_of(folder: str) -> str:
    """The segment of a workflow's id, which ends the key of a folder of one workflow."""
    return folder.rstrip("/").rpartition("/")[2]


_STATUSES = {status.value: status for status in WorkflowStatus}


def parse_status_key(key: str) -> StatusKey | None:
    """Read the name of a status document; None for anything else."""
    folder, _, name = key.rpartition("/")
    root, _, segment = folder.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    parts = stem.split("-", 3)
    is_ours = root == STATUSES and dot and ending == "json" and _is_segment(segment)
    if not is_ours or len(parts) != 4:
        return None
    epoch, number, status = _number(parts[0]), _number(parts[1]), _STATUSES.get(parts[2])
    if epoch < 0 or number < 0 or status is None:
        return None
    return StatusKey(epoch, number, status, parts[3], segment)


@dataclass(frozen=True, slots=True, order=True)
class WorkflowFile:
    """What the name of an object in a workflow's folder says.

    :ivar epoch: 0 for a cancel, which is of no epoch.
    :ivar kind: ``"epoch"``, ``"journal"``, ``"value"``, ``"saved"`` or ``"cancel"``.
    :ivar number: the segment of a journal, the attempt of a value or of what is saved, else 0.
    :ivar size: as the listing says.
    :ivar task_hash: of a value or of what is saved (:func:`task_hash`), else ``""``.
    """

    epoch: int
    number: int
    kind: str
    key: str
    size: int
    task_hash: str = ""


def parse_workflow_file(key: str, size: int) -> WorkflowFile | None:
    """Read the name of an object in a workflow's folder; None for a foreign file.

    :param size: of the object, as the listing says.
    """
    stem, _, kind = key.rpartition("/")[2].rpartition(".")
    parts = stem.split("-")
    numbers = [_number(part) for part in parts]
    if kind == "epoch" and len(parts) == 1 and numbers[0] >= 0:
        return WorkflowFile(numbers[0], 0, kind, key, size)
    if kind == "journal" and len(parts) == 2 and min(numbers) >= 0:
        return WorkflowFile(numbers[0], numbers[1], kind, key, size)
    if kind == "value" and len(parts) == 4 and min(numbers[0], numbers[2], numbers[3]) >= 0:
        return WorkflowFile(numbers[0], numbers[2], kind, key, size, parts[1])
    if kind == "cancel" and stem:
        return WorkflowFile(0, 0, kind, key, size)
    return None


def _number(text: str) -> int:
    """The number that the text is in plain digits, else -1."""
    return int(text) if text.isascii() and text.isdigit() else -1
