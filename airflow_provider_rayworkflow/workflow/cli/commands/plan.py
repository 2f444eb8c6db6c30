"""``rayworkflow plan``: what a run or resume would do."""

from __future__ import annotations

import os
import sys
from typing import Any, get_args

from airflow_provider_rayworkflow.workflow.cli.stored import UnavailableError, open_stored
from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands, Json, json_object
from airflow_provider_rayworkflow.workflow.import_path import check_call, load_function
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.records import OnChange
from airflow_provider_rayworkflow.workflow.offline.plan import make_plan
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader


def add_to(commands: Commands) -> None:
    parser = commands.add_of_one("plan", _plan, "Show what a run or resume would do; runs nothing.")
    parser.add_argument(
        "--workflow",
        metavar="MODULE:FUNCTION",
        help="the function that returns the graph to run; by default the stored graph, as resume",
    )
    parser.add_argument(
        "--arguments", metavar="JSON", type=json_object, default={}, help="for that function"
    )
    parser.add_argument(
        "--on-change",
        choices=get_args(OnChange),
        help="what becomes of committed tasks that have changed; by default reuse",
    )
    parser.add_argument("--from-task", metavar="TASK", default="", help="as of resume")


def _plan(options: Any) -> Answer:
    store, workflow_id = open_stored(options), options.workflow_id
    if options.arguments and not options.workflow:
        raise UnavailableError("--arguments are those of --workflow, which is not given.")
    plan = make_plan(
        store,
        workflow_id,
        StatusReader(store).read(workflow_id),
        _build_graph(options.workflow, options.arguments) if options.workflow else None,
        on_change=options.on_change or ("reuse" if options.workflow else None),
        from_task=options.from_task,
    )
    return Answer(value=plan.to_json(), text=str(plan))


def _build_graph(workflow: str, arguments: Json) -> Graph:
    """Call the function that an import path names; Ray is imported, and not started."""
    from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import encode_graph

    sys.path.insert(0, os.getcwd())  # as `python -m` has it
    function = load_function(workflow)
    check_call(workflow, function, arguments)
    return encode_graph(function(**arguments))
