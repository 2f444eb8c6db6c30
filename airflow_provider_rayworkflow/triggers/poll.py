"""One look at a storage for all who wait in this process.

Every trigger of a triggerer runs on one event loop. Those of one connection share a poll: however
many wait, and however much is stored, a round costs a listing of the change logs, a read of each
manager's log and lease, and one request for each workflow that changed (:class:`.StatusWatch`). Storage is
asked in a thread, so that the loop never waits for it.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self
from weakref import WeakKeyDictionary

from airflow_provider_rayworkflow.exceptions import RayWorkflowStorageError
from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.tries.workflow_log import WorkflowLog
from airflow_provider_rayworkflow.workflow.exceptions import StorageError, WorkflowError
from airflow_provider_rayworkflow.workflow.model.progress import progress_line
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline.finished import FinishedTasks
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.keys import StatusKey, quote_id
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader
from airflow_provider_rayworkflow.workflow.storage.status_watch import StatusWatch


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How a workflow stands, as far as the name of its status document tells.

    :ivar status: the honest one; NONE if nothing is stored.
    :ivar key: what is written; None if nothing is.
    :ivar finished: those tasks that were asked for and have a committed result.
    :ivar progress: how far it is, in words, where that was asked for and has just been read.
    """

    status: WorkflowStatus
    key: StatusKey | None = None
    finished: frozenset[str] = frozenset()
    progress: str = ""


class Watch:
    """One waiter for one workflow. A context manager: inside, the poll looks for it.

    :param interval_s: how long at most to wait between two looks.
    :param task_id: of the workflow, to know whether it has finished. That costs each look a listing
        of the workflow's own.
    :param progress_s: how often at most to read how far it is, None for never: of all who wait, a look
        reads two.
    :param log: has what is new of the workflow's log read now and then: of all who wait, a look at the
        storage reads two logs. The waiter shows it.
    """

    def __init__(
        self,
        ray_workflow_conn_id: str,
        workflow_id: str,
        *,
        interval_s: float,
        task_id: str | None = None,
        progress_s: float | None = None,
        log: WorkflowLog | None = None,
    ) -> None:
        self.workflow_id = workflow_id
        self.segment = quote_id(workflow_id)
        self.interval_s = interval_s
        self.task_id = task_id
        self.log = log
        self.progress_s = progress_s
        self._conn_id = ray_workflow_conn_id
        self._poll: _Poll | None = None

    def __enter__(self) -> Self:
        polls = _POLLS.setdefault(asyncio.get_running_loop(), {})
        self._poll = polls.setdefault(self._conn_id, _Poll(self._conn_id))
        self._poll.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._poll is not None and self._poll.remove(self):
            del _POLLS[asyncio.get_running_loop()][self._conn_id]
        self._poll = None

    async def next(self) -> Standing:
        """How the workflow stands at the next look.

        :raises RayWorkflowStorageError: when the storage or the connection could not be read.
        """
        if self._poll is None:
            raise RuntimeError("Enter the watch first.")
        standings = await self._poll.next()
        if isinstance(standings, Exception):  # one for all who wait: each raises its own
            raise RayWorkflowStorageError(str(standings)) from standings
        found = standings.get(self.segment, Standing(status=WorkflowStatus.NONE))
        if isinstance(found, Exception):
            raise RayWorkflowStorageError(str(found)) from found
        return found


_Standings = dict[str, Standing | Exception]
_Answer = _Standings | Exception


class _Poll:
    """Looks at one connection's storage while it has watches."""

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._watches: set[Watch] = set()
        self._waiting: list[asyncio.Future[_Answer]] = []
        self._changed = asyncio.Event()
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ray-workflow-poll")
        self._task: asyncio.Task[None] | None = None
        self._statuses: StatusWatch | None = None
        self._is_connected = False
        self._tasks: dict[str, FinishedTasks] = {}
        self._progress_at: dict[str, float] = {}

    def add(self, watch: Watch) -> None:
        self._watches.add(watch)
        self._changed.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def remove(self, watch: Watch) -> bool:
        """True if that was the last one."""
        self._watches.discard(watch)
        if self._watches:
            return False
        if self._task is not None:
            self._task.cancel()
        self._threads.shutdown(wait=False)  # a storage that hangs must not hang the loop
        return True

    async def next(self) -> _Answer:
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        return await answer

    async def _run(self) -> None:
        while True:
            # A watch that asks while the storage is being read may have come too late for this look.
            begun, asked, self._waiting = time.monotonic(), self._waiting, []
            found = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._look, list(self._watches)
            )
            for start in range(0, len(asked), ANSWERS_A_TURN):
                for answer in asked[start : start + ANSWERS_A_TURN]:
                    if not answer.done():  # its trigger has been cancelled
                        answer.set_result(found)
                await asyncio.sleep(0)
            await self._pause(begun)

    async def _pause(self, begun: float) -> None:
        """Sleep until one interval has passed, of the one with the shortest."""
        while True:
            interval_s = min((watch.interval_s for watch in self._watches), default=0.0)
            left_s = begun + interval_s - time.monotonic()
            if left_s <= 0:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                return

    def _look(self, watches: list[Watch]) -> _Answer:
        try:
            statuses = self._connected()
            found = statuses.look({watch.segment for watch in watches})
            standings: _Standings = {
                segment: standing
                if isinstance(standing, StorageError)
                else Standing(status=standing[0], key=standing[1])
                for segment, standing in found.items()
            }
            store = statuses.store
            self._look_at_tasks(store, watches, standings)
            self._look_at_progress(store, watches, standings)
            self._look_at_logs(store, watches, standings)
        except Exception as exc:  # the waiters judge it
            self._is_connected = False  # the connection may be corrected meanwhile
            return exc
        return standings

    def _connected(self) -> StatusWatch:
        """What is known of the statuses stays known while the storage is the same."""
        known = self._statuses
        if known is not None and self._is_connected:
            return known
        hook = RayWorkflowHook(self._conn_id)
        store = hook.store
        reader = StatusReader(store, patient=True)
        if known is not None and _is_same(known.store, store) and not hook.settings.storage_conn_id:
            known.use(reader)
        else:
            known = StatusWatch(reader)
        self._statuses, self._is_connected = known, True
        return known

    def _look_at_tasks(
        self, store: WorkflowStore, watches: list[Watch], standings: _Standings
    ) -> None:
        with_task = [watch for watch in watches if watch.task_id and watch.segment in standings]
        asked = {watch.workflow_id for watch in with_task}
        self._tasks = {
            workflow_id: self._tasks.get(workflow_id) or FinishedTasks(store, workflow_id)
            for workflow_id in asked
        }
        for watch in with_task:
            standing = standings[watch.segment]
            if isinstance(standing, Exception) or standing.key is None:
                continue
            tasks, task_id, key = self._tasks[watch.workflow_id], watch.task_id, standing.key
            try:
                if task_id and tasks.has(task_id, epoch=key.epoch, status=key.status):
                    finished = standing.finished | {task_id}
                    standings[watch.segment] = replace(standing, finished=finished)
            except WorkflowError as exc:  # of this workflow: the others go on
                standings[watch.segment] = exc

    def _look_at_logs(
        self, store: WorkflowStore, watches: list[Watch], standings: _Standings
    ) -> None:
        due = [
            watch.log
            for watch in watches
            if watch.log is not None
            and watch.log.is_due
            and isinstance(standing := standings.get(watch.segment), Standing)
            and standing.status is WorkflowStatus.RUNNING
        ]
        for log in sorted(due, key=lambda log: log.looked_at)[:_LOG_READS]:
            log.look(store, most_lines=_LOG_LINES)

    def _look_at_progress(
        self, store: WorkflowStore, watches: list[Watch], standings: _Standings
    ) -> None:
        now = time.monotonic()
        running = {
            watch.segment: watch.progress_s
            for watch in watches
            if watch.progress_s is not None
            and isinstance(standing := standings.get(watch.segment), Standing)
            and standing.status is WorkflowStatus.RUNNING
        }
        self._progress_at = {segment: self._progress_at.get(segment, now) for segment in running}
        due = [
            segment
            for segment, progress_s in running.items()
            if now - self._progress_at[segment] >= progress_s
        ]
        for segment in sorted(due, key=self._progress_at.__getitem__)[:_PROGRESS_READS]:
            self._progress_at[segment] = now
            standing = standings[segment]
            if isinstance(standing, Standing) and standing.key is not None:
                # A look at the tasks matters less than the status, and must not cost it.
                with suppress(StorageError):
                    line = progress_line(store.read_status_at(standing.key))
                    standings[segment] = replace(standing, progress=line)


#: How many are answered at once. Each takes the loop up to 0.2 ms, and Airflow complains of 200 ms.
ANSWERS_A_TURN = 100

_PROGRESS_READS = 2
_LOG_READS = 2
# Shown by a trigger in one turn of the loop.
_LOG_LINES = 500


def _is_same(one: WorkflowStore, other: WorkflowStore) -> bool:
    """True if both are the same storage, and believe the same documents."""
    return one.bytes.uri == other.bytes.uri and one.signing == other.signing


_POLLS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Poll]] = WeakKeyDictionary()
