"""Finds out what a task prints and logs: by the standard streams, and by a handler of ``logging``.

Which task it is, is known by a context variable: many may run in one process. A worker of Ray runs
one at a time; there, what the task's own threads and what processes started by it print counts, too.

Each message of ``logging`` becomes one line at its level, also where the author's own handler
prints it: then in the form that the handler gives it.
"""

from __future__ import annotations

import codecs
import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

from airflow_provider_rayworkflow.workflow.model.log_line import level_of
from airflow_provider_rayworkflow.workflow.runtime.private_ray import LOG_PREFIX_TASK_NAME
from airflow_provider_rayworkflow.workflow.runtime.worker.task_log import StreamName, TaskLog

_OURS = "airflow_provider_rayworkflow."
_TAKEN = "rayworkflow_taken"
_EMIT = logging.StreamHandler.emit.__code__
_READ_BYTES = 1024 * 1024

_current: ContextVar[TaskLog | None] = ContextVar("workflow_task_log", default=None)
# In a process that runs one task at a time: its log.
_alone: TaskLog | None = None
# This process was forked by a task.
_is_of_task = False


def current_log() -> TaskLog | None:
    """Where what is printed here and now goes."""
    return _target()


def enter(task_log: TaskLog) -> None:
    """Let what this context prints and logs go there, for good: in a context of its own."""
    _current.set(task_log)


@contextmanager
def into(task_log: TaskLog) -> Iterator[None]:
    """While this lasts, what the current context prints and logs goes there."""
    token = _current.set(task_log)
    try:
        yield
    finally:
        _current.reset(token)


def label_output(label: str) -> None:
    """Have Ray put this in front of what the process prints from here on, where a driver shows it."""
    for stream in _streams.values():
        stream.label_all(label)


class alone:
    """While this lasts, what all of this process prints goes there, and what its descriptors get.

    :param label: stands meanwhile in front of what Python prints, in place of that of
        :func:`label_output`. A task that prints nothing costs no write for it.
    """

    __slots__ = ("_label", "_task_log", "_token")

    def __init__(self, task_log: TaskLog, label: str = "") -> None:
        self._task_log = task_log
        self._label = label

    def __enter__(self) -> None:
        global _alone
        for stream in _streams.values():
            stream.label = self._label
        self._token = _current.set(self._task_log)
        _alone = self._task_log

    def __exit__(self, *error: object) -> None:
        global _alone
        for stream in _streams.values():
            stream.end(self._task_log)
        _alone = None
        _current.reset(self._token)


def install(*, descriptors: bool = False) -> None:
    """Begin to look at what this process prints and logs; where others have replaced the streams, again.

    :param descriptors: this is a worker of Ray: its standard output and standard error are files,
        which other processes and libraries write, too; and nothing else sets up its ``logging``.
    """
    root = logging.getLogger()
    with _installing:
        for name, descriptor in _STREAMS.items():
            stream = getattr(sys, name)
            if stream is not None and not isinstance(stream, _Stream):
                foreign = _Descriptor.of(descriptor) if descriptors else None
                _streams[name] = _Stream(name, stream, foreign)
                setattr(sys, name, _streams[name])
        if not any(isinstance(handler, _Handler) for handler in root.handlers):
            root.addHandler(_Handler())
    if descriptors and root.level == logging.WARNING:
        root.setLevel(logging.INFO)  # as in Airflow's task processes


def uninstall() -> None:
    """Leave the streams and ``logging`` as they were, unless others have replaced them meanwhile."""
    for name in _STREAMS:
        stream = getattr(sys, name)
        if isinstance(stream, _Stream):
            setattr(sys, name, stream.original)
    _streams.clear()
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, _Handler):
            root.removeHandler(handler)


def read_descriptors(task_log: TaskLog) -> None:
    """Take what others than Python's streams have written to the descriptors of this process."""
    for stream in _streams.values():
        stream.read_descriptor(task_log)


_STREAMS: dict[StreamName, int] = {"stdout": 1, "stderr": 2}
# Those of this process, also where a task has replaced or closed them.
_streams: dict[StreamName, _Stream] = {}

_installing = threading.Lock()


def _target() -> TaskLog | None:
    return _current.get() or _alone


def _leave_to_parent() -> None:
    """In a process that a task has forked: what it writes to its descriptors is read by the one before.

    What that one's log was in memory is a copy here, which nothing sends, and whose lock may be held for ever.
    """
    global _alone, _is_of_task
    if _target() is not None:
        _is_of_task = True
        _current.set(None)
        _alone = None


os.register_at_fork(after_in_child=_leave_to_parent)


class _Handler(logging.Handler):
    """Takes the messages of ``logging`` that reach the root logger."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        task_log = _target()
        is_told = task_log is not None or _is_of_task
        if not is_told or record.name.startswith(_OURS) or hasattr(record, _TAKEN):
            return
        try:
            text = self.format(record)
        except Exception:  # an argument whose text raises
            self.handleError(record)
            return
        setattr(record, _TAKEN, True)
        if task_log is None:
            sys.stderr.write(f"{text}\n")
        else:
            task_log.log(level_of(record.levelno), text)


class _Stream:
    """A standard stream that also tells the log of the task which writes to it.

    :param original: the stream in whose place it is.
    :ivar label: to be written before what the task prints first.
    """

    def __init__(self, name: StreamName, original: TextIO, descriptor: _Descriptor | None) -> None:
        self.original = original
        self.label = ""
        self._name = name
        self._descriptor = descriptor
        self._lock = threading.RLock()
        self._common_label = ""
        self._is_labelled = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.original)

    def write(self, text: str) -> int:
        task_log = _target()
        if task_log is None:
            return self.original.write(text)
        caller = sys._getframe(1)
        record = caller.f_locals.get("record") if caller.f_code is _EMIT else None
        with self._lock:
            self.read_descriptor(task_log)
            if self.label:
                self._write_label(task_log)
            try:
                return self.original.write(text)
            finally:
                self._skip(text, task_log)
                self._tell(task_log, text, record)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def read_descriptor(self, task_log: TaskLog) -> None:
        """Take what others have written to the descriptor."""
        if self._descriptor is None:
            return
        with self._lock:
            self._flush()
            text = self._descriptor.read()
        if text:
            task_log.print(self._name, text)

    def label_all(self, label: str) -> None:
        """Label what comes from here on; what has come before is known, or of no interest."""
        self._common_label = label
        if self._descriptor is not None:
            with self._lock:
                self._flush()
                self._descriptor.begin(_label_line(label))

    def _write_label(self, task_log: TaskLog) -> None:
        label, self.label = self.label, ""
        if self._descriptor is not None:
            self._is_labelled = True
            if foreign := self._descriptor.write(_label_line(label)):
                task_log.print(self._name, foreign)

    def end(self, task_log: TaskLog) -> None:
        """The task has ended."""
        self.read_descriptor(task_log)
        if self._descriptor is not None:
            self._descriptor.end()
        self.label = ""
        if self._is_labelled:
            self._is_labelled = False
            self.label_all(self._common_label)

    def _flush(self) -> None:
        try:
            self.original.flush()
        except Exception:  # a task may have closed it
            return

    def _skip(self, text: str, task_log: TaskLog) -> None:
        """What Python has just written is known: leave it out of what the descriptor has got."""
        if self._descriptor is None:
            return
        self._flush()
        own = text.encode(self.original.encoding or "utf-8", "replace")
        if foreign := self._descriptor.read_without(own):
            task_log.print(self._name, foreign)

    def _tell(self, task_log: TaskLog, text: str, record: logging.LogRecord | None) -> None:
        if record is None:
            task_log.print(self._name, text)
        elif not (record.name.startswith(_OURS) or hasattr(record, _TAKEN)):
            setattr(record, _TAKEN, True)
            task_log.log(level_of(record.levelno), text)


class _Descriptor:
    """What is appended to a file that this process and others have open for writing."""

    def __init__(self, descriptor: int, end: int) -> None:
        self._descriptor = descriptor
        self._at = end
        self._label = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @classmethod
    def of(cls, descriptor: int) -> _Descriptor | None:
        """None for what is no file: nothing is known of what comes there."""
        end = _end_of(descriptor)
        return None if end is None else cls(descriptor, end)

    def begin(self, label: bytes) -> None:
        """Write this line, and have the next call give what comes after it."""
        if self._has_written(label):
            self._label = label
            self.end()

    def write(self, line: bytes) -> str:
        """Write this line; what others have written since the last call."""
        return self.read_without(line) if self._has_written(line) else ""

    def _has_written(self, line: bytes) -> bool:
        try:
            os.write(self._descriptor, line)  # in a third of the time that the stream takes
        except OSError:  # a task has closed it
            return False
        return True

    def read(self) -> str:
        """What has come since the last call. Of much, the end."""
        new = self._new()
        return self._decoder.decode(new) if new else ""

    def end(self) -> None:
        """What comes from here on is of another task: no part of a character goes on."""
        self._decoder.reset()

    def read_without(self, own: bytes) -> str:
        """The same without what this process has written itself since then."""
        end = _end_of(self._descriptor)
        if end == self._at + len(own):
            self._at = end
            return ""
        return self._decoder.decode(self._new().replace(own, b"", 1))

    def _new(self) -> bytes:
        end = _end_of(self._descriptor)
        if end is None:
            return b""
        begin, self._at = self._at, end
        label, self._label = self._label, b""
        if end <= begin + len(label):
            return b""
        new = self._between(max(begin, end - _READ_BYTES), end)
        return new.partition(label)[2] if label and label in new else new

    def _between(self, begin: int, end: int) -> bytes:
        try:
            # The descriptor itself is open for writing only.
            with open(f"/proc/self/fd/{self._descriptor}", "rb") as file:
                file.seek(begin)
                return file.read(end - begin)
        except OSError:  # its file is gone
            return b""


def _label_line(label: str) -> bytes:
    """How Ray's workers tell its log monitor the name of a task."""
    return f"{LOG_PREFIX_TASK_NAME}{label}\n".encode()


def _end_of(descriptor: int) -> int | None:
    """How much is in a file; None for what is no file."""
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    except OSError:
        return None
