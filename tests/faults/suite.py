"""Which runs are made, in which order, and the table of what came of them.

As a program: ``python tests/faults/suite.py --runs 200``.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

os.environ |= {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_agent_register_timeout_ms": "180000",
    "RAY_raylet_start_wait_time_s": "60",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
if "RAY_AUTH_TOKEN_PATH" not in os.environ:  # else Ray would write a token into the user's home
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[1] / "support"))

from faults import AIRFLOW, LOCAL, S3
from reports import Report, table
from runs import Run, run
from worlds import World, airflow_world, local_world, s3_world

from airflow_provider_rayworkflow.workflow.runtime.service.connect import SHARING_VARIABLE

Strike = Callable[[Run], None]

#: How often each fault comes in 100 runs: those that begin new clusters are dear.
WEIGHTS = {
    "worker killed": 5,
    "manager killed": 5,
    "reader of submissions killed": 5,
    "builder of a graph killed": 3,
    "driver killed": 3,
    "raylet killed": 5,
    "two clusters resume": 4,
    "cluster killed": 4,
    "killed at a write": 6,
    "killed at a step of a submission": 5,
    "S3 server killed": 4,
    "storage fails": 4,
    "storage hangs": 4,
    "storage is slow": 3,
    "two clusters resume, S3": 3,
    "Airflow task killed": 3,
    "starter of the local Ray killed": 2,
    "keeper of the local Ray killed": 2,
    "local Ray killed": 3,
    "part of the local Ray killed": 2,
    "manager stopped": 3,
    "folder deleted": 4,
    "descriptors run out": 4,
    "three managers race": 3,
    "clocks are set": 3,
    "tasks fail": 3,
    "memory runs short": 2,
    "workflow canceled": 3,
}
_WORLDS: list[tuple[Callable[[Path], AbstractContextManager[World]], dict[str, Strike]]] = [
    (local_world, LOCAL),
    (s3_world, S3),
    (airflow_world, AIRFLOW),
]


def planned(seeds: Sequence[int]) -> dict[str, list[int]]:
    """The seeds of each fault; the same ones for the same seed, beside any other runs."""
    cycle = [name for name, weight in WEIGHTS.items() for _ in range(weight)]
    # 37 has no divisor in common with 100: neighbours are different faults.
    by_fault: dict[str, list[int]] = {name: [] for name in WEIGHTS}
    for seed in seeds:
        by_fault[cycle[seed * 37 % len(cycle)]].append(seed)
    return by_fault


def make_runs(by_fault: dict[str, list[int]], folder: Path) -> Iterator[Report]:
    """Make runs world by world, so that clusters serve as many as possible."""
    for number, (make_world, faults) in enumerate(_WORLDS):
        wanted = [(name, seed) for name in faults for seed in by_fault.get(name, [])]
        if not wanted:
            continue
        with make_world(folder / str(number)) as world:
            for name, seed in wanted:
                yield run(world, name, faults[name], seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seconds", type=float, help="begin no run after so many seconds")
    parser.add_argument("--only", action="append", help="a fault; may be given again")
    parser.add_argument("--results", type=Path, help="a file that reports are added to")
    parser.add_argument("--unshared", action="store_true", help="each task has its own Ray task")
    arguments = parser.parse_args()
    if arguments.unshared:
        os.environ[SHARING_VARIABLE] = "0"
    earlier = _earlier(arguments.results)
    done = {report.seed for report in earlier}
    seeds = range(arguments.first, arguments.first + arguments.runs)
    by_fault = planned([seed for seed in seeds if seed not in done])
    if arguments.only:
        by_fault = {name: found for name, found in by_fault.items() if name in arguments.only}
    reports, begun = list(earlier), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        for report in make_runs(by_fault, Path(folder)):
            reports.append(report)
            print(f"{report.fault}, seed {report.seed}: {_shown(report)}", flush=True)
            if arguments.results:
                with arguments.results.open("a") as file:
                    print(json.dumps(report.to_json()), file=file)
            if arguments.seconds and time.monotonic() - begun > arguments.seconds:
                break
    print(table(reports))
    sys.exit(1 if any(report.problems for report in reports) else 0)


def _earlier(path: Path | None) -> list[Report]:
    if path is None or not path.exists():
        return []
    return [Report(**json.loads(line)) for line in path.read_text().splitlines()]


def _shown(report: Report) -> str:
    made = f"{report.workflows} workflows, {report.tasks} tasks, {report.resumes} resumes"
    problems = "".join(f"\n    {problem}" for problem in report.problems)
    return f"{made}, {report.seconds} s{problems or ', all well'}"


if __name__ == "__main__":
    main()
