"""The folder that a task keeps in the storage: whole versions of local files, in pieces."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    KeyNotFoundError,
    StorageError,
)
from airflow_provider_rayworkflow.workflow.format.documents import (
    content_sum,
    dump_document,
    dump_frame,
    load_frames,
    load_line,
    understanding,
)
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore
from airflow_provider_rayworkflow.workflow.storage.file_pieces import (
    Buffer,
    FileEntry,
    checked_path,
    files_of,
    pieces_of,
    write_files,
)
from airflow_provider_rayworkflow.workflow.storage.saved_keys import SavedFile, Version
from airflow_provider_rayworkflow.workflow.storage.saved_versions import (
    SavedVersions,
    SavingAttempt,
)

# Not the package's logger, whose lines are no part of a task's log.
log = logging.getLogger("rayworkflow.saved")

#: How much of the files is an object, and in memory.
PIECE_BYTES = 32 * 1024 * 1024
_MOST_LOOKS = 10


class SavedFolder:
    """The folder of one task, as one of its attempts reads and writes it; see :class:`.context.TaskFolder`.

    :param new_folder: makes an empty local folder, which its maker deletes when the attempt has ended.
    :param using: entered around each use of the storage: one caller at a time.
    :param signing: as for :class:`WorkflowStore`.
    :ivar versions: of the folder.
    """

    def __init__(
        self,
        store: ByteStore,
        attempt: SavingAttempt,
        new_folder: Callable[[], Path],
        *,
        using: Callable[[], AbstractContextManager[None]] = nullcontext,
        signing: SigningKeys | None = None,
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        self.versions = SavedVersions(store, attempt, ("files", "piece"))
        self._store = store
        self._task_id = attempt.task_id
        self._new_folder = new_folder
        self._using = using
        self._signing = signing
        self._piece_bytes = piece_bytes
        self._local: tuple[Version, Path] | None = None

    # ---- writing

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """See :meth:`.context.TaskFolder.writing`."""
        folder = self._new_folder()
        try:
            yield folder
            files = files_of(folder)
            with self._using():
                self._write(folder, files)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _write(self, folder: Path, files: Sequence[FileEntry]) -> None:
        version = self.versions.begin()
        try:
            sums = []
            for number, content in enumerate(pieces_of(folder, files, self._piece_bytes)):
                sums.append(self._put_piece(version, number, content))
            key = self.versions.name(version, "files").key
            body = {"task": self._task_id, "files": files, "pieces": sums}
            self._store.put(key, dump_document(key, "files", body, signing=self._signing))
        except BaseException:
            with suppress(StorageError):  # else the next version deletes it
                self.versions.discard(version)
            raise
        self.versions.end(version)

    def _put_piece(self, version: Version, number: int, content: Buffer) -> str:
        key = self.versions.name(version, "piece", piece=number).key
        frame = dump_frame({}, [content])
        body = {"task": self._task_id}
        self._store.put(key, dump_document(key, "piece", body, frame, signing=self._signing))
        return content_sum(frame)

    # ---- reading

    def latest(self) -> Path | None:
        """See :meth:`.context.TaskFolder.latest`."""
        with self._using():
            for _ in range(_MOST_LOOKS):
                try:
                    return self._latest()
                except (
                    KeyNotFoundError
                ):  # an attempt that still runs elsewhere has made a later one
                    self.versions.forget()
            return self._latest()

    def _latest(self) -> Path | None:
        for file in self.versions.whole():
            if self._local is not None and self._local[0] == file.version:
                return self._local[1]
            folder = self._new_folder()
            try:
                self._load(file, folder)
            except BaseException as exc:
                shutil.rmtree(folder, ignore_errors=True)
                if not isinstance(exc, CorruptedDataError):
                    raise
                log.warning("%s This version of the folder is not used.", exc)
            else:
                if self._local is not None:
                    shutil.rmtree(self._local[1], ignore_errors=True)
                self._local = file.version, folder
                return folder
        return None

    def _load(self, file: SavedFile, folder: Path) -> None:
        body = load_line(file.key, "files", self._store.get(file.key), signing=self._signing)
        with understanding(file.key, "files"):
            files = [FileEntry(*entry) for entry in body["files"]]
            for entry in files:
                checked_path(entry.path)
            sums = [str(one) for one in body["pieces"]]
        pieces = self.versions.pieces_of(file.version)
        if len(pieces) != len(sums):
            missing = len(sums) - len(pieces)
            raise CorruptedDataError(file.key, f"{missing} of its {len(sums)} pieces are missing")
        content = (self._read_piece(*pair) for pair in zip(pieces, sums, strict=True))
        try:
            write_files(folder, files, content)
        except ValueError as exc:
            raise CorruptedDataError(file.key, str(exc)) from exc

    def _read_piece(self, piece: SavedFile, sum_: str) -> memoryview:
        data = self._store.get(piece.key)
        _, frames = load_frames(piece.key, "piece", data, signing=self._signing)
        for header, payload in frames:
            if content_sum(dump_frame(header, [payload])) == sum_:
                return payload
        raise CorruptedDataError(piece.key, "it is not the piece that its version was made of")
