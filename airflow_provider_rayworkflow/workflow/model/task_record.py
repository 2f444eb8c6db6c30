"""What the journal says of one task: a checkpoint, a continuation or a failure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, fields
from typing import Any, NamedTuple

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError
from airflow_provider_rayworkflow.workflow.format.documents import dump_frame, well_typed
from airflow_provider_rayworkflow.workflow.model.cache_options import CacheSource
from airflow_provider_rayworkflow.workflow.model.records import (
    Blob,
    Encoding,
    Fingerprints,
    Form,
    JsonOutput,
    Result,
    TaskFailure,
    TaskTimes,
)

Json = dict[str, Any]
_Buffer = bytes | bytearray | memoryview


class TaskRecord(NamedTuple):
    """One committed fact about a task, a frame of a journal.

    :ivar result: of a task that ended with a value or a caught error.
    :ivar graph: of a task that was replaced by a continuation; the graph's bytes.
    :ivar task_ids: the ids given to the tasks of that graph.
    :ivar catches: with a graph: the task catches exceptions, also of the continuation.
    :ivar is_failure: the result's bytes are the exception that failed the workflow. Kept for
        people and ``__cause__``; it is no checkpoint.
    :ivar is_revoked: the blob of the result proved to be damaged. The task that made it, this one
        or one of its continuation, has to run again.
    :ivar is_skipped: the task did not run, as its rule says, and its result is None.
    :ivar json_output: of the task that gave the workflow's output.
    :ivar failure: with an exception as the result: the same as text, for readers that must not
        unpickle.
    :ivar fingerprints: what it was made of; None for a failure, a revocation, and an output that
        a prune has kept.
    :ivar cached: where its result was taken from, of a task that did not run for that.
    :ivar epoch: under which it was written, known when it was read.
    """

    task_id: str
    times: TaskTimes | None = None
    result: Result | None = None
    graph: bytes | None = None
    task_ids: tuple[str, ...] = ()
    catches: bool = False
    is_failure: bool = False
    is_revoked: bool = False
    is_skipped: bool = False
    json_output: JsonOutput | None = None
    failure: TaskFailure | None = None
    fingerprints: Fingerprints | None = None
    cached: CacheSource | None = None
    epoch: int = 0

    def to_frame(self) -> list[_Buffer]:
        header: Json = {"task": self.task_id}
        payload: list[_Buffer] = []
        if self.times:
            header["times"] = self.times.to_json()
        for name, is_set in (
            ("failure", self.is_failure),
            ("revoked", self.is_revoked),
            ("skipped", self.is_skipped),
        ):
            if is_set:
                header[name] = True
        if self.json_output:
            header["json_output"] = self.json_output.to_json()
        if self.failure:
            header["error"] = self.failure.to_json()
        if self.cached:
            header["cached"] = self.cached.to_json()
        if self.fingerprints:
            header["made_of"] = self.fingerprints
        if self.graph is not None:
            header["task_ids"] = self.task_ids
            header["catches"] = self.catches
            payload = [self.graph]
        if self.result is not None:
            header["form"] = self.result.form.value
            header["encoding"] = self.result.encoding.value
            if self.result.inline is not None:
                payload = [self.result.inline]
            elif self.result.blob is not None:
                header["blob"] = astuple(self.result.blob)
        return dump_frame(header, payload)

    @classmethod
    def from_frame(cls, header: Json, payload: memoryview, *, epoch: int = 0) -> TaskRecord:
        times, made_of = header.get("times"), header.get("made_of")
        fingerprints = made_of and Fingerprints._make(made_of)
        if "task_ids" in header:
            return cls(
                task_id=_text(header["task"]),
                times=times and TaskTimes.from_json(times),
                graph=bytes(payload),
                task_ids=_texts(header["task_ids"]),
                catches=header["catches"],
                fingerprints=fingerprints,
                epoch=epoch,
            )
        blob, output = header.get("blob"), header.get("json_output")
        error, cached = header.get("error"), header.get("cached")
        return cls(
            task_id=_text(header["task"]),
            times=times and TaskTimes.from_json(times),
            is_failure=header.get("failure", False),
            is_revoked=header.get("revoked", False),
            is_skipped=header.get("skipped", False),
            json_output=output and JsonOutput.from_json(output),
            failure=error and TaskFailure.from_json(error),
            fingerprints=fingerprints,
            cached=cached and CacheSource.from_json(cached),
            epoch=epoch,
            result=Result(
                form=Form(header["form"]),
                encoding=Encoding(header["encoding"]),
                inline=None if blob else bytes(payload),
                blob=well_typed(Blob(**dict(zip(_BLOB, blob, strict=True)))) if blob else None,
            ),
        )


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not values:
        raise TypeError(f"{values!r:.100} has no texts")
    return tuple(_text(value) for value in values)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r:.100} is no text")
    return value


_BLOB = tuple(field.name for field in fields(Blob))


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoints:
    """All that is committed of a workflow.

    :ivar records: the latest record of each task, in the order in which they were committed.
    :ivar failures: the exception of each task that failed in the latest epoch that had one.
    :ivar created: the tasks of all continuations, also of those that are of no use any more.
    :ivar damaged: what was found torn or changed; its tasks count as not committed.
    :ivar lost: of these tasks, the ones whose names are known.
    """

    records: dict[str, TaskRecord] = field(default_factory=dict)
    failures: dict[str, TaskRecord] = field(default_factory=dict)
    created: set[str] = field(default_factory=set)
    damaged: list[CorruptedDataError] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)

    def take(self, record: TaskRecord, sizes: Mapping[str, int]) -> None:
        """Add the next record of a journal.

        A large value whose object is missing or has another size than its record says is damaged.

        :param sizes: the size in bytes of each stored object, by key.
        """
        if record.is_failure:
            self.failures[record.task_id] = record
            return
        blob = record.result.blob if record.result else None
        if record.is_revoked:
            for task_id in [name for name, other in self.records.items() if _has(other, blob)]:
                del self.records[task_id]
                self.lost.add(task_id)
            return
        if blob and (size := sizes.get(blob.key)) != blob.size:
            what = "it is missing" if size is None else f"it has {size} bytes, not {blob.size}"
            self.damaged.append(CorruptedDataError(blob.key, what))
            self.lost.add(record.task_id)
            return
        self.created.update(record.task_ids)
        self.records.pop(record.task_id, None)
        self.records[record.task_id] = record


def _has(record: TaskRecord, blob: Blob | None) -> bool:
    return blob is not None and record.result is not None and record.result.blob == blob
