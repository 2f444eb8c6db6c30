"""Where the states and files lie that tasks save while they run.

.. code-block:: text

    v1/workflows/<workflow>/saved/<task hash>/<epoch>-<attempt>-<number>.state    a saved state
    v1/workflows/<workflow>/saved/<task hash>/<epoch>-<attempt>-<number>.files    a version of its folder
    v1/workflows/<workflow>/saved/<task hash>/<epoch>-<attempt>-<number>-<piece>.piece   bytes of that

They are objects of the workflow's own folder, so that what deletes or lists that has them, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from airflow_provider_rayworkflow.workflow.storage.keys import (
    WorkflowFile,
    task_hash,
    workflow_folder,
)

#: A state, the list of files of a folder, or some of their bytes.
SavedKind = Literal["state", "files", "piece"]

_SAVED = "saved"
_PARTS: dict[str, int] = {"state": 3, "files": 3, "piece": 4}
_KINDS: dict[str, SavedKind] = {"state": "state", "files": "files", "piece": "piece"}


class Version(NamedTuple):
    """One version of what a task saves; the greatest counts.

    :ivar number: of those of the attempt, from 1.
    """

    epoch: int
    attempt: int
    number: int


@dataclass(frozen=True, slots=True, order=True)
class SavedFile:
    """What the name of a saved object says.

    :ivar piece: its place among the pieces of its version, from 0; 0 for what is no piece.
    :ivar size: in bytes, as the listing says.
    """

    version: Version
    kind: SavedKind
    piece: int
    key: str
    size: int = 0


def saved_folder(workflow_id: str) -> str:
    """The folder of all that the tasks of a workflow have saved."""
    return f"{workflow_folder(workflow_id)}/{_SAVED}"


def task_folder(workflow_id: str, task_id: str) -> str:
    """The folder of what one task has saved."""
    return folder_of_hash(workflow_id, task_hash(task_id))


def folder_of_hash(workflow_id: str, hash_: str) -> str:
    """The same, by the :func:`task_hash` of the task's id."""
    return f"{saved_folder(workflow_id)}/{hash_}"


def saved_file(folder: str, version: Version, kind: SavedKind, *, piece: int = 0) -> SavedFile:
    """The name of a saved object.

    :param folder: of the task, by :func:`task_folder`.
    """
    epoch, attempt, number = version
    stem = f"{epoch:08d}-{attempt:06d}-{number:08d}"
    if kind == "piece":
        stem += f"-{piece:06d}"
    return SavedFile(version, kind, piece, f"{folder}/{stem}.{kind}")


def parse_saved_file(key: str, size: int) -> SavedFile | None:
    """Read the name of a saved object; None for a foreign file.

    :param size: of the object, as the listing says.
    """
    stem, _, ending = key.rpartition("/")[2].rpartition(".")
    parts = stem.split("-")
    kind = _KINDS.get(ending)
    if kind is None or len(parts) != _PARTS[ending]:
        return None
    if not all(part.isascii() and part.isdigit() for part in parts):
        return None
    epoch, attempt, number, *piece = map(int, parts)
    return SavedFile(Version(epoch, attempt, number), kind, piece[0] if piece else 0, key, size)


def saved_workflow_file(key: str, size: int) -> WorkflowFile | None:
    """A saved object as one of the workflow's files: of the kind ``"saved"``, with its attempt as number.

    None for any other object.
    """
    folder, _, hash_ = key.rpartition("/")[0].rpartition("/")
    file = parse_saved_file(key, size) if folder.rpartition("/")[2] == _SAVED else None
    if file is None:
        return None
    return WorkflowFile(file.version.epoch, file.version.attempt, "saved", key, size, hash_)
