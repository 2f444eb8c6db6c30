"""``@task.ray_workflow``: a TaskFlow function is a workflow; its arguments are those of TaskFlow."""

import datetime
import types

import pytest
from airflow.sdk import DAG, task
from dag_test import connection

from airflow_provider_rayworkflow.decorators import ray_workflow_task
from airflow_provider_rayworkflow.exceptions import RayWorkflowInputError
from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator
from airflow_provider_rayworkflow.tries.definition import WorkflowDefinition

HOOK = RayWorkflowHook()


def grow(n, by=1, *, ds=None):
    """Grow a number."""
    import ray

    @ray.remote
    def grown():
        return n + by, ds

    return grown.bind()


def defined(*args: object, context: dict | None = None, **kwargs: object) -> WorkflowDefinition:
    with DAG("d", schedule=None):
        operator = ray_workflow_task(grow)(*args, **kwargs).operator
    return operator._define(context or {}, HOOK)


def test_it_is_a_run_operator_with_all_of_its_arguments():
    with DAG("d", schedule=None, default_args={"on_clear": "resume", "poll_interval_s": 7}):
        operator = task.ray_workflow(deferrable=True, retries=2)(grow)(1).operator
    assert isinstance(operator, RayWorkflowRunOperator)
    assert (operator.task_id, operator.operator_name) == ("grow", "@task.ray_workflow")
    assert (operator.on_clear, operator.poll_interval_s) == ("resume", 7)
    assert (operator.deferrable, operator.retries) == (True, 2)
    assert operator.doc_md == "Grow a number."


def test_the_arguments_of_the_call_are_templated():
    with DAG("d", schedule=None):
        operator = task.ray_workflow(grow)("{{ ds }}", by="{{ run_id }}").operator
    operator.render_template_fields({"ds": "2026-11-25", "run_id": "r"})
    assert (operator.op_args, operator.op_kwargs) == (("2026-11-25",), {"by": "r"})


def test_the_context_comes_by_its_names():
    definition = defined(1, context={"ds": "2026-11-25", "run_id": "r"})
    assert definition.function.keywords == {"ds": "2026-11-25"}


def test_a_given_argument_counts_more_than_the_context():
    definition = defined(1, ds="mine", context={"ds": "2026-11-25"})
    assert definition.function.keywords == {"ds": "mine"}


def test_the_fingerprint_is_of_what_is_given_and_not_of_the_context():
    one = defined(1, context={"ds": "2026-11-25"})
    assert defined(1, context={"ds": "2026-11-26"}).fingerprint == one.fingerprint
    assert defined(2).fingerprint != one.fingerprint
    assert defined(1, by=2).fingerprint != one.fingerprint


def test_arguments_can_be_all_values_that_airflow_keeps_in_xcom():
    day = datetime.date(2026, 11, 25)
    assert defined(day).function.args == (day,)
    assert defined(day).fingerprint != defined(datetime.date(2026, 11, 26)).fingerprint
    with pytest.raises(RayWorkflowInputError, match="what Airflow can keep in XCom: Cannot serial"):
        defined(object())


def test_outputs_of_mapped_tasks_come_as_a_list():
    """Airflow's own sequence would need Airflow where Ray runs."""
    from airflow.sdk.execution_time.lazy_sequence import LazyXComSequence

    class Outputs(LazyXComSequence):
        def __init__(self) -> None:
            pass

        def __iter__(self):
            return iter([1, 2])

        def __len__(self) -> int:
            return 2

    definition = defined({"outputs": [Outputs()]})
    assert definition.function.args == ({"outputs": [[1, 2]]},)
    by_path = WorkflowDefinition.load("m:f", {"outputs": Outputs()}, is_remote=True)
    assert by_path.arguments == {"outputs": [1, 2]}


def test_a_call_that_does_not_fit_is_refused_when_the_dag_is_parsed():
    with DAG("d", schedule=None), pytest.raises(TypeError, match="missing a required argument: 'n"):
        ray_workflow_task(grow)()


@pytest.mark.parametrize("name", ["workflow", "arguments"])
def test_a_parameter_of_the_function_can_not_be_given_again(name: str):
    with (
        DAG("d", schedule=None),
        pytest.raises(RayWorkflowInputError, match=f"@task.ray_workflow has no '{name}'"),
    ):
        ray_workflow_task(grow, **{name: {}})(1)


def test_it_may_be_mapped_and_each_item_has_inputs_of_its_own():
    with DAG("d", schedule=None):
        mapped = ray_workflow_task(grow).partial(by=2).expand(n=[1, 2]).operator
    items = [mapped.unmap({"op_kwargs": {"n": n}})._define({}, HOOK).fingerprint for n in (1, 2, 1)]
    assert items[0] == items[2]
    assert items[0] != items[1]


@pytest.mark.parametrize("multiple_outputs", [False, True])
def test_a_dry_run_gives_the_plan_of_the_call(multiple_outputs: bool, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT", connection(storage=str(tmp_path)))
    given = {"dry_run": True, "multiple_outputs": multiple_outputs}
    with DAG("d", schedule=None):
        plain = ray_workflow_task(grow, **given)(3, by=2).operator
        mapped = ray_workflow_task(grow, task_id="m", **given).partial(by=2).expand(n=[3, 4])
    for operator in (plain, mapped.operator.unmap({"op_kwargs": {"n": 3}})):
        plan = operator.execute(context_of(operator))
        assert [task["action"] for task in plan["tasks"]] == ["run"]
    assert list(tmp_path.iterdir()) == []


def context_of(operator) -> dict:
    ti = types.SimpleNamespace(
        dag_id="d", task_id=operator.task_id, run_id="r", map_index=0, try_number=1, max_tries=0
    )
    dag_run = types.SimpleNamespace(conf={}, run_after=datetime.datetime(2026, 11, 29))
    return {"ti": ti, "dag_run": dag_run, "task_state_store": {}, "ds": "2026-11-29"}
