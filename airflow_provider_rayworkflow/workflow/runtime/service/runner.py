"""Ready tasks as Ray tasks, submitted by the manager, so that they outlive every driver."""

from __future__ import annotations

import asyncio
import pickle
import re
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import ray

from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.code_variables import with_code, without_base
from airflow_provider_rayworkflow.workflow.model.escalation import with_amounts
from airflow_provider_rayworkflow.workflow.model.log_line import TaskLines
from airflow_provider_rayworkflow.workflow.model.outcome import system_failure
from airflow_provider_rayworkflow.workflow.model.records import Result, TaskFailure
from airflow_provider_rayworkflow.workflow.runtime import private_ray
from airflow_provider_rayworkflow.workflow.runtime.graphs.environments import base_of_workers
from airflow_provider_rayworkflow.workflow.runtime.service.event_hosts import EventHosts, UsedHost
from airflow_provider_rayworkflow.workflow.runtime.service.infeasible import InfeasibleTasks
from airflow_provider_rayworkflow.workflow.runtime.service.loss_causes import cause_of, memory_text
from airflow_provider_rayworkflow.workflow.runtime.worker.packs import (
    HAND_BACK_S,
    Done,
    Packed,
    execute_pack,
    load_done,
    load_lines,
)
from airflow_provider_rayworkflow.workflow.scheduling.attempts import (
    AttemptEnd,
    Errand,
    Interrupted,
    Lost,
    NotBegun,
    TaskRun,
)
from airflow_provider_rayworkflow.workflow.scheduling.packing import PACKS_A_CPU, Durations, Packer

log = get_logger(__name__)

#: When nothing has come back for so long, nothing waits any longer to share a Ray task. All CPUs
#: should have work then, but only what is submitted makes a cluster grow.
_HOLD_S = 2.0
#: How long a task that is stopped may go on, for the sake of others in its Ray task.
_STOP_GRACE_S = 0.5
_CPUS_INTERVAL_S = 1.0
#: How long this process waits for its own end when Ray says that its node is dead. Ray ends a node's
#: processes within seconds, the manager's too, which another node or the next owner then takes over.
_OWN_END_S = 60.0


@dataclass(slots=True, eq=False)
class _Submitted:
    """One Ray task.

    :ivar open: those of its tasks that have no completion yet, by position.
    :ivar counts: it keeps a CPU busy for a short time only.
    """

    errands: Sequence[Errand]
    open: dict[int, Errand]
    counts: bool
    number: int = -1
    ref: Any = None
    host: UsedHost | None = None
    stopped: set[Errand] = field(default_factory=set)
    used_refs: bool = False


class RayRunner:
    """A :class:`Runner` on Ray.

    :param uri: of the storage, for the workers.
    :param sharing: False: every task gets a Ray task of its own.
    :param infeasible_after_s: see :class:`InfeasibleTasks`.
    :param on_lines: told what tasks have printed and logged, before it is told how they ended.
    """

    def __init__(
        self,
        uri: str,
        *,
        sharing: bool = True,
        infeasible_after_s: float = 0.0,
        on_lines: Callable[[Sequence[TaskLines]], None] = lambda lines: None,
    ) -> None:
        self._uri = uri
        self._sharing = sharing
        self._on_lines = on_lines
        self._base_code = base_of_workers()
        self._loop = asyncio.get_running_loop()
        self._execute = ray.remote(max_retries=0)(execute_pack)
        # A GPU is free for others only when its process has ended.
        self._execute_once = ray.remote(max_retries=0, max_calls=1)(execute_pack)
        self._event_hosts = EventHosts()
        self._completed: deque[tuple[_Submitted, Any]] = deque()
        self._is_woken = False
        self._durations = Durations()
        self._packer = Packer(self._durations)
        self._packs: dict[int, _Submitted] = {}
        self._pack_of: dict[Errand, _Submitted] = {}
        self._infeasible = InfeasibleTasks(
            lambda: list(self._pack_of), self._fail, after_s=infeasible_after_s
        )
        self._last_number = 0
        self._busy = 0
        self._cpus = 1.0
        self._cpus_asked_at = float("-inf")
        self._is_packing_due = False
        self._flush: asyncio.TimerHandle | None = None

    def start(self, errand: Errand) -> None:
        """Start a task, at once or when CPUs are free for it, perhaps in one Ray task with others.

        Its ``on_done`` is called once, later, in this loop; errors of Ray reach it as :class:`Lost`.
        """
        run = errand.run
        is_long = run.batch_size == 1 and self._durations.is_long(run.function)
        if is_long or not (self._sharing and run.can_share):
            self._submit([errand])
            return
        self._packer.add(errand)
        self._pack_soon()

    def stop(self, errand: Errand) -> None:
        """Stop a started task; one that has ended is left alone.

        ``on_done`` gets :class:`NotBegun` at once if it was not submitted yet, else how it ended, or
        :class:`Lost`. Others that share its Ray task get half a second to end, then begin again.
        """
        if self._packer.remove(errand):
            errand.on_done(NotBegun())
            return
        pack = self._pack_of.get(errand)
        if pack is None:
            return
        pack.stopped.add(errand)
        if len(pack.open) == 1:
            self._cancel(pack)
        else:
            self._loop.call_later(_STOP_GRACE_S, self._cancel, pack)

    def hand_back(self, number: int, done: Packed) -> None:
        """Take back the tasks that a slow Ray task has not begun; called when it takes over 50 ms.

        :param number: of the Ray task, as it was submitted; one that has ended is ignored.
        :param done: how its first tasks ended. It goes on with the next one, and begins no other.
        """
        pack = self._packs.get(number)
        if pack is None:
            return  # it has ended meanwhile
        self._on_lines(load_lines(done))
        self._deliver_done(pack, load_done(done))
        running, *others = pack.open
        for position in others:
            self._answer(pack, position, NotBegun())
        self._free(pack)
        function = pack.errands[running].run.function
        if self._durations.of(function) is None:
            self._durations.note(function, HAND_BACK_S)
            for errand in self._packer.take_long(function):
                self._submit([errand])
        if pack.open[running] in pack.stopped:
            self._cancel(pack)
        self._pack()

    # ---- packing

    def _pack_soon(self) -> None:
        # Once for all that gets ready in this turn of the loop.
        if not self._is_packing_due:
            self._is_packing_due = True
            self._loop.call_soon(self._pack)

    def _pack(self) -> None:
        self._is_packing_due = False
        if not self._packer:
            return
        self._ask_for_cpus()
        while self._packer and self._busy < self._limit:
            self._submit(self._packer.take(self._limit - self._busy))
        if self._packer and self._flush is None:
            self._flush = self._loop.call_later(_HOLD_S, self._submit_all)

    @property
    def _limit(self) -> int:
        return max(int(self._cpus), 1) * PACKS_A_CPU

    def _submit_all(self) -> None:
        self._flush = None
        while self._packer:
            self._submit(self._packer.take(self._limit))

    def _ask_for_cpus(self) -> None:
        if self._loop.time() - self._cpus_asked_at > _CPUS_INTERVAL_S:
            self._cpus_asked_at = self._loop.time()
            with suppress(RuntimeError):  # there is no thread for it: it is as many as before
                asked = self._loop.run_in_executor(None, ray.cluster_resources)
                asked.add_done_callback(self._note_cpus)

    def _note_cpus(self, asked: asyncio.Future[dict[str, float]]) -> None:
        if asked.exception() is None:
            self._cpus = asked.result().get("CPU", 0.0)
            self._pack()

    # ---- submitting

    def _submit(self, errands: Sequence[Errand]) -> None:
        first = errands[0].run
        # A batch is not handed back: its tasks share however long they take.
        is_watched = first.batch_size == 1 and (
            len(errands) > 1
            or (self._sharing and first.can_share and self._durations.of(first.function) is None)
        )
        pack = _Submitted(errands, dict(enumerate(errands)), counts=False)
        for errand in errands:
            self._pack_of[errand] = pack
        if is_watched:
            self._last_number += 1
            pack.number = self._last_number
            self._packs[pack.number] = pack
        if self._sharing and first.can_share and not self._durations.is_long(first.function):
            pack.counts = True
            self._busy += 1
        self._send(pack)
        self._infeasible.watch()

    def _fail(self, errand: Errand, failure: TaskFailure) -> None:
        """No node can run the Ray task of that attempt: it ends, with all that it was to run."""
        if (pack := self._pack_of.get(errand)) is not None:
            self._cancel(pack)
            for position, other in list(pack.open.items()):
                its_own = replace(failure, task_id=other.run.task_id)
                self._answer(pack, position, Lost(failure=its_own, retryable=False))

    def _send(self, pack: _Submitted) -> None:
        run = pack.errands[0].run
        try:
            refs: list[Any] = []
            runs = [with_positions(errand.run, refs) for errand in pack.errands]
            pack.used_refs = bool(refs)
            payload = pickle.dumps((self._uri, pack.number, runs), protocol=5)
            options: dict[str, Any] = {"name": _ray_name(run)}
            if run.ray_options:
                options |= pickle.loads(run.ray_options)
            if run.asks:
                options = with_amounts(options, run.asks)
            if given := with_code(options.pop("runtime_env", None) or {}, dict(run.code)):
                options["runtime_env"] = without_base(given, self._base_code) or None
            once = options.pop("max_calls", None) or options.get("num_gpus")
            if run.is_event:
                pack.host = pack.host or self._event_hosts.take(options.get("runtime_env"))
                pack.ref = pack.host.actor.execute.remote(payload, *refs)
            else:
                function = self._execute_once if once else self._execute
                pack.ref = function.options(**options).remote(payload, *refs)
            private_ray.when_completed(pack.ref, lambda value: self._on_completed(pack, value))
        except Exception as exc:
            self._on_completed(pack, exc)

    def _cancel(self, pack: _Submitted) -> None:
        # Cancelling a task that has ended can abort the process that owns it, which is this one.
        if pack.open and pack.ref is not None:
            has_ended, _ = ray.wait([pack.ref], timeout=0, fetch_local=False)
            if not has_ended:
                ray.cancel(pack.ref, force=not pack.errands[0].run.is_event)

    # ---- what came back

    def _on_completed(self, pack: _Submitted, value: Any, *, is_late: bool = False) -> None:
        # On a thread of Ray, or in the loop where the Ray task could not be submitted. The loop is
        # woken once for all that have completed by then.
        if not is_late and says_that_node_is_dead(value, ray.get_runtime_context().get_node_id):
            log.warning("Ray says that the manager's own node is dead: its end is waited for")
            again = partial(self._on_completed, pack, value, is_late=True)
            self._loop.call_soon_threadsafe(self._loop.call_later, _OWN_END_S, again)
            return
        self._completed.append((pack, value))
        if not self._is_woken:
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._is_woken = False  # before looking: what comes now wakes the loop again
        while self._completed:
            pack, value = self._completed.popleft()
            if not isinstance(value, BaseException):
                self._on_lines(load_lines(value))
                self._deliver_done(pack, load_done(value))
                for position in list(pack.open):
                    self._answer(pack, position, NotBegun())
            elif _is_input_lost(value) and pack.used_refs and not pack.stopped:
                # Nothing did begin. Perhaps the storage has the value, or else the task says so.
                self._send_without_refs(pack)
                continue
            else:
                self._deliver_loss(pack, value)
            self._free(pack)
            if pack.host is not None:
                self._event_hosts.give_back(pack.host)
            self._packs.pop(pack.number, None)
        self._pack()

    def _deliver_done(self, pack: _Submitted, done: Sequence[Done]) -> None:
        measured: dict[bytes, list[float]] = {}
        for position, (completion, seconds) in enumerate(done):
            if position not in pack.open:
                continue
            if not isinstance(completion, NotBegun):
                function = pack.errands[position].run.function
                measured.setdefault(function, []).append(seconds)
            self._answer(pack, position, completion)
        for function, times in measured.items():
            self._durations.note(function, sum(times) / len(times))

    def _deliver_loss(self, pack: _Submitted, error: BaseException) -> None:
        is_shared = len(pack.open) > 1
        for position, errand in list(pack.open.items()):
            # Who of them was to blame can't be told, and most of them are not.
            if is_shared and errand not in pack.stopped:
                self._answer(pack, position, Interrupted())
            else:
                self._answer(pack, position, lost_to(error, errand.run))

    def _send_without_refs(self, pack: _Submitted) -> None:
        first, *others = pack.open
        for position in others:
            self._answer(pack, position, NotBegun())
        errand = pack.open[first]
        inputs = tuple(given._replace(ref=None) for given in errand.run.results)
        errand.run = errand.run._replace(inputs=inputs)
        pack.errands = [errand]
        self._send(pack)

    def _answer(self, pack: _Submitted, position: int, completion: AttemptEnd) -> None:
        errand = pack.open.pop(position)
        del self._pack_of[errand]
        errand.on_done(completion)

    def _free(self, pack: _Submitted) -> None:
        if pack.counts:
            pack.counts = False
            self._busy -= 1
            if self._flush is not None:
                self._flush.cancel()
                self._flush = None


def with_positions(run: TaskRun, refs: list[Any]) -> TaskRun:
    """The run as :func:`run_task` takes it, with positions in ``refs`` in the place of references.

    :param refs: gets its references appended.
    """
    if all([type(given) is not Result or given.ref is None for given in run.inputs]):
        return run
    inputs: list[Any] = []
    for given in run.inputs:
        if isinstance(given, Result) and given.ref is not None:
            refs.append(given.ref)
            given = given._replace(ref=len(refs) - 1)
        inputs.append(given)
    return run._replace(inputs=tuple(inputs))


def says_that_node_is_dead(value: object, node_id: Callable[[], str]) -> bool:
    """True if a Ray task was lost with a node, whose id Ray has in its message only.

    What a dying manager would say of its tasks is not true of its workflows, which go on elsewhere.

    :param node_id: asked for errors of this kind only.
    """
    return isinstance(value, ray.exceptions.NodeDiedError) and node_id() in str(value)


def _is_input_lost(error: BaseException) -> bool:
    # The user's own errors come back as data: this one comes from Ray, loading the arguments.
    return isinstance(getattr(error, "cause", error), ray.exceptions.ObjectLostError)


def lost_to(exc: BaseException, run: TaskRun) -> Lost:
    """The end of an attempt that a system error kept from running to its own."""
    remedy = _missing_package(exc) or memory_text(exc, _ray_name(run))
    failure = system_failure(exc, task_id=run.task_id, remedy=remedy, cause=cause_of(exc))
    # The cluster itself may give up what no node can run.
    return Lost(
        failure=failure, retryable=not isinstance(exc, ray.exceptions.TaskUnschedulableError)
    )


def _ray_name(run: TaskRun) -> str:
    # Not a name of its own for each task: Ray keeps metrics of every name for good, in this
    # process and in the workers. What tells tasks apart in the logs is `log_capture`.
    return run.name or run.task_id


def _missing_package(exc: BaseException) -> str:
    """What to do where Ray has dropped what was uploaded for the task, else ``""``."""
    package = re.search(r"gcs://[\w.-]+", str(exc))
    if package is None or not isinstance(exc, ray.exceptions.RuntimeEnvSetupError):
        return ""
    return (
        f"The folder that was uploaded for the task's runtime_env as {package[0]} is not on this cluster "
        "any more. Resume with the same folder in the runtime_env of ray.init, "
        "or run() the graph again under the workflow's id: completed tasks stay.\n"
    )
