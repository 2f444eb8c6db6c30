"""Graphs: the ids of their tasks, what their tasks get as arguments, and how large they may be."""

import random
import warnings

import numpy as np
import pytest
import ray
from ray.dag import InputNode

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import encode_graph


@ray.remote
def add(a, b=0):
    return a + b


@ray.remote
def double(value):
    return 2 * value


@ray.remote
def pass_on(value):
    return value


@ray.remote
def get_all(refs):
    return ray.get(refs)


@ray.remote
def is_ref(value):
    return isinstance(value, ray.ObjectRef)


@ray.remote
def note(ledger, value=None):
    ledger.write()
    return value


@ray.remote(num_cpus=0.5)
def total(*values):
    return sum(values)


def execute_plainly(dag, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray calls its DAG API deprecated
        return ray.get(dag.execute(*args, **kwargs))


def both(dag, *args, **kwargs):
    """The graph's value as a workflow and by plain Ray: they have to be equal."""
    value = workflow.run(dag, *args, **kwargs)
    assert value == execute_plainly(dag, *args, **kwargs)
    return value


# ---- task ids


def test_a_task_is_called_after_its_module_and_function(manager, new_id):
    @ray.remote
    def nested():
        return "value"

    workflow.run(nested.bind(), workflow_id=new_id)
    name = "test_ray_graphs.test_a_task_is_called_after_its_module_and_function.locals.nested"
    assert workflow.get_output(new_id, task_id=name) == "value"
    workflow.run(double.bind(1), workflow_id=f"{new_id}-2")
    assert workflow.get_output(f"{new_id}-2", task_id="test_ray_graphs.double") == 2


def test_a_lambda_and_a_name_in_unicode_get_plain_names(manager, new_id):
    nameless = ray.remote(lambda: 1)
    workflow.run(nameless.bind(), workflow_id=new_id)
    test = "test_ray_graphs.test_a_lambda_and_a_name_in_unicode_get_plain_names"
    assert workflow.get_output(new_id, task_id=f"{test}.locals.lambda") == 1

    @ray.remote
    def größe():
        return 2

    workflow.run(größe.bind(), workflow_id=f"{new_id}-2")
    assert workflow.get_output(f"{new_id}-2", task_id=f"{test}.locals.groe") == 2


def test_tasks_with_the_same_id_are_numbered_inputs_first(manager, new_id):
    simple = add.options(**workflow.options(task_id="simple"))
    dag = simple.bind(0)
    for _ in range(19):
        dag = simple.bind(dag, 1)
    assert workflow.run(dag, workflow_id=new_id) == 19
    ids = ["simple", *(f"simple_{number}" for number in range(1, 20))]
    assert [workflow.get_output(new_id, task_id=task_id) for task_id in ids] == list(range(20))


def test_a_numbered_id_never_takes_the_place_of_one_that_the_author_gave(manager, new_id):
    plain = pass_on.options(**workflow.options(task_id="f"))
    given = pass_on.options(**workflow.options(task_id="f_1"))
    for position, order in enumerate([(given, plain, plain), (plain, plain, given)]):
        dag = get_all.bind([step.bind(number) for number, step in enumerate(order)])
        assert workflow.run(dag, workflow_id=f"{new_id}-{position}") == [0, 1, 2]
        at = order.index(given)
        assert workflow.get_output(f"{new_id}-{position}", task_id="f_1") == at


# ---- one node, several users


def test_a_node_that_is_used_several_times_runs_once_a_workflow(manager, ledger):
    source = note.bind(ledger, 3)
    dag = total.bind(source, source, double.bind(source), total.bind(source, source))
    assert workflow.run(dag) == 3 + 3 + 6 + 6
    assert ledger.count() == 1
    assert workflow.run(dag) == 18
    assert ledger.count() == 2


# ---- inputs


def test_an_input_is_taken_by_position_by_attribute_and_by_keyword(manager):
    with InputNode() as given:
        dag = get_all.bind(
            [pass_on.bind(given[0]), pass_on.bind(given[1]), pass_on.bind(given.key)]
        )
    assert both(dag, "first", "second", key="keyword") == ["first", "second", "keyword"]


def test_a_bare_input_is_the_only_positional_argument(manager):
    with InputNode() as given:
        dag = add.bind(given, 1)
    assert both(dag, 41) == 42


def test_items_and_attributes_of_the_only_argument_can_be_taken(manager):
    with InputNode() as given:
        dag = add.bind(given["a"], given["b"])
    assert both(dag, {"a": 1, "b": 2}) == 3
    with InputNode() as given:
        dag = pass_on.bind(given.real)
    assert both(dag, 5) == 5


def test_an_input_inside_a_container_arrives_as_its_value(manager):
    with InputNode() as given:
        dag = pass_on.bind({"list": [given[0], given.key]})
    assert workflow.run(dag, 1, key=2) == {"list": [1, 2]}


def test_the_inputs_are_kept_with_the_workflow(manager, new_id, gate):
    @ray.remote
    def fail_at_first(value):
        if not gate.is_open:
            raise ValueError("not yet")
        return value

    with InputNode() as given:
        dag = fail_at_first.bind(given.key)
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(dag, key="kept", workflow_id=new_id)
    gate.open()
    assert workflow.resume(new_id) == "kept"


def test_an_input_that_was_not_given_is_an_error_before_anything_is_stored(manager, new_id):
    with InputNode() as given:
        dag = add.bind(given[0], given.missing)
    with pytest.raises(KeyError, match="missing"):
        workflow.run(dag, 1, 2, workflow_id=new_id)
    with pytest.raises(workflow.WorkflowNotFoundError):
        workflow.get_status(new_id)


def test_arguments_count_as_they_are_when_the_workflow_is_run(manager):
    values = [1]
    dag = total.bind(1, pass_on.bind(2))
    listed = pass_on.bind(values)
    values.append(2)
    assert workflow.run(listed) == [1, 2]
    assert workflow.run(dag) == 3


# ---- references


def test_a_reference_as_an_argument_arrives_as_its_value(manager):
    ref = ray.put(20)
    assert both(add.bind(ref, ref)) == 40
    assert both(is_ref.bind(ref)) is False


def test_a_reference_in_a_container_stays_a_reference(manager):
    refs = [ray.put(number) for number in range(3)]
    assert both(get_all.bind(refs)) == [0, 1, 2]

    @ray.remote
    def look(container):
        return {key: isinstance(value, ray.ObjectRef) for key, value in container.items()}

    assert both(look.bind({"a": refs[0], "b": 1})) == {"a": True, "b": False}


def test_one_reference_serves_several_workflows_and_as_an_input(manager):
    ref = ray.put(21)
    with InputNode() as given:
        dag = add.bind(given.x, ref)
    assert both(dag, x=ref) == 42
    assert both(double.bind(ref)) == 42


def test_one_reference_that_is_used_many_times_stays_one_object(manager):
    ref = ray.put(np.zeros(1000))

    @ray.remote
    def count(refs):
        return len(set(refs)), float(sum(ray.get(ref).sum() for ref in refs))

    assert workflow.run(count.bind([ref] * 20)) == (1, 0.0)


def test_a_bound_object_outlives_the_drivers_own_reference(manager, new_id, gate):
    @ray.remote
    def read(refs):
        gate.wait()
        return ray.get(refs[0])

    ref = ray.put("value")
    started = workflow.run_async(read.bind([ref]), workflow_id=new_id)
    del ref
    gate.open()
    assert ray.get(started) == "value"


def test_a_node_as_an_argument_is_its_value_and_in_a_container_a_finished_reference(manager):
    node = add.bind(1, 2)
    assert both(is_ref.bind(node)) is False

    @ray.remote
    def look(container):
        refs = [container["list"][0], container["tuple"][0], container["deep"]["er"][0]]
        ready, _ = ray.wait(list(set(refs)), num_returns=2, timeout=5)
        return len(ready), ray.get(refs)

    container = {"list": [node], "tuple": (node,), "deep": {"er": [double.bind(node)]}}
    assert both(look.bind(container)) == (2, [3, 3, 6])


def test_nodes_in_keyword_arguments_arrive_as_values(manager):
    assert both(add.bind(a=add.bind(1, 2), b=double.bind(4))) == 11


def test_a_returned_reference_stays_a_reference_one_level_down(manager, new_id):
    @ray.remote
    def make_ref():
        return ray.put("inside")

    @ray.remote
    def open_it(value):
        return isinstance(value, ray.ObjectRef), ray.get(value)

    assert both(open_it.bind(make_ref.bind())) == (True, "inside")
    assert ray.get(workflow.run(make_ref.bind(), workflow_id=new_id)) == "inside"
    assert ray.get(workflow.get_output(new_id)) == "inside"
    assert ray.get(ray.get(workflow.get_output_async(new_id))) == "inside"


@pytest.mark.parametrize("size", [3, 100_000])  # inline, and held by the worker
def test_a_node_in_a_container_that_returned_a_reference_is_a_reference_to_it(manager, size):
    @ray.remote
    def make_ref():
        return ray.put(np.ones(size))

    @ray.remote
    def open_them(direct, container):
        (outer,) = container
        inner = ray.get(outer)
        return isinstance(inner, ray.ObjectRef), float(ray.get([direct, inner])[1].sum())

    made = make_ref.bind()
    assert both(open_them.bind(made, [made])) == (True, size)


def test_a_reference_to_a_reference_may_be_an_input(manager):
    @ray.remote
    def make_ref():
        return ray.put("inside")

    @ray.remote
    def open_it(container):
        return ray.get(ray.get(container[0]))

    assert both(open_it.bind([make_ref.remote()])) == "inside"


def test_returned_containers_keep_their_references(manager):
    @ray.remote
    def make():
        return {"refs": [ray.put(1), ray.put(2)]}

    @ray.remote
    def read(made):
        return ray.get(made["refs"])

    assert both(read.bind(make.bind())) == [1, 2]


def test_an_actor_handle_can_be_an_argument(manager):
    @ray.remote(num_cpus=0)
    class Counter:
        def __init__(self):
            self.count = 0

        def next(self):
            self.count += 1
            return self.count

    @ray.remote
    def use(counter):
        return ray.get(counter.next.remote())

    counter = Counter.remote()
    assert workflow.run(total.bind(use.bind(counter), use.bind(counter))) == 3


# ---- many and large


def layered(layers, width, *, seed):
    chance = random.Random(seed)
    row = [total.bind(number) for number in range(width)]
    for _ in range(layers):
        row = [total.bind(*chance.sample(row, 3)) for _ in range(width)]
    return total.bind(*row)


def tangled(size, *, seed):
    chance = random.Random(seed)
    nodes = [total.bind(1), total.bind(2)]
    for _ in range(size):
        nodes.append(total.bind(*chance.choices(nodes, k=chance.randint(1, 4))))
    return nodes[-1]


def chain(length):
    dag = total.bind(0)
    for _ in range(length):
        dag = total.bind(dag, 1)
    return dag


def factorial(number):
    @ray.remote(num_cpus=0.5)
    def step(number, product):
        if number == 1:
            return product
        return workflow.continuation(step.bind(number - 1, product * number))

    return step.bind(number, 1)


def test_forty_workflows_at_once_give_what_plain_ray_gives(manager, new_id):
    dags = [
        *(layered(5, 5, seed=seed) for seed in range(10)),
        *(tangled(20, seed=seed) for seed in range(10)),
        *(chain(seed) for seed in range(1, 11)),
    ]
    recursive = [factorial(number) for number in range(1, 11)]
    refs = [
        workflow.run_async(dag, workflow_id=f"{new_id}.{number}")
        for number, dag in enumerate([*dags, *recursive])
    ]
    expected = [execute_plainly(dag) for dag in dags]
    factorials = [1, 2, 6, 24, 120, 720, 5040, 40320, 362880, 3628800]
    assert ray.get(refs) == [*expected, *factorials]
    assert all(
        workflow.get_status(f"{new_id}.{number}") is workflow.SUCCESSFUL for number in range(40)
    )


@pytest.mark.slow
@pytest.mark.timeout(600)  # half a minute when alone; Ray's workers are nice, and others are not
def test_a_chain_of_two_thousand_tasks_runs(manager):
    assert workflow.run(chain(2_000)) == 2_000


def test_a_graph_whose_tasks_use_the_two_before_is_no_tree():
    before, last = total.bind(1), total.bind(1)
    for _ in range(2_000):
        before, last = last, total.bind(before, last)
    # As a tree it has 10**400 nodes, for which no time limit would do.
    assert len(encode_graph(last).tasks) == 2_002


def test_an_unrolled_loop_gives_the_value_of_the_loop(manager):
    before, last = total.bind(1), total.bind(1)
    for _ in range(30):
        before, last = last, total.bind(before, last)
    assert workflow.run(last) == 2_178_309


def test_a_large_value_goes_from_task_to_task(manager, new_id):
    @ray.remote
    def make():
        return np.arange(2**24, dtype=np.int64)  # 128 MB

    @ray.remote
    def mean(values):
        return float(values.mean())

    assert workflow.run(mean.bind(make.bind()), workflow_id=new_id) == (2**24 - 1) / 2


def test_a_large_output_is_loaded_from_the_storage(manager, new_id):
    @ray.remote
    def make():
        return np.arange(2**20, dtype=np.int64)

    returned = workflow.run(make.bind(), workflow_id=new_id)
    stored = workflow.get_output(new_id)
    assert np.array_equal(returned, stored)
    assert stored.dtype == np.int64
    assert len(stored) == 2**20


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_dataset_goes_from_task_to_task(manager, new_id):
    @ray.remote
    def make():
        return ray.data.range(100, override_num_blocks=2).materialize()

    @ray.remote
    def transform(dataset):
        return dataset.map(lambda row: {"id": row["id"] * 2}).materialize()

    @ray.remote
    def total(dataset):
        return dataset.sum("id")

    assert workflow.run(total.bind(transform.bind(make.bind())), workflow_id=new_id) == 9900
    name = "test_ray_graphs.test_a_dataset_goes_from_task_to_task.locals.transform"
    assert workflow.get_output(new_id, task_id=name).count() == 100


def test_many_values_for_one_task_arrive_in_their_order(manager):
    assert workflow.run(get_all.bind([pass_on.bind(number) for number in range(200)])) == list(
        range(200)
    )
