"""What restarts from tasks make void: checkpoints, and what unfinished tasks have saved."""

from __future__ import annotations

import pytest
import ray

from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import encode_graph
from airflow_provider_rayworkflow.workflow.scheduling.levels import Restarted, forgotten, restarted


@ray.remote
def step(*_):
    """Not called."""


def graph():
    """a -> b -> c, and d beside them; the last task takes c and d."""
    return encode_graph(step.bind(step.bind(step.bind(step.bind())), step.bind()))


def downstream(graph, task_ids, start: str) -> set[str]:
    hit = {start}
    for task, task_id in zip(graph.tasks, task_ids, strict=True):
        if any(task_ids[index] in hit for index in task.upstream):
            hit.add(task_id)
    return hit


@pytest.mark.parametrize("index", range(5))
def test_a_restart_concerns_all_tasks_after_it_whether_they_have_checkpoints_or_not(index: int):
    made = graph()
    task_ids = [str(number) for number in range(len(made.tasks))]
    start = task_ids[index]
    found = restarted(made, task_ids, {}, {start: 4})
    assert found == dict.fromkeys(downstream(made, task_ids, start), Restarted(4, start))
    assert forgotten(found, {}) == {}


def test_of_several_restarts_the_latest_one_counts():
    made = graph()
    task_ids = [str(number) for number in range(len(made.tasks))]
    first = next(i for i, task in enumerate(made.tasks) if task.upstream)
    before = made.tasks[first].upstream[0]
    for restarts in ({str(before): 3, str(first): 2}, {str(first): 2, str(before): 3}):
        found = restarted(made, task_ids, {}, restarts)
        assert found[str(first)] == Restarted(3, str(before))
