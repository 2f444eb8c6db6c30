"""Bad input is refused at the call, with what is wrong and what to do; nothing is stored."""

import pytest
import ray
from ray.dag import InputNode, MultiOutputNode

from airflow_provider_rayworkflow import workflow


@ray.remote
def task(a=0, b=0, *, c=0):
    return a + b + c


@ray.remote(num_cpus=0)
class Counter:
    def next(self):
        return 1


@pytest.fixture
def nothing_stored(manager, new_id):
    yield new_id
    with pytest.raises(workflow.WorkflowNotFoundError):
        workflow.get_status(new_id)


@pytest.mark.parametrize(
    "wrong",
    [1, None, "text", task, task._function, [task.bind()]],
    ids=lambda value: type(value).__name__,
)
def test_only_graphs_can_run(nothing_stored, wrong):
    with pytest.raises(TypeError, match=r"Input should be a DAG\."):
        workflow.run(wrong, workflow_id=nothing_stored)
    with pytest.raises(TypeError, match=r"Input should be a DAG\."):
        workflow.run_async(wrong, workflow_id=nothing_stored)


def test_a_reference_is_no_graph(nothing_stored):
    with pytest.raises(TypeError, match=r"Input should be a DAG\."):
        workflow.run(ray.put(1), workflow_id=nothing_stored)


@pytest.mark.filterwarnings("ignore")
def test_an_actor_class_is_no_workflow(nothing_stored):
    message = "Currently workflow does not support classes as DAG inputs"
    for dag in (Counter.bind(), Counter.bind().next.bind()):
        with pytest.raises(TypeError, match=message):
            workflow.run(dag, workflow_id=nothing_stored)


@pytest.mark.filterwarnings("ignore")
def test_actors_inside_of_a_graph_are_refused(nothing_stored):
    live = Counter.remote()
    for node in (Counter.bind().next.bind(), live.next.bind(), Counter.bind()):
        for argument in (node, [node]):
            with pytest.raises(TypeError, match="Unsupported DAG node"):
                workflow.run(task.bind(argument), workflow_id=nothing_stored)


@pytest.mark.filterwarnings("ignore")
def test_other_nodes_of_ray_are_refused(nothing_stored):
    for dag in (MultiOutputNode([task.bind()]), InputNode()):
        with pytest.raises(TypeError, match="Unsupported DAG node"):
            workflow.run(dag, workflow_id=nothing_stored)
    with pytest.raises(TypeError, match="Unsupported DAG node"):
        workflow.run(task.bind(MultiOutputNode([task.bind()])), workflow_id=nothing_stored)


@pytest.mark.parametrize("wrong", [1, b"id", ["id"], 1.5])
@pytest.mark.parametrize(
    "call",
    [
        lambda wrong: workflow.run(task.bind(), workflow_id=wrong),
        workflow.resume,
        workflow.resume_async,
        workflow.get_output,
        workflow.get_output_async,
        workflow.get_status,
        workflow.get_metadata,
        workflow.cancel,
        workflow.suspend,
        workflow.delete,
    ],
    ids=lambda call: getattr(call, "__name__", None),
)
def test_an_id_is_a_string(manager, call, wrong):
    with pytest.raises(TypeError, match="workflow_id has to be a string type"):
        call(wrong)


@pytest.mark.parametrize(
    "wrong", ["", "..", "../up", "a/../b", "a/./b", "new\nline", "nul\0", "x" * 256, "a\\..\\b"]
)
def test_an_id_that_is_no_name_is_refused(manager, wrong):
    with pytest.raises(ValueError, match="workflow id"):
        workflow.run(task.bind(), workflow_id=wrong)


@pytest.mark.parametrize(
    "wrong", ["text", 1, [("a", 1)], {"a": {1, 2}}, {"a": object()}, {"a": float("nan")}]
)
def test_metadata_is_a_json_object(nothing_stored, wrong):
    with pytest.raises(ValueError, match="metadata must be"):
        workflow.run(task.bind(), workflow_id=nothing_stored, metadata=wrong)
    with pytest.raises(ValueError, match="metadata must be"):
        workflow.options(metadata=wrong)


@pytest.mark.parametrize("num_returns", [2, 3])
def test_a_task_has_one_return(nothing_stored, num_returns):
    dag = task.options(num_returns=num_returns).bind()
    with pytest.raises(ValueError, match=r"Workflow task can only have one return\."):
        workflow.run(dag, workflow_id=nothing_stored)


@pytest.mark.parametrize("num_returns", [None, "dynamic", "streaming"])
@pytest.mark.filterwarnings("ignore")
def test_a_generator_is_refused(nothing_stored, num_returns):
    @ray.remote(num_returns=num_returns)
    def generate():
        yield 1

    with pytest.raises(ValueError, match=r"Workflow task can only have one return\."):
        workflow.run(generate.bind(), workflow_id=nothing_stored)


@pytest.mark.invariant(9)
def test_arguments_have_to_fit_the_signature(nothing_stored):
    @ray.remote
    def needs(a, b, *, c):
        return a, b, c

    for args, kwargs in [
        ((1,), {"c": 3}),
        ((1, 2, 3), {"c": 3}),
        ((1, 2), {}),
        ((1, 2), {"c": 3, "d": 4}),
    ]:
        with pytest.raises(TypeError):
            workflow.run(needs.bind(*args, **kwargs), workflow_id=nothing_stored)


def test_all_ways_to_fit_the_signature_are_taken(manager):
    @ray.remote
    def needs(a, b=2, *rest, c, d=4, **more):
        return [a, b, *rest, c, d, more]

    assert workflow.run(needs.bind(1, c=3)) == [1, 2, 3, 4, {}]
    assert workflow.run(needs.bind(1, 5, 6, c=3)) == [1, 5, 6, 3, 4, {}]
    assert workflow.run(needs.bind(a=1, b=9, c=3, e=5)) == [1, 9, 3, 4, {"e": 5}]
    assert workflow.run(needs.bind(needs.bind(0, c=0), c=needs.bind(1, c=1))) == [
        [0, 2, 0, 4, {}],
        2,
        [1, 2, 1, 4, {}],
        4,
        {},
    ]


def test_a_wrong_call_deep_in_the_graph_is_found_before_anything_runs(nothing_stored, ledger):
    @ray.remote
    def note():
        ledger.write()

    with pytest.raises(TypeError):
        workflow.run(task.bind(note.bind(), task.bind(1, 2, 3)), workflow_id=nothing_stored)
    assert ledger.count() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unknown": 1}, "Invalid option keywords"),
        ({"num_cpus": 1}, "Invalid option keywords"),
        ({"task_id": ""}, "task_id must be"),
        ({"task_id": 5}, "task_id must be"),
        ({"checkpoint": "yes"}, "checkpoint must be"),
        ({"catch_exceptions": 1}, "catch_exceptions must be"),
        ({"timeout_s": -1}, "timeout_s must be"),
        ({"timeout_s": "5"}, "timeout_s must be"),
        ({"retry": 3}, "retry must be"),
    ],
    ids=str,
)
def test_options_are_checked_where_they_are_written(options, message):
    with pytest.raises(ValueError, match=message):
        workflow.options(**options)


@pytest.mark.parametrize(
    "wrong", [lambda: 1, 5, Counter, None], ids=["function", "number", "actor", "None"]
)
def test_options_decorate_remote_functions_only(wrong):
    with pytest.raises(ValueError, match=r"Only apply 'workflow\.options' to Ray remote functions"):
        workflow.options(task_id="a")(wrong)


def test_on_existing_is_one_of_three(nothing_stored):
    with pytest.raises(ValueError, match="on_existing must be"):
        workflow.run(task.bind(), workflow_id=nothing_stored, on_existing="replace")


def test_a_function_that_cannot_be_pickled_is_refused(nothing_stored):
    import threading

    lock = threading.Lock()

    @ray.remote
    def hold():
        return lock.locked()

    with pytest.raises(TypeError, match="can't be pickled"):
        workflow.run(hold.bind(), workflow_id=nothing_stored)


@pytest.mark.invariant(9)
def test_an_argument_that_cannot_be_pickled_is_refused(nothing_stored):
    import threading

    with pytest.raises(TypeError, match="pickle"):
        workflow.run(task.bind(threading.Lock()), workflow_id=nothing_stored)


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"max_running_workflows": 0}, ValueError),
        ({"max_running_workflows": -2}, ValueError),
        ({"max_running_workflows": 1.7}, TypeError),
        ({"max_running_workflows": "3"}, TypeError),
        ({"max_running_workflows": True}, TypeError),
        ({"max_pending_workflows": -2}, ValueError),
        ({"max_pending_workflows": 1.7}, TypeError),
    ],
    ids=str,
)
def test_limits_are_checked(limits, error):
    with pytest.raises(error):
        workflow.init(**limits)


def test_init_takes_no_positional_arguments():
    with pytest.raises(TypeError):
        workflow.init(3)


@pytest.mark.parametrize("wrong", ["NOPE", "", workflow.NONE, "NONE", {"RUNNING", "NOPE"}])
def test_list_all_of_no_status_is_refused(manager, wrong):
    with pytest.raises(ValueError, match="is not a status"):
        workflow.list_all(wrong)


@pytest.mark.parametrize("wrong", [["RUNNING"], ("RUNNING",), 5, {5}, {"RUNNING", None}])
def test_list_all_takes_a_status_or_a_set(manager, wrong):
    with pytest.raises(TypeError, match="status_filter must be"):
        workflow.list_all(wrong)


def test_wait_for_event_takes_a_listener(manager):
    for wrong in (5, str, None, workflow.EventListener()):
        with pytest.raises(TypeError, match="EventListener"):
            workflow.wait_for_event(wrong)


@pytest.mark.parametrize("wrong", [-1, "5", None, float("nan"), 10**400])
def test_sleep_takes_a_time(wrong):
    with pytest.raises(ValueError, match=r"duration (must be|is too long)"):
        workflow.sleep(wrong)
