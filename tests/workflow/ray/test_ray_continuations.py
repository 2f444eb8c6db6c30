"""Tasks that return a graph: its output becomes theirs."""

import warnings
from pathlib import Path

import pytest
import ray
from managers import manager_pid

from airflow_provider_rayworkflow import workflow


@ray.remote
def add(a, b=1):
    return a + b


@ray.remote
def continue_with_add(a, b):
    return workflow.continuation(add.bind(add.bind(a, b), 10))


@ray.remote
def return_a_node(a, b):
    return add.bind(a, b)


@ray.remote
def factorial(number, product=1):
    if number == 1:
        return product
    return workflow.continuation(factorial.bind(number - 1, product * number))


@ray.remote
def fibonacci(number):
    if number < 2:
        return number
    return workflow.continuation(add.bind(fibonacci.bind(number - 1), fibonacci.bind(number - 2)))


@ray.remote
def nested(depth):
    if not depth:
        return "bottom"
    return workflow.continuation(nested.bind(depth - 1))


def execute_plainly(dag):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray calls its DAG API deprecated
        return ray.get(dag.execute())


@pytest.mark.parametrize(
    ("dag", "expected"),
    [
        (continue_with_add.bind(1, 2), 13),
        (add.bind(continue_with_add.bind(1, 2), continue_with_add.bind(3, 4)), 30),
        (factorial.bind(3), 6),
        (fibonacci.bind(3), 2),
        (nested.bind(2), "bottom"),
    ],
    ids=["once", "as arguments", "tail recursion", "tree recursion", "nested"],
)
def test_the_same_graph_gives_the_same_value_by_plain_ray(manager, dag, expected):
    assert workflow.run(dag) == expected
    assert execute_plainly(dag) == expected


def test_a_tree_of_continuations_gives_the_value_of_the_recursion(manager):
    assert workflow.run(fibonacci.bind(8)) == 21


def test_a_bare_node_that_a_task_returns_is_a_continuation(manager):
    assert workflow.run(return_a_node.bind(1, 2)) == 3
    assert workflow.run(add.bind(return_a_node.bind(1, 2), return_a_node.bind(3, 4))) == 10


def test_outside_of_a_workflow_a_continuation_is_its_value(manager):
    assert workflow.continuation(add.bind(add.bind(1, 2), 3)) == 6


def test_outside_of_a_workflow_containers_keep_their_references(manager):
    @ray.remote
    def read(refs):
        return [ray.get(ref) for ref in refs]

    assert workflow.continuation(read.bind([add.bind(1), add.bind(2)])) == [2, 3]


def test_outside_of_a_workflow_a_shared_node_runs_once(manager, ledger):
    @ray.remote
    def note():
        ledger.write()
        return 1

    shared = note.bind()
    assert workflow.continuation(add.bind(add.bind(shared, shared), shared)) == 3
    assert ledger.count() == 1


@pytest.mark.parametrize("wrong", [1, None, "text", [1]])
def test_only_a_graph_can_be_a_continuation(manager, wrong):
    with pytest.raises(TypeError, match=r"Input should be a DAG\."):
        workflow.continuation(wrong)

    @ray.remote
    def task():
        return workflow.continuation(wrong)

    with pytest.raises(workflow.WorkflowExecutionError, match=r"Input should be a DAG\."):
        workflow.run(task.bind())


def test_a_reference_can_be_no_continuation(manager):
    with pytest.raises(TypeError, match=r"Input should be a DAG\."):
        workflow.continuation(ray.put(1))


def test_a_hundred_continuations_in_a_row(manager, new_id):
    assert workflow.run(nested.bind(100), workflow_id=new_id) == "bottom"
    assert workflow.get_output(new_id) == "bottom"
    assert workflow.resume(new_id) == "bottom"


@pytest.mark.slow
def test_a_long_tail_recursion_does_not_grow_the_manager(fresh_manager):
    @ray.remote
    def count(number, end):
        if number == end:
            return number
        return workflow.continuation(count.bind(number + 1, end))

    def resident_mb():
        status = Path(f"/proc/{manager_pid(root)}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    root = fresh_manager()
    assert workflow.run(count.bind(0, 300)) == 300
    before = resident_mb()
    assert workflow.run(count.bind(0, 800), workflow_id="long") == 800
    assert resident_mb() - before < 5
    assert workflow.resume("long") == 800


def test_every_task_of_a_chain_of_continuations_has_the_final_value(manager, new_id):
    workflow.run(factorial.bind(5), workflow_id=new_id)
    name = "test_ray_continuations.factorial"
    ids = [name, *(f"{name}_{depth}" for depth in range(1, 5))]
    assert [workflow.get_output(new_id, task_id=task_id) for task_id in ids] == [120] * 5
    with pytest.raises(ValueError, match="factorial_5"):
        workflow.get_output(new_id, task_id=f"{name}_5")


def test_a_continuation_may_use_names_that_are_taken(manager, new_id):
    named = workflow.options(task_id="name")

    @ray.remote
    def again(value):
        return workflow.continuation(add.options(**named).bind(add.options(**named).bind(value)))

    dag = again.options(**named).bind(add.options(**named).bind(1))
    assert workflow.run(dag, workflow_id=new_id) == 4
    ids = ["name", "name_1", "name_2", "name_3"]
    assert [workflow.get_output(new_id, task_id=i) for i in ids] == [2, 4, 3, 4]


def test_values_of_a_continuation_arrive_resolved(manager):
    @ray.remote
    def look(value, refs):
        return value, [isinstance(ref, ray.ObjectRef) for ref in refs], ray.get(refs)

    dag = look.bind(continue_with_add.bind(1, 2), [factorial.bind(2), fibonacci.bind(2)])
    assert workflow.run(dag) == (13, [True, True], [2, 1])
    assert execute_plainly(dag) == (13, [True, True], [2, 1])


def test_a_reference_that_a_continuation_returns_stays_a_reference(manager):
    @ray.remote
    def put(value):
        return [ray.put(value)]

    @ray.remote
    def continue_with_put(value):
        return workflow.continuation(put.bind(value))

    @ray.remote
    def read(value):
        return ray.get(value[0])

    assert workflow.run(read.bind(continue_with_put.bind(4))) == 4
    assert ray.get(workflow.run(continue_with_put.bind(5))[0]) == 5


def test_a_resume_goes_on_inside_of_a_continuation(manager, new_id, ledger, gate):
    @ray.remote
    def note(value):
        ledger.write(value)
        return value

    @ray.remote
    def fail_at_first(value):
        if not gate.is_open:
            raise ValueError("not yet")
        return value

    @ray.remote
    def start(value):
        ledger.write("start")
        return workflow.continuation(fail_at_first.bind(note.bind(value)))

    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(note.bind(start.bind("inside")), workflow_id=new_id)
    gate.open()
    assert workflow.resume(new_id) == "inside"
    assert ledger.lines() == ["start", "inside", "inside"]


def test_names_go_on_counting_after_a_resume(manager, new_id, gate):
    @ray.remote
    def count(number):
        if number == 2 and not gate.is_open:
            raise ValueError("not yet")
        if number == 4:
            return "end"
        step = count.options(**workflow.options(task_id="step"))
        return workflow.continuation(step.bind(number + 1))

    dag = count.options(**workflow.options(task_id="step")).bind(0)
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(dag, workflow_id=new_id)
    gate.open()
    assert workflow.resume(new_id) == "end"
    ids = ["step", "step_1", "step_2", "step_3", "step_4"]
    assert [workflow.get_output(new_id, task_id=i) for i in ids] == ["end"] * 5
