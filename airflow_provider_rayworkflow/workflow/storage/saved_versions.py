"""The versions of what a task saves while it runs: which one counts, and which may be written.

A version's key has the epoch, the attempt, and a number, and the greatest counts. So an attempt that was
given up and goes on somewhere never replaces what a later one has saved.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from airflow_provider_rayworkflow.workflow.exceptions import OwnershipLostError, StorageError
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore
from airflow_provider_rayworkflow.workflow.storage.claims import claim_head
from airflow_provider_rayworkflow.workflow.storage.saved_keys import (
    SavedFile,
    SavedKind,
    Version,
    parse_saved_file,
    saved_file,
    task_folder,
)

# Not the package's logger, whose lines are no part of a task's log.
log = logging.getLogger("rayworkflow.saved")


@dataclass(frozen=True, kw_only=True, slots=True)
class SavingAttempt:
    """The attempt that saves.

    :ivar since_epoch: what was saved under earlier epochs is of a run that was given up.
    """

    workflow_id: str
    task_id: str
    epoch: int
    attempt: int
    since_epoch: int = 0


class Fence:
    """Whether the attempt's epoch is the latest one of its workflow. Calls block."""

    def __init__(self, store: ByteStore, attempt: SavingAttempt) -> None:
        self._store = store
        self._attempt = attempt
        self._head: bytes | None = None

    def look_first(self) -> None:
        """Remember the claim, so that one of the same number is told from it. One small read.

        :raises OwnershipLostError: when there is no such claim.
        """
        if self._head is None:
            self._head = claim_head(self._store, self._attempt.workflow_id, self._attempt.epoch)
            if self._head is None:
                raise self._lost("its workflow was deleted", is_deleted=True)

    def check(self) -> None:
        """Return if this epoch is still the latest one. Two small reads.

        :raises OwnershipLostError: if not, or when the workflow was deleted.
        """
        workflow_id, epoch = self._attempt.workflow_id, self._attempt.epoch
        if claim_head(self._store, workflow_id, epoch + 1, 1) is not None:
            raise self._lost("a later run of its workflow has begun")
        if claim_head(self._store, workflow_id, epoch) != self._head:
            raise self._lost("its workflow was deleted", is_deleted=True)

    def _lost(self, reason: str, *, is_deleted: bool = False) -> OwnershipLostError:
        attempt = self._attempt
        error = OwnershipLostError(attempt.workflow_id, attempt.epoch, is_deleted=is_deleted)
        error.message = (
            f"Attempt {attempt.attempt} of Task[id={attempt.task_id}] in epoch {attempt.epoch} of "
            f"Workflow[id={attempt.workflow_id}] may save nothing any more: {reason}."
        )
        return error


class SavedVersions:
    """The versions of one thing that a task saves, for one of its attempts. One caller at a time.

    :param kinds: of the objects that belong to a version; the first one's object makes it whole, and
        is written last.
    :ivar folder: where the objects are.
    """

    def __init__(
        self, store: ByteStore, attempt: SavingAttempt, kinds: Sequence[SavedKind]
    ) -> None:
        self.folder = task_folder(attempt.workflow_id, attempt.task_id)
        self._store = store
        self._attempt = attempt
        self._kinds = kinds
        self._fence = Fence(store, attempt)
        self._files: list[SavedFile] | None = None
        self._number = 0

    def whole(self) -> Iterator[SavedFile]:
        """The objects that make versions whole, the latest first. A listing when that is not known yet."""
        main = self._kinds[0]
        yield from sorted((file for file in self._known() if file.kind == main), reverse=True)

    def forget(self) -> None:
        """Have the next call look at the storage: another attempt has changed what was found."""
        self._files = None

    def pieces_of(self, version: Version) -> list[SavedFile]:
        """The pieces of a version, in their order."""
        files = self._known()
        return sorted(file for file in files if file.version == version and file.kind == "piece")

    def begin(self) -> Version:
        """A version to be written. The storage is looked at first, so that older ones are known.

        :raises OwnershipLostError: when the attempt may save nothing any more.
        """
        self._known()
        self._fence.look_first()
        self._number += 1
        return Version(self._attempt.epoch, self._attempt.attempt, self._number)

    def name(self, version: Version, kind: SavedKind, *, piece: int = 0) -> SavedFile:
        """The name of an object of a version that :meth:`begin` gave; known from now on."""
        file = saved_file(self.folder, version, kind, piece=piece)
        self._known().append(file)
        return file

    def end(self, version: Version) -> None:
        """A version has been written whole: delete the earlier ones, or it itself if it came too late.

        What is deleted was outdone before any later run could begin: its attempts find this version or
        a later one.

        :raises OwnershipLostError: when it came too late.
        """
        try:
            self._fence.check()
        except OwnershipLostError:
            with suppress(StorageError):
                self.discard(version)
            raise
        try:
            self._delete([file for file in self._known() if file.version < version])
        except StorageError as exc:  # the new version counts; the next one tries again
            log.warning("Earlier versions of what was saved can't be deleted: %s", exc)

    def discard(self, version: Version) -> None:
        """Delete what there is of a version."""
        self._delete([file for file in self._known() if file.version == version])

    @property
    def has_any(self) -> bool:
        """True if anything is known to be saved. Looks at nothing."""
        return bool(self._files)

    def _delete(self, files: Collection[SavedFile]) -> None:
        # What makes a version whole goes first: no reader finds one without its pieces.
        main = self._kinds[0]
        for is_main in (True, False):
            some = [file.key for file in files if (file.kind == main) is is_main]
            if some:
                self._store.delete(some)
        gone = set(files)
        self._files = [file for file in self._known() if file not in gone]

    def _known(self) -> list[SavedFile]:
        if self._files is None:
            entries = self._store.list(self.folder)
            found = (parse_saved_file(entry.key, entry.size) for entry in entries)
            self._files = [
                file
                for file in found
                if file is not None
                and file.kind in self._kinds
                and file.version.epoch >= self._attempt.since_epoch
            ]
        return self._files
