"""What a try of a task instance does with the workflow that it finds. Pure."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Literal

from airflow_provider_rayworkflow.tries.identity import Origin
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

#: What a person's clear of a task instance does.
OnClear = Literal["auto", "resume", "restart"]

#: What becomes of the workflow when a person ends the task instance that waits for it.
OnKill = Literal["suspend", "cancel", "leave"]

#: Where a task instance keeps its :class:`Memory` in Airflow's task state store.
MEMORY_KEY = "ray_workflow"


class Action(Enum):
    """What a try does with the workflow of its id."""

    #: Nothing is stored: run it.
    RUN = "run"
    #: It is active: wait for it.
    ATTACH = "attach"
    #: It failed or was interrupted: go on from what it has committed.
    RESUME = "resume"
    #: It has ended for good: take its output, or its end.
    TAKE = "take"
    #: Drop what is stored and run it from the start.
    START_OVER = "start over"

    @property
    def submits(self) -> bool:
        """True if this needs the workflow's graph and Ray."""
        return self in (Action.RUN, Action.RESUME, Action.START_OVER)

    @property
    def goes_on(self) -> bool:
        """True if this goes on with what an earlier try has begun."""
        return self in (Action.ATTACH, Action.RESUME, Action.TAKE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """What a task instance remembers over its tries, in Airflow's task state store.

    Airflow keeps it over retries and clears and drops it with the DAG run.

    :ivar life: a random name, in the metadata of the workflows that this task instance starts.
    :ivar since_try: the try that wrote this first; more than 1 if an earlier memory was lost.
    :ivar went_on_at: ``max_tries`` of the last try that went on with a workflow: the clear that
        led to it has been dealt with.
    :ivar restarted_at: ``max_tries`` of the last try that restarted the workflow from a task: its
        retries go on.
    """

    life: str
    since_try: int
    went_on_at: int = -1
    restarted_at: int = -1

    def due_restart(self, from_task: str, *, max_tries: int) -> str:
        """The task to restart from; ``""`` for none, and if that was done since the last clear."""
        return "" if self.restarted_at == max_tries else from_task

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any, *, try_number: int) -> Memory:
        """The stored memory, or a new one where nothing is stored."""
        match value:
            case {
                "life": str(life),
                "since_try": int(since),
                "went_on_at": int(went_on_at),
                "restarted_at": int(restarted_at),
            }:
                return cls(
                    life=life, since_try=since, went_on_at=went_on_at, restarted_at=restarted_at
                )
        return cls(life=uuid.uuid4().hex, since_try=try_number)


@dataclass(frozen=True, kw_only=True, slots=True)
class TryDecision:
    """What a try does, and why, for the log.

    :ivar from_task: the task to restart the workflow from, ``""`` for none.
    """

    action: Action
    reason: str
    from_task: str = ""


def decide(
    *,
    status: WorkflowStatus,
    found: Origin | None,
    mine: Origin,
    memory: Memory,
    retries: int,
    on_clear: OnClear,
    from_task: str = "",
) -> TryDecision:
    """Decide what a try does.

    A retry goes on. A person's clear follows ``on_clear``; ``"auto"`` starts over what was
    successful and goes on with anything else. A task to restart from goes before that.

    :param status: the honest status of what is stored under the id, NONE for nothing.
    :param found: who started it, None if no task instance did.
    :param mine: this task instance.
    :param retries: of the task.
    :param from_task: the task that is due to be restarted from, ``""`` for none.
    """
    if status is WorkflowStatus.NONE:
        return TryDecision(action=Action.RUN, reason="nothing is stored under its id")
    if found is None or found.key != mine.key:
        cleared = mine.max_tries != retries
        started_by = "something else that uses its id started it"
    else:
        is_first_life = memory.since_try == 1
        if found.run_after != mine.run_after or (found.life != mine.life and is_first_life):
            return _start_over("it is of a deleted DAG run with the same run id")
        if mine.key.map_index >= 0 and _differ(found.inputs, mine.inputs):
            return _start_over("it is of another item of the mapped task")
        cleared = found.max_tries != mine.max_tries or found.life != mine.life
        started_by = "an earlier try of this task instance started it"
    if from_task and status.can_be_restarted:
        return _restart(from_task)
    if not cleared or memory.went_on_at == mine.max_tries:
        return go_on(status, started_by)
    if on_clear == "restart":
        return _start_over('the task instance was cleared and has on_clear="restart"')
    if on_clear == "auto" and status is WorkflowStatus.SUCCESSFUL:
        return _start_over("it was successful and the task instance was cleared")
    reason = f'the task instance was cleared and has on_clear="{on_clear}"'
    if status is WorkflowStatus.SUCCESSFUL:
        # Its output is what comes of that, unless its graph has changed.
        return TryDecision(action=Action.RESUME, reason=reason)
    return go_on(status, reason)


def go_on(status: WorkflowStatus, reason: str, *, from_task: str = "") -> TryDecision:
    """Attach to what is active, resume what can be resumed, take what has ended for good.

    :param from_task: the task that is due to be restarted from, ``""`` for none.
    """
    if from_task and status.can_be_restarted:
        return _restart(from_task)
    if status.is_active:
        return TryDecision(action=Action.ATTACH, reason=reason)
    return TryDecision(
        action=Action.RESUME if status.can_be_resumed else Action.TAKE, reason=reason
    )


def _differ(one: str, other: str) -> bool:
    """True if two fingerprints are known to be of different items."""
    return bool(one and other) and one != other


def _restart(from_task: str) -> TryDecision:
    reason = f"it is restarted from its task {from_task}"
    return TryDecision(action=Action.RESUME, reason=reason, from_task=from_task)


def _start_over(reason: str) -> TryDecision:
    return TryDecision(action=Action.START_OVER, reason=reason)
