"""The end of what a task printed, to be kept with its checkpoint or beside its error."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from airflow_provider_rayworkflow.workflow.runtime.private_ray import LOG_PREFIX_TASK_NAME
from airflow_provider_rayworkflow.workflow.scheduling.attempts import (
    AttemptEnd,
    Continued,
    Raised,
    Returned,
)

#: How much is kept of each of standard output and standard error.
KEPT_BYTES = 3000


class Printed:
    """What this process prints from here on. Ray's workers print into files of their own.

    Where that is not so, nothing is known.

    :param descriptors: where it prints to.
    """

    def __init__(self, descriptors: Sequence[int] = (1, 2)) -> None:
        _flush()
        self._begins = {
            descriptor: end
            for descriptor in descriptors
            if (end := _end_of(descriptor)) is not None
        }

    def tail(self) -> str:
        """The last lines of it."""
        _flush()
        return "".join(_read(descriptor, begin) for descriptor, begin in self._begins.items())

    def beside(self, completion: AttemptEnd) -> AttemptEnd:
        """The completion, with what was printed."""
        if not isinstance(completion, Raised | Returned | Continued):
            return completion
        text = self.tail()
        if not text:
            return completion
        if isinstance(completion, Raised):
            return replace(completion, failure=replace(completion.failure, output=text))
        return completion._replace(printed=text)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a task before this one may have closed or replaced it
            stream.flush()


def _end_of(descriptor: int) -> int | None:
    """How much is in a file; None for what is no file. What is written comes there anyway."""
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)  # a quarter of what `fstat` takes
    except OSError:
        return None


def _read(descriptor: int, begin: int) -> str:
    if _end_of(descriptor) == begin:
        return ""
    try:
        # The descriptor itself is open for writing only.
        with open(f"/proc/self/fd/{descriptor}", "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(begin, end - KEPT_BYTES))
            content = file.read(KEPT_BYTES)
    except OSError:  # its file is gone: the error itself matters more
        return ""
    lines = content.decode(errors="replace").splitlines(keepends=True)
    if end - begin > KEPT_BYTES:
        lines[:1] = ["…\n"]
    return "".join(line for line in lines if not line.startswith(LOG_PREFIX_TASK_NAME))
