"""What runs again when a workflow is resumed after something has changed, policy by policy."""

from __future__ import annotations

import logging
import sys
import time
from datetime import UTC, datetime

import cloudpickle
import effects
import numpy as np
import pandas as pd
import pytest
import ray
from effects import broken, calls

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.exceptions import (
    WorkflowChangedError,
    WorkflowExecutionError,
    WorkflowStillActiveError,
)
from airflow_provider_rayworkflow.workflow.model.records import ReuseCounts
from airflow_provider_rayworkflow.workflow.offline.lifecycle import forget_from
from airflow_provider_rayworkflow.workflow.storage.change_notes import new_visitor_id
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore
from airflow_provider_rayworkflow.workflow.testing import InProcessWorkflows

pytestmark = pytest.mark.usefixtures("fresh")


def task(name: str, function=None, **options):
    """A task that leaves its name, and gives the sum of what it takes, or what the function makes of that."""

    def body(*values):
        effects.note(name)
        return function(*values) if function else sum(values)

    return ray.remote(body).options(**workflow.options(task_id=name, **options))


def fail(workflows: InProcessWorkflows, dag, **options) -> list[object]:
    """Run to the failure of the last task; returns what was called."""
    calls.clear()
    broken.add("end")
    with pytest.raises(WorkflowExecutionError):
        workflows.run(dag, workflow_id="w", **options)
    broken.clear()
    return list(calls)


def rerun(workflows: InProcessWorkflows, dag, **options) -> tuple[object, list[object]]:
    """Run again; returns the output, and what was called."""
    calls.clear()
    return workflows.run(dag, workflow_id="w", **options), list(calls)


def reuse_of(workflows: InProcessWorkflows) -> ReuseCounts | None:
    """What the latest run is noted to have found of earlier ones."""
    return WorkflowStore(workflows.store).read_status("w").reuse


def chain(*, start=1, add=10, load=None, clean=None, options=None, names=("load", "clean", "end")):
    """load → clean → end; by default 1, 11, 11."""
    options = options or {}
    load_task, clean_task, end_task = names
    loaded = task(load_task, load, **options.get("load", {})).bind(start)
    cleaned = task(clean_task, clean, **options.get("clean", {})).bind(loaded, add)
    return task(end_task).bind(cleaned)


# ---- a fixed function


def test_the_fix_of_the_failed_task_repeats_nothing_that_is_finished(workflows):
    def bug(value):
        raise ValueError("a bug")

    loaded = task("load").bind(1)
    with pytest.raises(WorkflowExecutionError, match="a bug"):
        workflows.run(task("end", bug).bind(loaded), workflow_id="w")
    assert rerun(workflows, task("end", lambda value: value + 1).bind(loaded)) == (2, ["end"])


def test_a_committed_task_stays_though_its_code_has_changed(workflows, caplog):
    assert fail(workflows, chain()) == ["load", "clean", "end"]
    with caplog.at_level(logging.INFO):
        assert rerun(workflows, chain(load=lambda value: value + 5)) == (11, ["end"])
    assert "2 tasks reused, 0 changed, 0 new, 0 dropped" in caplog.text
    assert reuse_of(workflows) == ReuseCounts(reused=2, unfinished=1)


def test_a_committed_task_runs_again_if_its_changed_code_counts(workflows, caplog):
    fail(workflows, chain())
    with caplog.at_level(logging.INFO):
        dag = chain(load=lambda value: value + 5)
        assert rerun(workflows, dag, on_change="rerun_changed") == (16, ["load", "clean", "end"])
    assert "1 task reused, 1 changed" not in caplog.text
    assert "0 tasks reused, 1 changed, 0 new, 0 dropped, 1 run again only if" in caplog.text


def test_a_dependent_of_a_task_that_ran_again_with_the_same_result_is_reused(workflows):
    fail(workflows, chain())
    dag = chain(load=lambda value: value * 1)
    assert rerun(workflows, dag, on_change="rerun_changed") == (11, ["load", "end"])


def test_a_changed_function_is_refused_and_nothing_is_written(workflows):
    fail(workflows, chain())
    keys = sorted(entry.key for entry in workflows.store.list("v1/workflows"))
    with pytest.raises(WorkflowChangedError, match="load: its code has changed") as caught:
        rerun(workflows, chain(load=lambda value: value + 5), on_change="refuse")
    assert caught.value.changes == [
        "load: its code has changed",
        "clean: it takes what may change: load",
    ]
    assert sorted(entry.key for entry in workflows.store.list("v1/workflows")) == keys
    assert rerun(workflows, chain(), on_change="refuse") == (11, ["end"])


def test_the_policy_of_a_task_goes_before_that_of_the_call(workflows):
    strict, lax = {"on_change": "rerun_changed"}, {"on_change": "reuse"}
    fail(workflows, chain())
    dag = chain(load=lambda value: value + 5, options={"load": strict})
    assert rerun(workflows, dag) == (16, ["load", "clean", "end"])
    dag = chain(clean=lambda *values: 0, options={"clean": lax})
    assert rerun(workflows, dag, on_change="rerun_changed") == (0, ["load", "clean", "end"])
    dag = chain(load=lambda value: value + 7, options={"load": {"on_change": "refuse"}})
    with pytest.raises(WorkflowChangedError, match="load: its code has changed"):
        rerun(workflows, dag)


def test_a_version_stands_for_the_code(workflows):
    def versioned(version, function=None):
        return chain(load=function, options={"load": {"version": version}})

    fail(workflows, versioned(1))
    assert rerun(workflows, versioned("1", lambda value: 7), on_change="rerun_changed") == (
        11,
        ["end"],
    )
    assert rerun(workflows, versioned(2, lambda value: 7), on_change="rerun_changed") == (
        17,
        ["load", "clean", "end"],
    )


# ---- changed inputs


@pytest.mark.parametrize("on_change", ["reuse", "rerun_changed"])
def test_a_changed_literal_and_what_depends_on_it_run_again(workflows, on_change):
    fail(workflows, chain())
    assert rerun(workflows, chain(add=20), on_change=on_change) == (21, ["clean", "end"])
    assert rerun(workflows, chain(start=2, add=20), on_change=on_change) == (
        22,
        ["load", "clean", "end"],
    )


def test_a_changed_literal_is_refused(workflows):
    fail(workflows, chain())
    with pytest.raises(WorkflowChangedError, match="clean: its arguments have changed"):
        rerun(workflows, chain(add=20), on_change="refuse")


def test_the_arguments_of_the_run_are_literals_too(workflows):
    with workflow_input() as source:
        dag = task("end").bind(task("load").bind(source))
    broken.add("end")
    with pytest.raises(WorkflowExecutionError):
        workflows.run(dag, 1, workflow_id="w")
    broken.clear()
    calls.clear()
    assert workflows.run(dag, 2, workflow_id="w") == 2
    assert calls == ["load", "end"]


def workflow_input():
    from ray.dag import InputNode

    return InputNode()


def test_an_equal_literal_is_no_change_however_it_is_pickled(workflows):
    one = {"names": {"a", "b"}, "shared": [shared := [1], shared]}
    other = {"shared": [[1], [1]], "names": {"b", "a"}}

    def dag(value):
        return task("end").bind(task("load", lambda value: len(value)).bind(value))

    fail(workflows, dag(one))
    assert rerun(workflows, dag(other)) == (2, ["end"])


class Closed:
    """An object that a pickler may take apart, and no other code."""

    def __reduce__(self):
        if sys._getframe(1).f_globals["__name__"].endswith(".model.reduced"):
            raise TypeError("not for you")
        return Closed, ()


def test_a_literal_without_a_fingerprint_is_reused_unless_changes_count(workflows):
    def dag():
        return task("end").bind(task("load", lambda value: 1).bind(Closed()))

    fail(workflows, dag())
    assert rerun(workflows, dag()) == (1, ["end"])
    assert rerun(workflows, dag(), on_change="rerun_changed") == (1, ["load"])
    with pytest.raises(WorkflowChangedError, match="load: its arguments can't be compared"):
        rerun(workflows, dag(), on_change="refuse")


def test_equal_tables_that_were_built_or_read_differently_are_no_change(workflows):
    def dag(rows, grid):
        return task("end").bind(task("load", lambda rows, grid: 1).bind(rows, grid))

    rows, grid = pd.DataFrame({"a": [1, 2], "b": [1.5, 2.5]}), np.ones((2, 3))
    fail(workflows, dag(rows, grid))
    assert rows["a"].sum() == 3
    same = pd.concat([rows[:1], rows[1:]])
    same["b"] = same.pop("b")
    assert rerun(workflows, dag(same, np.asfortranarray(grid)), on_change="refuse") == (1, ["end"])
    assert rerun(workflows, dag(rows + 1, grid)) == (1, ["load"])


def test_a_changed_upstream_is_noticed_through_a_task_without_checkpoint(workflows):
    def dag(start, middle=None):
        loaded = task("load").bind(start)
        passed = task("pass", middle, checkpoint=False).bind(loaded)
        return task("end").bind(task("clean").bind(passed))

    assert fail(workflows, dag(1)) == ["load", "pass", "clean", "end"]
    assert rerun(workflows, dag(1)) == (1, ["end"])
    assert rerun(workflows, dag(2)) == (2, ["load", "pass", "clean", "end"])
    changed = dag(2, lambda value: value + 1)
    assert rerun(workflows, changed) == (2, [])
    assert rerun(workflows, changed, on_change="rerun_changed") == (3, ["pass", "clean", "end"])


def test_a_result_that_came_out_the_same_spares_what_depends_on_it(workflows):
    def dag(start):
        return task("end").bind(
            task("clean").bind(task("load", lambda value: value > 0).bind(start))
        )

    fail(workflows, dag(1))
    assert rerun(workflows, dag(2)) == (1, ["load", "end"])


def test_a_large_result_is_compared_by_its_content(workflows):
    def dag(start):
        loaded = task("load", lambda value: b"x" * 100_000 + bytes(value > 5)).bind(start)
        return task("end").bind(task("clean", len).bind(loaded))

    fail(workflows, dag(1))
    assert rerun(workflows, dag(2)) == (100_000, ["load", "end"])
    assert rerun(workflows, dag(6)) == (100_001, ["load", "clean", "end"])


def test_a_task_that_now_catches_exceptions_gives_its_result_so(workflows):
    def dag(**options):
        loaded = task("load", **options).bind(1)
        return task("end", lambda value: value).bind(loaded)

    fail(workflows, dag())
    assert rerun(workflows, dag(catch_exceptions=True)) == ((1, None), ["end"])
    assert rerun(workflows, dag()) == (1, ["end"])


# ---- tasks that come and go


def test_a_renamed_task_runs_and_what_takes_it_is_compared(workflows, caplog):
    fail(workflows, chain())
    with caplog.at_level(logging.INFO):
        assert rerun(workflows, chain(names=("read", "clean", "end"))) == (11, ["read", "end"])
    assert "1 new, 1 dropped" in caplog.text
    assert reuse_of(workflows) == ReuseCounts(checked=1, new=1, unfinished=1, dropped=1)
    dag = chain(names=("fetch", "clean", "end"), load=lambda value: 5)
    assert rerun(workflows, dag) == (15, ["fetch", "clean", "end"])


def test_an_added_task_runs_alone(workflows):
    loaded = task("load").bind(1)
    fail(workflows, task("end").bind(loaded))
    assert rerun(workflows, task("end").bind(loaded, task("more").bind(5))) == (6, ["more", "end"])


def test_an_added_and_a_removed_task_are_refused(workflows):
    loaded, old = task("load").bind(1), task("old").bind(2)
    fail(workflows, task("end").bind(loaded, old))
    with pytest.raises(WorkflowChangedError) as caught:
        rerun(workflows, task("end").bind(loaded, task("more").bind(5)), on_change="refuse")
    assert caught.value.changes == ["more: it is new", "old: it is not in the graph any more"]


def test_a_removed_task_is_dropped(workflows, caplog):
    loaded, old = task("load").bind(1), task("old").bind(2)
    fail(workflows, task("end").bind(loaded, old))
    with caplog.at_level(logging.INFO):
        assert rerun(workflows, task("end").bind(loaded)) == (1, ["end"])
    assert "1 task reused, 0 changed, 0 new, 1 dropped" in caplog.text
    assert "not in its graph any more: ['old']" in caplog.text


# ---- closures, lambdas


def closure(value):
    return task("load", lambda _: value)


@pytest.mark.parametrize(
    ("on_change", "output", "called"),
    [("reuse", 1, ["end"]), ("rerun_changed", 2, ["load", "end"])],
)
def test_a_closure_over_a_changed_value_is_changed_code(workflows, on_change, output, called):
    fail(workflows, task("end").bind(closure(1).bind(0)))
    dag = task("end").bind(closure(2).bind(0))
    assert rerun(workflows, dag, on_change=on_change) == (output, called)


def test_a_lambda_as_a_task(workflows):
    def dag(function):
        return task("end").bind(ray.remote(function).bind(3))

    fail(workflows, dag(lambda x: x + 1))
    assert rerun(workflows, dag(lambda x: x + 1), on_change="refuse") == (4, ["end"])
    assert rerun(workflows, dag(lambda x: x + 2)) == (4, [])
    assert rerun(workflows, dag(lambda x: x + 2), on_change="rerun_changed") == (5, ["end"])


def test_a_lambda_as_an_argument_is_a_literal(workflows):
    def dag(function):
        return task("end").bind(task("load", lambda f: f(3)).bind(function))

    fail(workflows, dag(lambda x: x + 1))
    assert rerun(workflows, dag(lambda x: x + 1)) == (4, ["end"])
    assert rerun(workflows, dag(lambda x: x + 2)) == (5, ["load", "end"])


# ---- workflows that have ended


def test_a_successful_workflow_runs_what_has_changed(workflows):
    assert rerun(workflows, chain()) == (11, ["load", "clean", "end"])
    assert rerun(workflows, chain()) == (11, [])
    assert rerun(workflows, chain(clean=lambda *values: 0)) == (11, [])  # only its code
    assert rerun(workflows, chain(add=20)) == (21, ["clean", "end"])
    assert workflows.get_output("w") == 21
    with pytest.raises(WorkflowChangedError, match="clean: its arguments have changed"):
        rerun(workflows, chain(add=30), on_change="refuse")
    assert workflows.get_status("w") == "SUCCESSFUL"


def test_a_successful_workflow_with_another_last_task_does_not_return_the_old_output(workflows):
    rerun(workflows, chain())
    dag = chain(names=("load", "clean", "finish"))
    assert rerun(workflows, dag) == (11, ["finish"])


def test_a_resume_that_finds_nothing_to_reuse_says_so(workflows, caplog):
    broken.add("load")
    with pytest.raises(WorkflowExecutionError):
        workflows.run(chain(), workflow_id="w")
    assert reuse_of(workflows) is None
    broken.clear()
    with caplog.at_level(logging.INFO):
        rerun(workflows, chain())
    assert "w goes on: 0 tasks reused, 0 changed, 0 new, 0 dropped, 3 not finished" in caplog.text
    assert reuse_of(workflows) == ReuseCounts(unfinished=3)


def test_a_run_that_has_nothing_to_run_says_so(workflows, caplog):
    rerun(workflows, chain())
    with caplog.at_level(logging.INFO):
        rerun(workflows, chain())
    assert "Workflow w has nothing to run: its output stays" in caplog.messages


# ---- restarts from a task


def diamond(start=1):
    loaded = task("load", lambda value: (value, len(calls))[0]).bind(start)
    return task("end").bind(task("left").bind(loaded), task("right", lambda *_: 100).bind(5))


def test_a_resume_from_a_task_runs_it_and_all_that_depends_on_it(workflows):
    assert rerun(workflows, diamond()) == (101, ["load", "right", "left", "end"]) or set(calls) == {
        "load",
        "left",
        "right",
        "end",
    }
    calls.clear()
    assert workflows.resume("w", from_task="left") == 101
    assert calls == ["left", "end"]
    calls.clear()
    assert workflows.resume("w", from_task="load") == 101
    assert calls == ["load", "left", "end"]
    calls.clear()
    assert workflows.resume("w") == 101  # once, not at each resume from now on
    assert calls == []


def test_a_restart_is_not_forgotten_when_it_is_interrupted(workflows):
    workflows.run(diamond(), workflow_id="w")
    calls.clear()
    broken.add("left")
    with pytest.raises(WorkflowExecutionError):
        workflows.resume("w", from_task="load")
    broken.clear()
    assert calls == ["load", "left"]
    calls.clear()
    assert workflows.resume("w") == 101
    assert calls == ["left", "end"]


def test_a_run_may_restart_from_a_task_with_the_graph_of_now(workflows):
    workflows.run(chain(), workflow_id="w")
    dag = chain(clean=lambda *values: sum(values) + 1)
    assert rerun(workflows, dag, from_task="clean") == (12, ["clean", "end"])


def test_checkpoints_are_forgotten_on_the_storage_alone(workflows):
    workflows.run(diamond(), workflow_id="w")
    store = WorkflowStore(workflows.store)

    def forget(task_id: str) -> None:
        found = StatusReader(store).read("w")
        forget_from(store, found, task_id, manager_id=new_visitor_id(), now=time.time())

    with pytest.raises(ValueError, match="no task 'tidy' to restart from"):
        forget("tidy")
    assert workflows.get_status("w") == "SUCCESSFUL"
    forget("left")
    assert workflows.get_status("w") == "RESUMABLE"
    calls.clear()
    assert workflows.resume("w") == 101
    assert calls == ["left", "end"]


def test_there_must_be_a_task_to_restart_from(workflows):
    workflows.run(chain(), workflow_id="w")
    for call in (
        lambda: workflows.resume("w", from_task="tidy"),
        lambda: workflows.run(chain(), workflow_id="w", from_task="tidy"),
        lambda: workflows.run(chain(), workflow_id="new", from_task="tidy"),
    ):
        with pytest.raises(
            ValueError, match=r"no task 'tidy' to restart from. Its tasks are \['load'"
        ):
            call()
    assert workflows.get_status("w") == "SUCCESSFUL"
    with pytest.raises(ValueError, match="must be the id of a task"):
        workflows.resume("w", from_task="")


def test_a_running_workflow_is_not_restarted_from_a_task(workflows):
    dag = task("wait", lambda: effects.gate.wait(60)).bind()
    workflows.run_async(dag, workflow_id="w")
    with pytest.raises(WorkflowStillActiveError):
        workflows.resume("w", from_task="wait")


def test_a_plan_says_that_an_active_workflow_is_attached_to_and_a_canceled_one_refused(workflows):
    dag = task("wait", lambda: effects.gate.wait(60)).bind()
    workflows.run_async(dag, workflow_id="w")
    running = workflows.plan(dag, "w")
    assert running.note in str(running).splitlines()
    assert running.note == (
        "It is RUNNING, so nothing of this is done: a run or resume attaches to it."
    )
    restart = workflows.plan(None, "w", from_task="wait")
    assert "a restart from a task is refused until it has stopped" in restart.to_json()["note"]
    workflows.cancel("w")
    assert "a run or resume is refused" in workflows.plan(dag, "w").note
    assert workflows.plan(dag, "new").note == ""


def test_a_plan_says_that_a_run_is_refused_and_because_of_what(workflows):
    strict = {"on_change": "refuse"}
    fail(workflows, chain())
    # `clean` takes what may change, and does not refuse that.
    dag = chain(start=2, options={"load": strict})
    plan = workflows.plan(dag, "w")
    note = 'A run is refused, as on_change is "refuse" for what has changed: load.'
    assert plan.note == plan.to_json()["note"] == str(plan).splitlines()[1] == note
    with pytest.raises(WorkflowChangedError):
        workflows.run(dag, workflow_id="w")
    renamed = workflows.plan(chain(names=("read", "clean", "end")), "w", on_change="refuse")
    assert renamed.note.endswith(": read, clean, load.")
    assert workflows.plan(chain(), "w", on_change="refuse").note == ""
    many = task("end").bind(*[task(f"part_{number}").bind() for number in range(7)])
    assert workflows.plan(many, "w", on_change="refuse").note.endswith(
        ": part_0, part_1, part_2, part_3, part_4 and 4 more."
    )


def test_nothing_refuses_the_stored_graph(workflows):
    dag = task("end").bind(task("load", lambda value: 1).bind(Closed()))
    fail(workflows, dag, on_change="refuse")
    assert workflows.plan(dag, "w", on_change="refuse").mismatches
    plan = workflows.plan(None, "w")
    assert (plan.on_change, plan.mismatches, plan.note) == ("refuse", [], "")
    assert workflows.resume("w") == 1


# ---- continuations


def parts(names: list[str], *, start=1, more=None):
    """A task that returns a chain of tasks, each of which adds 1."""

    def split(value, *_):
        effects.note("split")
        node = value
        for name in names:
            node = task(name, lambda value: value + 1).bind(node)
        return workflow.continuation(node) if names else value

    splitter = ray.remote(split).options(**workflow.options(task_id="split"))
    return task("end").bind(splitter.bind(start) if more is None else splitter.bind(start, more))


def test_a_continuation_goes_on_where_it_was(workflows):
    assert fail(workflows, parts(["a", "b"])) == ["split", "a", "b", "end"]
    assert rerun(workflows, parts(["a", "b"]), on_change="refuse") == (3, ["end"])


def test_a_changed_parent_returns_the_same_tasks_and_they_are_found_again(workflows):
    fail(workflows, parts(["a", "b"]))
    assert rerun(workflows, parts(["a", "b"], more="x")) == (3, ["split", "end"])


def test_a_changed_continuation_reuses_what_is_the_same_at_its_place(workflows):
    fail(workflows, parts(["a", "b", "c"]))
    dag = parts(["a", "B", "c"], more="x")
    # c has the same arguments and takes the same value as before.
    assert rerun(workflows, dag) == (4, ["split", "B", "end"])
    dag = parts(["a", "c"], more="y")
    assert rerun(workflows, dag) == (3, ["split", "c", "end"])


def test_nothing_of_the_old_continuation_is_reused_by_accident(workflows):
    def dag(value):
        def split(value):
            effects.note("split")
            return workflow.continuation(task("part", lambda: value).bind())

        splitter = ray.remote(split).options(**workflow.options(task_id="split"))
        return task("end").bind(splitter.bind(value))

    fail(workflows, dag(1))
    # The part has no arguments: only what its function closes over is another.
    assert rerun(workflows, dag(2)) == (2, ["split", "part", "end"])
    assert rerun(workflows, dag(2)) == (2, [])


def test_a_restart_from_a_task_of_a_continuation(workflows):
    workflows.run(parts(["a", "b", "c"]), workflow_id="w")
    calls.clear()
    assert workflows.resume("w", from_task="b") == 4
    assert calls == ["b", "c", "end"]


def test_a_restart_from_the_parent_uses_nothing_of_its_continuation(workflows):
    workflows.run(parts(["a", "b"]), workflow_id="w")
    calls.clear()
    assert workflows.resume("w", from_task="split") == 3
    assert calls == ["split", "a", "b", "end"]


def step(value):
    effects.note("step")
    return value + 1


def step_with_a_bug(value):
    effects.note("bug")
    raise ValueError("a bug")


step_with_a_bug.__qualname__ = step_with_a_bug.__name__ = "step"


def as_task(function):
    return function if hasattr(function, "bind") else ray.remote(function)


@ray.remote
def split(value):
    effects.note("split")
    return workflow.continuation(as_task(step).bind(value))


@pytest.mark.parametrize("wrap", [ray.remote, lambda function: function])
def test_a_function_of_a_stored_continuation_is_the_one_of_now(workflows, monkeypatch, wrap):
    """A module's function that is pickled with its code, as those of scripts and DAG files are."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        monkeypatch.setattr(module, "step", wrap(step_with_a_bug))
        with pytest.raises(WorkflowExecutionError, match="a bug"):
            workflows.run(split.bind(1), workflow_id="w")
        monkeypatch.undo()
        monkeypatch.setattr(module, "step", wrap(step))
        assert rerun(workflows, split.bind(1)) == (2, ["step"])
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def test_a_time_among_the_arguments_is_a_change(workflows):
    def dag():
        return task("end").bind(task("load", lambda when: 1).bind(datetime.now(UTC)))

    fail(workflows, dag())
    assert rerun(workflows, dag()) == (1, ["load", "end"])
