"""What Ray lost a task to, by its public exceptions and their fields."""

from __future__ import annotations

import re

from ray.exceptions import (
    ActorDiedError,
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    WorkerCrashedError,
)

from airflow_provider_rayworkflow.workflow.model.causes import Cause


def cause_of(exc: BaseException) -> Cause:
    """Why an attempt was lost that Ray, or this process, reports with that error."""
    match exc:
        case OutOfMemoryError() | MemoryError():
            return Cause.OUT_OF_MEMORY
        case NodeDiedError() | LocalRayletDiedError():
            return Cause.NODE_LOST
        case RayActorError(preempted=True):
            return Cause.NODE_LOST
        case WorkerCrashedError() | ActorDiedError():
            return Cause.CRASHED
    return Cause.SYSTEM


_NODE_MEMORY = re.compile(r"Memory on the node [^\n]*? was (\S+) used / (\S+) limit")
_TASK_MEMORY = re.compile(r"task name=([^,\n]*),[^\n]*?actual memory used=([\d.]+GB)")


def memory_text(exc: BaseException, ray_name: str) -> str:
    """What Ray says of the memory that was used when it killed a worker, as one line; else ``""``.

    Ray has that in its message only.

    :param ray_name: of the Ray task.
    """
    if not isinstance(exc, OutOfMemoryError):
        return ""
    text = str(exc)
    node = _NODE_MEMORY.search(text)
    used = [amount for name, amount in _TASK_MEMORY.findall(text) if name == ray_name]
    parts = [f"the task used {used[0]}"] if len(used) == 1 else []
    parts += [f"its node {node[1]} of {node[2]}"] if node else []
    return f"Killed for memory: {', '.join(parts)}.\n" if parts else ""
