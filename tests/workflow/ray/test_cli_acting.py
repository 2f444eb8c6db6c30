"""The commands that act, on workflows of a running cluster."""

import json
import subprocess
import sys

import pytest
import ray

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.cli import main


@ray.remote
def fail_once(crash_file, value):
    if not crash_file.exists():
        crash_file.touch()
        raise ValueError("the first time")
    return value


@ray.remote
def pass_gate(gate, ledger):
    ledger.write()
    gate.wait()


def answer(capsys, *arguments):
    code = main([*arguments, "--json"])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    return json.loads(captured.out)


def test_resume_starts_a_failed_workflow_again(manager, new_id, tmp_path, capsys):
    ref = workflow.run_async(fail_once.bind(tmp_path / "failed", 5), workflow_id=new_id)
    with pytest.raises(workflow.WorkflowExecutionError):
        ray.get(ref)
    assert answer(capsys, "resume", new_id)["workflow_id"] == new_id
    assert workflow.get_output(new_id) == 5


def test_resume_from_a_task_runs_it_again(manager, new_id, ledger, capsys):
    @ray.remote(**workflow.options(task_id="count"))
    def count():
        ledger.write()
        return len(ledger.lines())

    assert workflow.run(count.bind(), workflow_id=new_id) == 1
    assert answer(capsys, "resume", new_id)["status"] == "SUCCESSFUL"
    assert answer(capsys, "resume", new_id, "--from-task", "count")["workflow_id"] == new_id
    assert workflow.get_output(new_id) == 2
    assert main(["resume", new_id, "--from-task", "tidy"]) == 1
    assert "has no task 'tidy' to restart from" in capsys.readouterr().err
    assert workflow.get_output(new_id) == 2


def test_suspend_resume_cancel_and_delete_change_the_status(manager, new_id, gate, ledger, capsys):
    workflow.run_async(pass_gate.bind(gate, ledger), workflow_id=new_id)
    ledger.wait_for()
    suspended = {"workflow_id": new_id, "status": "RESUMABLE"}
    assert answer(capsys, "suspend", new_id) == suspended
    assert answer(capsys, "resume", new_id) == {"workflow_id": new_id, "status": "RUNNING"}
    assert main(["delete", new_id]) == 1
    assert "DELETE couldn't be completed" in capsys.readouterr().err
    assert answer(capsys, "cancel", new_id) == {"workflow_id": new_id, "status": "CANCELED"}
    assert answer(capsys, "delete", new_id) == {"workflow_id": new_id, "deleted": True}
    with pytest.raises(workflow.WorkflowNotFoundError):
        workflow.get_status(new_id)


def test_resume_all_reports_what_it_resumed(fresh_manager, tmp_path, capsys):
    fresh_manager()
    ref = workflow.run_async(fail_once.bind(tmp_path / "failed", 5), workflow_id="failed")
    with pytest.raises(workflow.WorkflowExecutionError):
        ray.get(ref)
    assert answer(capsys, "resume-all") == []
    assert answer(capsys, "resume-all", "--include-failed") == [
        {"workflow_id": "failed", "resumed": True, "error": None}
    ]
    assert workflow.get_output("failed") == 5


def test_a_command_joins_the_cluster_of_its_address_quietly(manager, new_id, gate, ledger):
    workflow.run_async(pass_gate.bind(gate, ledger), workflow_id=new_id)
    ledger.wait_for()
    address = ray.get_runtime_context().gcs_address
    module = "airflow_provider_rayworkflow.workflow.cli"
    done = subprocess.run(
        [sys.executable, "-m", module, "suspend", new_id, "--address", address],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{new_id} is RESUMABLE\n", "")
