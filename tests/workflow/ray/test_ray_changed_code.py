"""A script is corrected and run again: its functions are of ``__main__``, pickled with their code."""

import drivers
import pytest
import ray

from airflow_provider_rayworkflow import workflow

SCRIPT = """
workflow.init()
LIMIT = 3

def load(day):
    ledger.write("load")
    return {{day, "b", "c", "d"}}

def clean(rows, limit):
    ledger.write("clean")
    return sorted(rows)[:limit]

def report(rows):
    ledger.write("report")
    raise ValueError("a bug")

def split(rows):
    ledger.write("split")
    return workflow.continuation(named(report).bind(rows))

def named(function, **options):
    return ray.remote(function).options(**workflow.options(task_id=function.__name__, **options))

dag = named(split).bind(named(clean).bind(named(load).bind("a"), LIMIT))
print("PLAN", workflow.plan(dag, {id!r}).counts)
try:
    print("OUTPUT", workflow.run(dag, workflow_id={id!r}, on_change={on_change!r}))
except workflow.WorkflowExecutionError:
    print("FAILED")
except workflow.WorkflowChangedError as exc:
    print("REFUSED", exc.changes)
"""


@pytest.fixture
def script(manager, new_id, tmp_path, ledger):
    text = SCRIPT

    def run(*edits: tuple[str, str], on_change: str = "reuse") -> tuple[str, list[str]]:
        nonlocal text
        for old, new in edits:
            assert text.count(old) == 1
            text = text.replace(old, new)
        before = len(ledger.lines())
        (tmp_path / "output").unlink(missing_ok=True)
        drivers.run(
            text.format(id=new_id, on_change=on_change),
            tmp_path,
            RAY_ADDRESS=ray.get_runtime_context().gcs_address,
        )
        lines = (tmp_path / "output").read_text().splitlines()
        answers = ("OUTPUT", "FAILED", "REFUSED")
        return next(line for line in lines if line.startswith(answers)), ledger.lines()[before:]

    return run


FIX = ('raise ValueError("a bug")', "return len(rows)")


def test_a_script_is_corrected_and_goes_on(script, new_id):
    assert script() == ("FAILED", ["load", "clean", "split", "report"])
    moved = ("\nLIMIT = 3", "\n# moved by a line\n\nLIMIT = 3")
    assert script(FIX, moved, ('"c", "d"', '"c", "e"')) == ("OUTPUT 3", ["report"])
    assert script(on_change="reuse") == ("OUTPUT 3", [])
    refused, ran = script(on_change="refuse")
    assert refused.startswith("REFUSED ['load: its code has changed'")
    assert ran == []
    # `split` names `report`, whose code has changed since; the rows that that gets are the same.
    assert script(on_change="rerun_changed") == ("OUTPUT 3", ["load", "clean", "split"])
    assert script(("LIMIT = 3", "LIMIT = 4")) == ("OUTPUT 4", ["clean", "split", "report"])
    assert workflow.get_output(new_id, task_id="clean") == ["a", "b", "c", "e"]


def test_a_fork_and_a_restart_from_a_task_on_ray(manager, new_id, ledger):
    @ray.remote
    def load(size):
        ledger.write("load")
        return b"x" * size

    @ray.remote
    def measure(data):
        ledger.write("measure")
        return len(data)

    dag = measure.options(**workflow.options(task_id="measure")).bind(load.bind(100_000))
    assert workflow.run(dag, workflow_id=new_id) == 100_000
    fork = f"{new_id}-fork"
    workflow.fork(new_id, fork, from_task="measure")
    workflow.delete(new_id)
    assert workflow.resume(fork) == 100_000
    assert workflow.resume(fork, from_task="measure") == 100_000
    assert ledger.lines() == ["load", "measure", "measure", "measure"]
