"""Which workflow belongs to which task instance. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider_rayworkflow.workflow.model.records import ORIGIN_KEY

_MAX_LENGTH = 200
_HASH_LENGTH = 16
_UNSAFE = re.compile(r"[^\w.:+-]")


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskInstanceKey:
    """What stays the same over all tries of a task instance.

    :ivar map_index: of a mapped one, else -1.
    """

    dag_id: str
    task_id: str
    run_id: str
    map_index: int = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Who started a workflow from scratch, as it is kept in the workflow's metadata.

    :ivar run_after: of the DAG run; another one means another DAG run of the same id.
    :ivar life: made at the first try of a task instance and gone with its DAG run.
    :ivar max_tries: Airflow raises it at every clear, and at nothing else.
    :ivar inputs: a fingerprint of the item that a mapped task instance is for; of others it does
        not count. ``""`` where it is not known.
    """

    key: TaskInstanceKey
    run_after: str
    life: str
    max_tries: int
    inputs: str

    def to_metadata(self) -> dict[str, Any]:
        return asdict(self.key) | {
            "run_after": self.run_after,
            "life": self.life,
            "max_tries": self.max_tries,
            "inputs": self.inputs,
        }

    @classmethod
    def from_metadata(cls, metadata: dict[str, Any]) -> Origin | None:
        """The origin in a workflow's metadata; None if no task instance of ours started it."""
        match metadata.get(ORIGIN_KEY):
            case {
                "dag_id": str(dag_id),
                "task_id": str(task_id),
                "run_id": str(run_id),
                "map_index": int(map_index),
                "run_after": str(run_after),
                "life": str(life),
                "max_tries": int(max_tries),
                "inputs": str(inputs),
            }:
                key = TaskInstanceKey(
                    dag_id=dag_id, task_id=task_id, run_id=run_id, map_index=map_index
                )
                if not _is_of_airflow(key):
                    return None
                return cls(
                    key=key, run_after=run_after, life=life, max_tries=max_tries, inputs=inputs
                )
        return None


def _is_of_airflow(key: TaskInstanceKey) -> bool:
    """True if Airflow may have such a task instance: its database is asked for nothing else."""
    names = (key.dag_id, key.task_id, key.run_id)
    return -1 <= key.map_index < 2**31 and all(
        len(name) <= _MAX_NAME and not _NO_TEXT.search(name) for name in names
    )


_MAX_NAME = 250  # of Airflow's ids
_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")


def derive_workflow_id(key: TaskInstanceKey, *, namespace: str | None = None) -> str:
    """``{dag_id}.{task_id}.{run_id}[.{map_index}]``, different for every task instance.

    Up to 200 characters, good for paths. Where that takes a change, or another task instance
    could read the same (dots in a task group's name), ``~`` and a hash of the key follow.

    :param namespace: of this Airflow, where several share a storage. It stands in front, and
        there is a hash.
    """
    parts = [key.dag_id, key.task_id, key.run_id]
    if key.map_index >= 0:
        parts.append(str(key.map_index))
    readable = ".".join([namespace, *parts] if namespace else parts)
    safe = _UNSAFE.sub("_", readable)
    if safe == readable and len(safe) <= _MAX_LENGTH and not namespace and not _is_ambiguous(key):
        return safe
    unique = _hash([[namespace], *parts] if namespace else parts)
    return f"{safe[: _MAX_LENGTH - _HASH_LENGTH - 1]}~{unique}"


def fingerprint(workflow: str, arguments: dict[str, Any]) -> str:
    """A hash of what a workflow is made of; arguments are JSON."""
    return _hash([workflow, arguments])


def _is_ambiguous(key: TaskInstanceKey) -> bool:
    # Without dots in the first two, what follows is the run id and perhaps a map index.
    if "." in key.dag_id or "." in key.task_id:
        return True
    return key.map_index < 0 and re.search(r"\.\d+$", key.run_id) is not None


def _hash(value: list[Any]) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]
