"""Who is running: readable inside a workflow task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_current: ContextVar[WorkflowContext | None] = ContextVar("workflow_context", default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowContext:
    """The task that is running, for idempotency keys and fencing tokens.

    :ivar attempt: 1 for the first attempt in this epoch.
    :ivar epoch: rises with each start, resume and recovery of the workflow.
    """

    workflow_id: str
    task_id: str
    attempt: int
    epoch: int


def get_context() -> WorkflowContext:
    """The context of the running workflow task.

    :raises RuntimeError: outside a workflow task.
    """
    context = _current.get()
    if context is None:
        raise RuntimeError("get_context() was called outside a workflow task.")
    return context


def get_current_workflow_id() -> str:
    """The id of the running workflow; see :func:`get_context`."""
    return get_context().workflow_id


def in_task() -> bool:
    """True inside a workflow task."""
    return _current.get() is not None


def enter(context: WorkflowContext) -> None:
    """Make this the current context for good: in a :class:`contextvars.Context` of its own."""
    _current.set(context)


@contextmanager
def running(context: WorkflowContext) -> Iterator[None]:
    """Make this the current context."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)
