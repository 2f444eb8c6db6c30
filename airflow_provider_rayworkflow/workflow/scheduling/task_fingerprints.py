"""Fingerprints of what a task's result is made of: arguments, results that it takes, code. Pure."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from airflow_provider_rayworkflow.workflow.model.fingerprints import (
    combine,
    of_arguments,
    of_input,
    of_scalar,
    of_text,
)
from airflow_provider_rayworkflow.workflow.model.graph import Shape, Task
from airflow_provider_rayworkflow.workflow.model.records import Fingerprints, Result


class TaskInput(NamedTuple):
    """A task as its dependents see it.

    :ivar recipe: the fingerprint of its arguments and of those of all tasks upstream.
    :ivar identity: of its result, ``""`` if that is not known yet.
    :ivar code: of a task that keeps no checkpoint: it counts for its dependents.
    :ivar is_suspect: its result may differ from that of the run before.
    :ivar is_lost: its result is, or one that this refers to.
    :ivar refers_to_lost: its result is there, and refers to one that is lost.
    :ivar order: where the record of its result stands among all, -1 without one.
    :ivar is_open: its result may differ also from what it was earlier in the same run or graph,
        because how tasks upstream end decides about it.
    """

    recipe: str
    result: Result | None = None
    identity: str = ""
    code: str = ""
    keeps: bool = True
    is_suspect: bool = False
    is_open: bool = False
    is_lost: bool = False
    refers_to_lost: bool = False
    order: int = -1


def made_of(task: Task, task_id: str, literals: str, inputs: Sequence[TaskInput]) -> Fingerprints:
    """What goes into a task's result.

    :param literals: of its arguments, see :func:`literals_of`.
    :param inputs: the tasks upstream, in the order of ``task.upstream``.
    """
    # Code of the tasks upstream that keep no checkpoint: they count as parts of this one.
    code = [other.code for other in inputs if not other.keeps]
    return Fingerprints(
        literals=literals,
        recipe=combine(literals, of_text(task_id), *[other.recipe for other in inputs]),
        taken=combine(*[other.identity for other in inputs]),
        code=combine(task.code, *code) if code else task.code,
    )


def literals_of(task: Task) -> str:
    """The fingerprint of a task's arguments, apart from the results that it takes."""
    if isinstance(task.arguments, int):
        return task.literals
    if not task.arguments:
        return _of_shape(task.shape, len(task.upstream))
    scalars = [of_scalar(value) for value in task.arguments]
    inputs = [of_input(position) for position in range(len(task.upstream))]
    return of_arguments(*task.shape.fill(scalars, inputs))


@functools.lru_cache(maxsize=1_000)
def _of_shape(shape: Shape, inputs: int) -> str:
    return of_arguments(*shape.fill([], [of_input(position) for position in range(inputs)]))


def derived_identity(fingerprints: Fingerprints) -> str:
    """What stands for the result of a task that keeps no checkpoint: what that is made of."""
    return combine(fingerprints.literals, fingerprints.taken)
