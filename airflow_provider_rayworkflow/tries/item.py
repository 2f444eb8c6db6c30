"""Which item of a mapped task, or of a mapped task group, a task instance is for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions._internal.expandinput import MappedArgument
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.definitions.xcom_arg import XComArg

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

Json = dict[str, Any]


def item_of(operator: BaseOperator, given: Json, context: Context) -> Json | None:
    """What tells the operator's item from the others of its mapping; None if it is not mapped.

    That is what ``expand`` gave it, as it stands in the DAG file. Constant arguments, rendered
    templates and outputs of tasks that are passed on are inputs, which may change between tries.

    :param given: the arguments with which the operator was made, not rendered.
    """
    has_dag = operator.has_dag()  # type: ignore[no-untyped-call] # Airflow's
    mapped = operator.dag.task_dict.get(operator.task_id) if has_dag else None
    if isinstance(mapped, MappedOperator):
        return {name: given[name] for name in sorted(_expanded_names(mapped, given))}
    of_group = list(_mapped_arguments(given))
    if not of_group:
        return None
    return {str(index): argument.resolve(context) for index, argument in enumerate(of_group)}


def fingerprint_of_item(item: Any) -> str:
    """The same for the same item in every process; ``""`` if that can't be told."""
    from airflow_provider_rayworkflow.workflow.model import fingerprints

    found, _ = fingerprints.of_value(item, replace=_reference)
    return found


def _expanded_names(mapped: MappedOperator, given: Json) -> set[str]:
    partial: Mapping[str, Any] = mapped.partial_kwargs
    expand_input = mapped.expand_input
    if hasattr(mapped, "op_kwargs_expand_input"):  # TaskFlow: the arguments of the function
        partial = partial.get("op_kwargs") or {}
        expand_input = mapped.op_kwargs_expand_input
    if isinstance(expand_input.value, Mapping):  # of expand()
        return given.keys() & expand_input.value.keys()
    defaults = mapped.dag.default_args if mapped.dag else {}
    # Of expand_kwargs() the names are known for each item only.
    return {
        name
        for name, value in given.items()
        if name not in partial and not (name in defaults and defaults[name] is value)
    }


def _mapped_arguments(value: Any) -> Iterator[MappedArgument]:
    if isinstance(value, MappedArgument):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _mapped_arguments(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _mapped_arguments(part)


def _reference(value: Any) -> Any:
    """What counts of an output that is passed on: whose it is."""
    if isinstance(value, XComArg):
        return [(operator.task_id, key) for operator, key in value.iter_references()]
    return NotImplemented
