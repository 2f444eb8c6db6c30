"""``@task.ray_workflow``: a TaskFlow function whose body returns a workflow's graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.bases.decorator import (
    DecoratedOperator,
    KeywordParameters,
    TaskDecorator,
    task_decorator_factory,
)
from airflow.sdk.execution_time.lazy_sequence import LazyXComSequence
from airflow.sdk.serde import serialize

from airflow_provider_rayworkflow.exceptions import RayWorkflowInputError
from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator
from airflow_provider_rayworkflow.tries.definition import WorkflowDefinition
from airflow_provider_rayworkflow.tries.item import fingerprint_of_item, item_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_rayworkflow.hooks import RayWorkflowHook

Json = dict[str, Any]


def ray_workflow_task(
    python_callable: Callable[..., Any] | None = None,
    multiple_outputs: bool | None = None,
    **kwargs: Any,
) -> TaskDecorator:
    """Run the graph that a function returns as a durable Ray workflow.

    .. code-block:: python

        @workflow.task
        def square(x: int) -> int:
            return x * x

        @workflow.task
        def total(numbers: list[int]) -> int:
            return sum(numbers)

        @task.ray_workflow(retries=2, deferrable=True)
        def squares(n: int):
            return total([square(i) for i in range(n)])

    The function is called in the task process, at each try that starts or resumes the workflow. What
    it uses of its DAG file goes with the graph by value; what it imports from elsewhere must be
    importable where Ray runs (see ``runtime_env``). Both sides need the same minor version of
    Python. What the DAG file imports at its top is imported whenever it is parsed: ``@workflow.task``
    imports no Ray; a body that uses ``@ray.remote`` imports it inside.

    Its arguments are values that Airflow can keep in XCom, and parts of Airflow's context by their
    names (``ds``, ``params`` …), as for any TaskFlow function.

    :param python_callable: the function.
    :param multiple_outputs: put each key of the output, a dict then, in an XCom of its own.
    :param kwargs: of :class:`RayWorkflowRunOperator`, but for ``workflow`` and
        ``arguments``.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=_RayWorkflowDecoratedOperator,
        **kwargs,
    )


class _RayWorkflowDecoratedOperator(DecoratedOperator, RayWorkflowRunOperator):
    custom_operator_name = "@task.ray_workflow"
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *(name for name in RayWorkflowRunOperator.template_fields if name != "arguments"),
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **RayWorkflowRunOperator.template_fields_renderers,
    }
    shallow_copy_attrs: Sequence[str] = ("python_callable", "workflow")

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        for name in ("workflow", "arguments"):
            if name in kwargs:
                raise RayWorkflowInputError(
                    f"@task.ray_workflow has no {name!r}: the workflow is the decorated function, "
                    "its arguments are what that is called with in the DAG file."
                )
        # Not rendered. What is mapped has no positional arguments.
        self._call = {**({"": list(op_args)} if op_args else {}), **(op_kwargs or {})}
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            kwargs_to_upstream={"workflow": python_callable},
            **kwargs,
        )

    def _define(self, context: Context, hook: RayWorkflowHook) -> WorkflowDefinition:
        args, given = _fetched(list(self.op_args)), _fetched(dict(self.op_kwargs))
        known: Mapping[str, Any] = {**context, **given}
        kwargs = KeywordParameters.determine(self.python_callable, args, known).unpacking()
        _check_arguments(args, given)
        definition = WorkflowDefinition.of_call(self.python_callable, args, kwargs)
        # What the context adds is of the task instance, and not an input of its own.
        item = item_of(self, self._call, context)
        inputs = [definition.name, args, given] if item is None else item
        return replace(definition, inputs=fingerprint_of_item(inputs))


def _fetched(value: Any) -> Any:
    """The value, with lists for what mapped tasks returned: those would need Airflow on Ray."""
    if isinstance(value, LazyXComSequence):
        return list(value)
    if isinstance(value, dict):
        return {name: _fetched(item) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_fetched(item) for item in value)
    return value


def _check_arguments(args: list[Any], kwargs: Json) -> None:
    try:
        serialize(args), serialize(kwargs)
    except Exception as exc:  # the value's own serializer may raise anything
        raise RayWorkflowInputError(
            f"The arguments of a @task.ray_workflow must be what Airflow can keep in XCom: {exc}"
        ) from exc
