"""A Ray job's output in the log of the Airflow task, while it comes."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable

from airflow_provider_rayworkflow.exceptions import RayWorkflowError, RayWorkflowUnreachableError
from airflow_provider_rayworkflow.tries.backoff import Backoff
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.shown_text import shown_text

log = get_logger(__name__)

#: What one job may put into the task's log, in characters. The rest is on Ray's dashboard.
MAX_CHARACTERS = 1_000_000

_FIRST_WAIT_S = 1.0
_CANCEL_TIMEOUT_S = 1.0


class JobLog:
    """Copies what one job prints, each line once, also over broken connections.

    :param tail: gives the job's output from its beginning to its end, as often as it is called;
        raises :class:`RayWorkflowUnreachableError` when that breaks off.
    :param write: takes a line.
    :param taken: how much of it, in characters, was copied before.
    :param first_wait_s: between the end of a connection and the next one; each wait after it is
        twice as long, up to 30 s.
    """

    def __init__(
        self,
        submission_id: str,
        tail: Callable[[str], AsyncIterator[str]],
        *,
        write: Callable[[str], None],
        max_characters: int = MAX_CHARACTERS,
        taken: int = 0,
        first_wait_s: float = _FIRST_WAIT_S,
    ) -> None:
        self.submission_id = submission_id
        self._tail = tail
        self._write = write
        self._max_characters = max_characters
        self._taken = taken
        self._first_wait_s = first_wait_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="ray-job-log", daemon=True)

    @property
    def taken(self) -> int:
        """How many characters of the job's output have been copied."""
        return self._taken

    def start(self) -> None:
        """Begin to copy, in a thread."""
        self._thread.start()

    def finish(self, timeout_s: float) -> None:
        """Wait for the end of the job's output, not for longer than this; then stop."""
        self._thread.join(timeout_s)
        loop, task = self._loop, self._task
        if self._thread.is_alive() and loop is not None and task is not None:
            try:
                loop.call_soon_threadsafe(task.cancel)
            except RuntimeError:
                return  # it has just ended
            self._thread.join(_CANCEL_TIMEOUT_S)

    def _run(self) -> None:
        if self._taken >= self._max_characters:
            return
        try:
            asyncio.run(self._copy())
        except asyncio.CancelledError:
            pass
        except RayWorkflowError as exc:
            log.warning("The output of the Ray job %s can't be copied: %s", self.submission_id, exc)
        except Exception:  # a log that is not copied must not fail the task
            log.exception("The output of the Ray job %s can't be copied", self.submission_id)

    async def _copy(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        backoff = Backoff(math.inf, first_wait_s=self._first_wait_s)
        while True:
            before = self._taken
            try:
                await self._copy_once()
                return
            except RayWorkflowUnreachableError as exc:
                log.debug("The output of the Ray job %s broke off: %s", self.submission_id, exc)
            if self._taken > before:
                backoff.worked()
            await asyncio.sleep(backoff.failed() or 0.0)

    async def _copy_once(self) -> None:
        position, partial = 0, ""
        async for text in self._tail(self.submission_id):
            partial += text
            *lines, partial = partial.split("\n")
            for line in lines:
                position += len(line) + 1
                if position > self._taken and not self._take(line, position):
                    return
        if partial and position + len(partial) > self._taken:
            self._take(partial, position + len(partial))

    def _take(self, line: str, position: int) -> bool:
        """Write a line; False if that was the last one."""
        self._taken = position
        if line.strip():
            self._write(shown_text(line.rstrip("\r")))
        if position < self._max_characters:
            return True
        self._write(f"[the rest of the output is on Ray's dashboard, job {self.submission_id}]")
        return False
