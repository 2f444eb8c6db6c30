"""The attempts of one run that are under way, and the tasks that wait for their next attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from airflow_provider_rayworkflow.workflow.execution.heartbeats import Heartbeats
from airflow_provider_rayworkflow.workflow.execution.limit_keeper import Permit, counts_by_limit
from airflow_provider_rayworkflow.workflow.execution.stop_notices import StopNotices
from airflow_provider_rayworkflow.workflow.model.records import (
    SHOWN_TASKS,
    FailedAttempt,
    Progress,
    RunningTask,
)
from airflow_provider_rayworkflow.workflow.scheduling.attempts import (
    Accept,
    AttemptEnd,
    Errand,
    Runner,
    TaskRun,
)
from airflow_provider_rayworkflow.workflow.scheduling.node import TaskNode


class Attempt(Errand):
    """A task that is under way.

    :ivar follows: it runs after another one in the same Ray task, whose result may not be
        committed when this one has ended.
    :ivar running: set when a worker has begun it.
    :ivar is_useless: its result is of no use any more.
    :ivar is_put_off: it was stopped and begins anew, unless it had its result already.
    :ivar is_overdue: it was stopped because its time was over.
    :ivar begun_at: when a worker has begun it, by the clock of the event loop; None until it says so.
    :ivar is_silent: that of its silence.
    :ivar permit: of the limits of its task; None where it has none.
    """

    __slots__ = (
        "_table",
        "begun_at",
        "follows",
        "is_overdue",
        "is_put_off",
        "is_silent",
        "is_useless",
        "killer",
        "node",
        "permit",
        "running",
    )

    def __init__(self, table: AttemptTable, node: TaskNode, run: TaskRun, *, follows: bool) -> None:
        self.run = run
        self._table = table
        self.node = node
        self.follows = follows
        self.running: RunningTask | None = None
        self.is_useless = False
        self.is_put_off = False
        self.is_overdue = False
        self.is_silent = False
        self.killer: asyncio.TimerHandle | None = None
        self.begun_at: float | None = None
        self.permit: Permit | None = None

    @property
    def ran_s(self) -> float:
        """How long it is known to have run, in seconds: workers report after a second only."""
        if self.begun_at is None:
            return 0.0
        return asyncio.get_running_loop().time() - self.begun_at

    def on_done(self, completion: AttemptEnd) -> None:
        table = self._table
        if self.permit is not None:  # here: also of a run that has broken off
            self.permit.ended(completion)
        if not table.ended:  # many come at once: one turn for all
            table.enqueue(table.take_back)
        table.ended.append((self, completion))

    def follow(self, accept: Accept) -> Errand | None:
        return self._table.follow(self, accept)


class StartWait(Protocol):
    """What a task waits for that is to be started later: a timer, or a permit."""

    def cancel(self) -> None:
        """Let it wait no more."""

    def when(self) -> float:
        """When it is due, by the clock of the event loop; 0 where that is not known."""


class AttemptTable:
    """Knows each attempt of one run from its start to its end, and each task that waits for its next one.

    :param runner: runs the attempts.
    :param take_back: called between two steps of the run, once for all attempts that have ended.
    :param follow: see :meth:`.Errand.follow`.
    :param enqueue: calls a function between two steps of the run.
    :param clock: seconds since the epoch.
    :ivar ended: the attempts that have ended since ``take_back`` was called last, and how.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        take_back: Callable[[], None],
        follow: Callable[[Attempt, Accept], Errand | None],
        enqueue: Callable[[Callable[[], None]], None],
        clock: Callable[[], float],
    ) -> None:
        self.take_back = take_back
        self.follow = follow
        self.enqueue = enqueue
        self.ended: list[tuple[Attempt, AttemptEnd]] = []
        self._runner = runner
        self._notices = StopNotices(runner)
        self._heartbeats = Heartbeats(self._kill_silent)
        self._clock = clock
        self._attempts: dict[TaskNode, Attempt] = {}
        self._waits: dict[TaskNode, StartWait] = {}
        self._due: dict[str, float] = {}
        self._retried: dict[str, FailedAttempt] = {}

    @property
    def is_empty(self) -> bool:
        """True if no attempt is under way and no task waits for its next one."""
        return not (self._attempts or self._waits)

    def progress(self, now: float) -> Progress:
        """What is done at this moment.

        :param now: seconds since the epoch.
        """
        attempts = self._attempts.values()
        running = sorted(
            (attempt.running for attempt in attempts if attempt.running is not None),
            key=lambda task: task.started_at,
        )
        return Progress(
            at=now,
            submitted=len(attempts),
            running_total=len(running),
            running=tuple(running[:SHOWN_TASKS]),
            retried=tuple(self._retried.values())[:SHOWN_TASKS],
            limited=counts_by_limit([one for one in self._waits.values() if type(one) is Permit]),
        )

    # ---- attempts

    def start(self, node: TaskNode, run: TaskRun, permit: Permit | None = None) -> None:
        """Start an attempt.

        :param permit: see :class:`Attempt`.
        """
        attempt = self.add(node, run, follows=False)
        attempt.permit = permit
        if permit is not None and run.is_event:
            permit.begun()  # it waits in no line of Ray
        self._runner.start(attempt)

    def add(self, node: TaskNode, run: TaskRun, *, follows: bool) -> Attempt:
        """An attempt that is under way from now on.

        :param follows: see :class:`Attempt`.
        """
        attempt = self._attempts[node] = Attempt(self, node, run, follows=follows)
        if run.is_event:
            attempt.running = RunningTask(
                task_id=run.task_id, attempt=run.attempt, started_at=self._clock()
            )
        return attempt

    def remove(self, attempt: Attempt) -> None:
        """The attempt has ended."""
        self._attempts.pop(attempt.node, None)
        if attempt.killer is not None:
            attempt.killer.cancel()
        self._notices.ended(attempt)
        self._heartbeats.ended(attempt)
        self._retried.pop(attempt.node.task_id, None)

    def has_begun(self, task: RunningTask) -> None:
        """A worker has begun an attempt."""
        for attempt in self._of(task.task_id, task.attempt):
            attempt.running = task
            if attempt.begun_at is None:
                attempt.begun_at = asyncio.get_running_loop().time()
            if attempt.permit is not None:
                attempt.permit.begun()

    def kill_overdue(self, task_id: str, attempt: int, after_s: float) -> None:
        """Stop an attempt that has not ended after that time: it can't be interrupted.

        :param after_s: in seconds.
        """
        for overdue in self._of(task_id, attempt):
            loop = asyncio.get_running_loop()
            overdue.killer = loop.call_later(after_s, self._kill, overdue)

    def beat(self, task_id: str, attempt: int) -> None:
        """An attempt has saved, printed, logged, or said that it is alive; it begins with a beat."""
        known = self._heartbeats.known(task_id, attempt)
        for alive in [known] if known else self._of(task_id, attempt):
            self._heartbeats.beat(alive)

    def _kill_silent(self, attempt: Attempt) -> None:
        attempt.is_silent = True
        self._kill(attempt)

    def _kill(self, overdue: Attempt) -> None:
        overdue.is_overdue = True
        self._runner.stop(overdue)

    def _of(self, task_id: str, attempt: int) -> list[Attempt]:
        under_way = self._attempts.values()
        return [
            one for one in under_way if (one.node.task_id, one.node.attempts) == (task_id, attempt)
        ]

    def stop_useless(self, node: TaskNode) -> None:
        """Stop the attempt of a task whose result is of no use any more."""
        if (attempt := self._attempts.get(node)) is not None:
            attempt.is_useless = True
            self._runner.stop(attempt)

    async def until_stop(self, task_id: str, attempt: int) -> None:
        """Return as soon as an attempt is to be stopped, has ended, or if it is unknown."""
        for listening in self._of(task_id, attempt):
            await asyncio.shield(self._notices.listen(listening))

    def stop_where(self, is_meant: Callable[[TaskNode], bool]) -> list[TaskNode]:
        """Stop the attempts of certain tasks, each one's end is still told; and let none of them wait.

        :returns: those that waited for their next attempt.
        """
        for node, attempt in list(self._attempts.items()):
            if is_meant(node):
                self._notices.stop(attempt)
        waiting = [node for node in self._waits if is_meant(node)]
        for node in waiting:
            self._waits.pop(node).cancel()
        return waiting

    def stop_all(self, *, at_once: bool = False) -> None:
        """Stop all attempts; each one's end is still told.

        :param at_once: also those that may go on for a while; see :class:`.StopNotices`.
        """
        for attempt in list(self._attempts.values()):
            self._notices.stop(attempt, at_once=at_once)

    def stop_waiting(self) -> None:
        """Stop what only waits, for an event or for its next attempt: it would take any time."""
        for attempt in list(self._attempts.values()):
            if attempt.run.is_event:
                attempt.is_put_off = True
                self._runner.stop(attempt)
        self._due |= {node.task_id: wait.when() for node, wait in self._waits.items()}
        self.cancel_waiting()

    def wait_left_s(self, node: TaskNode) -> float:
        """How long a task that :meth:`stop_waiting` has met has yet to wait for its next attempt."""
        due = self._due.get(node.task_id)
        return max(0.0, due - asyncio.get_running_loop().time()) if due else 0.0

    # ---- retries

    def note_retried(self, failed: FailedAttempt) -> None:
        """Show a failed attempt in the progress until the task's next one has ended."""
        self._retried[failed.task_id] = failed

    def forget_retried(self) -> None:
        """Show no failed attempts any more."""
        self._retried.clear()

    def wait(self, node: TaskNode, wait_s: float, retry: Callable[[], None]) -> None:
        """Let a task wait for its next attempt.

        :param wait_s: in seconds.
        :param retry: called then, unless :meth:`cancel_waiting` is called before.
        """

        def due() -> None:
            if self.has_waited(node):
                retry()

        loop = asyncio.get_running_loop()
        self.wait_for(node, loop.call_later(wait_s, self.enqueue, due))

    def wait_for(self, node: TaskNode, wait: StartWait) -> None:
        """Let a task wait, until :meth:`has_waited` or :meth:`cancel_waiting` is called."""
        self._waits[node] = wait

    def has_waited(self, node: TaskNode) -> bool:
        """Let a task wait no more; False if it does not wait, as it was stopped."""
        return self._waits.pop(node, None) is not None

    def cancel_waiting(self) -> None:
        """No task that waits is tried again."""
        waits, self._waits = self._waits, {}
        for wait in reversed(waits.values()):  # the first one last: no other one moves up
            wait.cancel()
