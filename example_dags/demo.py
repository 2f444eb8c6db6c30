"""A durable workflow through Airflow, with a failure and a resume: ``make demo``.

Runs the Airflow DAG ``flights_daily`` for one day with ``airflow dags test``, in an Airflow home of its own. One of the
workflow's 23 tasks fails in the first try; Airflow retries; the second try runs that task and the one that depends on
it, nothing else. What ran is read from the log that the tasks themselves write, and the tries from Airflow's database.
The first try starts a local Ray, in which both tries' tasks run, and which is ended here.
"""

import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet

DAY = "2013-06-02"
FLIGHTS = 911
TASKS = 23
FAILING, LAST = "fit_delay_model", "save_results"
TIME_LIMIT_S = 300
LOG_TAIL_LINES = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Try:
    """A try of the Airflow task instance, as Airflow's database has it."""

    number: int
    state: str
    started: datetime
    ended: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One execution of a workflow task's body, as the task recorded it."""

    task: str
    started: datetime
    seconds: float
    error: str | None


class DemoError(Exception):
    """The demo didn't go as it should."""


def main() -> int:
    home = Path(tempfile.mkdtemp(prefix="rayworkflow-demo-"))
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:4.0f} s  {text}", flush=True)

    try:
        say(f"Airflow's home, the workflow's storage and all results: {home}")
        say("airflow db migrate")
        with airflow(home, "db", "migrate") as migration:
            watch(migration, lambda: None)
        say(f"airflow dags test flights_daily {DAY}; {FAILING} will fail once")
        with airflow(home, "dags", "test", "flights_daily", DAY, "--conf", conf(home)) as test:
            watch(test, progress(home, say))
        tries, runs = read_tries(home), read_runs(home)
        say("done")
        print_table(tries, runs)
        print_summary(read_summary(home))
        check(home, tries, runs)
    except DemoError as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        print_log_tail(home)
        return 1
    finally:
        end_local_ray(home)
    print(
        f"\nAs it should be: {TASKS - 2} tasks ran once over both tries and were reused in the second,"
    )
    print(f"{FAILING} ran twice, {LAST} once. Results: {home / 'output'}, log: {log_path(home)}")
    return 0


def conf(home: Path) -> str:
    return json.dumps(
        {
            "output_dir": str(home / "output"),
            "fail_once": str(home / "failed_once"),
            "run_log": str(home / "runs.jsonl"),
        }
    )


@contextmanager
def airflow(home: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start an ``airflow`` command that logs to the demo's log file; end it when the block is left."""
    command = [sys.executable, "-m", "airflow", *arguments]
    with log_path(home).open("ab") as log:
        process = subprocess.Popen(
            command, env=environment(home), cwd=home, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


def environment(home: Path) -> dict[str, str]:
    """This process's environment without its own Airflow and Ray, and with the demo's."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "RAY_"))}
    # Two CPUs are enough, and Ray starts faster than with a worker for each of a large machine's.
    extra = {"storage": str(home / "workflows"), "num_cpus": 2}
    connection = {"conn_type": "ray_workflow", "extra": extra}
    return inherited | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT": json.dumps(connection),
        "PYTHONUNBUFFERED": "1",
        # A local Ray of the demo's own, also where one runs for this user's Airflow.
        "RAY_WORKFLOW_LOCAL_FOLDER": str(home / "ray"),
        # Keep Ray calm on a small machine: a slow start isn't a failure, no usage report, no folded log lines.
        "RAY_agent_register_timeout_ms": "180000",
        "RAY_DEDUP_LOGS": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def end_local_ray(home: Path) -> None:
    """It would end by itself two minutes later."""
    command = [sys.executable, "-m", "airflow_provider_rayworkflow.workflow.cli", "local", "stop"]
    with log_path(home).open("ab") as log:
        subprocess.run(
            command,
            env=environment(home),
            check=False,
            timeout=TIME_LIMIT_S,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def watch(process: subprocess.Popen[bytes], look: Callable[[], None]) -> None:
    deadline = time.monotonic() + TIME_LIMIT_S
    command = " ".join(process.args[2:5])
    while process.poll() is None:
        look()
        if time.monotonic() > deadline:
            raise DemoError(f"{command!r} was not finished after {TIME_LIMIT_S} s")
        time.sleep(0.2)
    look()
    if process.returncode:
        raise DemoError(f"{command!r} ended with exit code {process.returncode}")


def progress(home: Path, say: Callable[[str], None]) -> Callable[[], None]:
    """Return a function that says what happened since its last call."""
    seen, last = 0, ""

    def look() -> None:
        nonlocal seen, last
        runs = read_runs(home)
        new, seen = runs[seen:], len(runs)
        if ran := [run.task for run in new if not run.error]:
            say("ran " + shortened(ran))
        for run in new:
            if run.error:
                say(f"FAILED {run.task}: {run.error}")
        if (state := task_instance(home)) and state != last:
            say(f"Airflow: {state}")
            last = state

    return look


def shortened(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")


def task_instance(home: Path) -> str:
    query = "select try_number, state from task_instance where dag_id = 'flights_daily'"
    rows = select(home, query)
    return ", ".join(f"try {number} is {state}" for number, state in rows if state)


def read_runs(home: Path) -> list[Run]:
    """Read the tasks' own records, in the order in which they were written."""
    path = home / "runs.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [
        Run(
            task=record["task"],
            started=datetime.fromisoformat(record["started"]),
            seconds=record["seconds"],
            error=record["error"],
        )
        for record in records
    ]


def read_tries(home: Path) -> list[Try]:
    """Read what Airflow keeps of the task instance: its past tries and the last one."""
    query = " union ".join(
        f"select try_number, state, start_date, end_date from {table} where dag_id = 'flights_daily'"
        for table in ("task_instance_history", "task_instance")
    )
    return [
        Try(number=number, state=state, started=_utc(started), ended=_utc(ended))
        for number, state, started, ended in select(home, query + " order by try_number")
    ]


def select(home: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(home / "airflow.db")) as database:
        return database.execute(query).fetchall()


def read_summary(home: Path) -> dict[str, Any]:
    path = home / "output" / f"{DAY}.json"
    if not path.exists():
        raise DemoError(f"{path} is missing")
    return json.loads(path.read_text())


def print_table(tries: list[Try], runs: list[Run]) -> None:
    by_try = [of_try(of, runs) for of in tries]
    titles = "".join(f"try {of.number:<6}" for of in tries)
    print(f"\n{'workflow task':<20}{titles}{'seconds':>8}")
    for task in dict.fromkeys(run.task for run in runs):
        outcomes = "".join(f"{outcome(task, by_try, index):<10}" for index in range(len(tries)))
        seconds = sum(run.seconds for run in runs if run.task == task)
        print(f"{task:<20}{outcomes}{seconds:>8.3f}")
    for of, ran in zip(tries, by_try, strict=True):
        spent = (of.ended - of.started).total_seconds()
        print(f"Airflow's try {of.number}: {of.state} after {spent:.1f} s, {len(ran)} tasks ran")


def outcome(task: str, by_try: list[list[Run]], index: int) -> str:
    """Say what a try did with a task: ran it, failed in it, reused its output or never came to it."""
    if own := [run for run in by_try[index] if run.task == task]:
        return "failed" if own[-1].error else "ran"
    before = [run for ran in by_try[:index] for run in ran]
    return "reused" if any(run.task == task and not run.error for run in before) else "-"


def of_try(of: Try, runs: list[Run]) -> list[Run]:
    return [run for run in runs if of.started <= run.started <= of.ended]


def print_summary(summary: dict[str, Any]) -> None:
    model = summary["model"]
    busiest = max(summary["carriers"], key=lambda carrier: carrier["flights"])
    print(
        f"\n{summary['day']}: {summary['flights']} flights, {summary['cancelled']} cancelled, "
        f"mean departure delay {summary['mean_dep_delay']:.1f} min\n"
        f"busiest carrier: {busiest['name']}, {busiest['flights']} flights, {busiest['late']} late\n"
        f"delay model: n = {model['n']}, R² = {model['r2']:.2f}, "
        f"{model['coefficients']['hour']:+.1f} min for each hour of the day"
    )


def check(home: Path, tries: list[Try], runs: list[Run]) -> None:
    """Compare what happened with what should have, apart from what the table shows."""
    states = [of.state for of in tries]
    expect("the states of Airflow's tries", states, ["failed", "success"])
    first, second = (of_try(of, runs) for of in tries)
    expect("the runs outside of both tries", len(runs) - len(first) - len(second), 0)
    expect("the tasks that failed in try 1", [r.task for r in first if r.error], [FAILING])
    expect("the tasks that ran in try 2", [r.task for r in second], [FAILING, LAST])
    expect("the tasks that failed in try 2", [r.task for r in second if r.error], [])
    committed = [run.task for run in runs if not run.error]
    expect("the number of tasks", len(set(committed)), TASKS)
    expect("the tasks that succeeded more than once", repeated(committed), [])
    expect("the errors in the log beside that failure", other_errors(home), [])

    summary = read_summary(home)
    rows = pyarrow.parquet.read_metadata(summary["parquet"]).num_rows
    expect("the rows of the Parquet file", rows, FLIGHTS)
    expect("the flights in the summary", summary["flights"], FLIGHTS)
    by_carrier = sum(carrier["flights"] for carrier in summary["carriers"])
    expect("the carriers' flights together", by_carrier, FLIGHTS)


def other_errors(home: Path) -> list[str]:
    """The lines of Airflow's log at level error and above, without those of the failure that the demo asks for."""
    lines = log_path(home).read_text(errors="replace").splitlines()
    errors = [line for line in lines if re.match(r"\S+ \[(error|critical) *\] ", line)]
    asked_for = (f"task {FAILING} failed", "Task failed with exception")
    return [line for line in errors if not any(text in line for text in asked_for)]


def expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise DemoError(f"{what}: expected {expected!r}, found {found!r}")


def repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def print_log_tail(home: Path) -> None:
    lines = log_path(home).read_text(errors="replace").splitlines()
    print(f"\nThe end of {log_path(home)}:", file=sys.stderr)
    print("\n".join(lines[-LOG_TAIL_LINES:]), file=sys.stderr)


def log_path(home: Path) -> Path:
    return home / "demo.log"


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


if __name__ == "__main__":
    sys.exit(main())
