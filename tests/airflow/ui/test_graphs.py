"""What is drawn of a graph: tasks, or groups where there are many."""

from airflow_provider_rayworkflow.plugin.graphs import MAX_NODES, MAX_SINGLE, draw, members
from airflow_provider_rayworkflow.plugin.tasks import TaskView


def view(task_id: str, *takes: str, name: str = "", state: str = "done", **more) -> TaskView:
    return TaskView(task_id=task_id, name=name or task_id, state=state, takes=takes, **more)


def loop(size: int) -> list[TaskView]:
    return [
        view("start"),
        *(view(f"square_{number}", "start", state="waiting") for number in range(size)),
        view("end", *(f"square_{number}" for number in range(size))),
    ]


def test_a_few_tasks_are_drawn_one_by_one():
    drawn = draw([view("a"), view("b", "a", state="failed", attempt=2)])
    assert drawn == {
        "nodes": [
            {
                "id": 0,
                "label": "a",
                "state": "done",
                "count": 1,
                "states": [["done", 1]],
                "task": "a",
                "attempt": 0,
                "started_at": None,
                "ended_at": None,
            },
            {
                "id": 1,
                "label": "b",
                "state": "failed",
                "count": 1,
                "states": [["failed", 1]],
                "task": "b",
                "attempt": 2,
                "started_at": None,
                "ended_at": None,
            },
        ],
        "edges": [[0, 1, "takes"]],
    }


def test_many_tasks_of_a_loop_are_one_group():
    views = loop(MAX_SINGLE)
    views[3] = view("square_2", "start", state="running")
    drawn = draw(views)
    assert [(node["label"], node["count"], "task" in node) for node in drawn["nodes"]] == [
        ("start", 1, True),
        ("square", MAX_SINGLE, False),
        ("end", 1, True),
    ]
    group = drawn["nodes"][1]
    assert group["state"] == "running"
    assert group["states"] == [["running", 1], ["waiting", MAX_SINGLE - 1]]
    assert drawn["edges"] == [[0, 1, "takes"], [1, 2, "takes"]]
    assert [task.task_id for task in members(views, "square")][:2] == ["square_0", "square_1"]


def test_numbers_and_dates_in_names_make_no_groups_of_their_own():
    names = ["day-2026-11-24", "load[3]", "load (4)", "part.7", "part_8_9", "7"]
    views = [view(f"{name}{number}", name=name) for number in range(20) for name in names]
    labels = {node["label"] for node in draw(views)["nodes"]}
    assert labels == {"day", "load", "part", "7"}


def test_a_group_is_no_task_that_happens_to_be_called_so():
    views = [*loop(MAX_SINGLE), view("square", "end")]
    drawn = draw(views)
    assert [(node["label"], "task" in node) for node in drawn["nodes"]] == [
        ("start", True),
        ("square", False),
        ("end", True),
    ]


def test_tasks_of_all_different_names_are_grouped_by_their_place():
    chain = [view("first")]
    for letter in range(2 * MAX_NODES):
        name = "".join(chr(97 + int(digit)) for digit in str(letter))
        chain.append(view(name, chain[-1].task_id))
    drawn = draw(chain)
    assert len(drawn["nodes"]) <= MAX_NODES
    assert sum(node["count"] for node in drawn["nodes"]) == 2 * MAX_NODES + 1


def test_a_dependent_of_a_task_that_returned_a_graph_stands_behind_that_graph():
    views = [
        view("maker", gives="last"),
        view("user", "maker"),
        view("first", creator="maker"),
        view("last", "first", creator="maker"),
    ]
    assert draw(views)["edges"] == [[3, 1, "takes"], [0, 2, "makes"], [2, 3, "takes"]]
