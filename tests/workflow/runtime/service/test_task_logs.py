"""Which lines of a cluster's processes belong to which workflows."""

import pytest

from airflow_provider_rayworkflow.workflow.runtime.service.task_logs import _lines_of

OF_THE_MANAGER = [
    'Workflow job created. [id="a"]',
    "Task status [SUCCESSFUL]\t[a@b]",
    "Workflow status [SUCCESSFUL]\t[a]",
    "Workflow a goes on: 1 of its 2 tasks have a checkpoint and don't run again",
    "Workflow a: its progress can't be written",
]


@pytest.mark.parametrize("actor", ["WorkflowManagementActor", "EventHost"])
def test_an_actor_that_workflows_share_gives_the_lines_that_name_the_workflow(actor):
    others = [
        line.replace("a@b", "b@a").replace("a]", "b]").replace('"a"', '"ab"')
        for line in OF_THE_MANAGER[:3]
    ]
    data = {"actor_name": actor, "task_name": None, "lines": OF_THE_MANAGER + others}
    assert _lines_of(["a"], data) == OF_THE_MANAGER
    assert _lines_of(["c"], data) == []


def test_a_task_gives_all_lines_that_it_prints():
    data = {"actor_name": None, "task_name": "a@b@c", "lines": ["one", "[d@e]"]}
    assert _lines_of(["a"], data) == ["one", "[d@e]"]
    assert _lines_of(["a@b"], data) == ["one", "[d@e]"]
    assert _lines_of(["d", "b"], data) == []


def test_other_processes_give_no_line():
    data = {"actor_name": "Other", "task_name": "", "lines": OF_THE_MANAGER}
    assert _lines_of(["a"], data) == []
