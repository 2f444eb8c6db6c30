"""From a try's ``execute`` to the first task of its workflow, without a cluster, on a cold and on a warm machine."""

from __future__ import annotations

from functools import partial

from benchmarks.mapped import Kind, Work, cold_machine
from benchmarks.rows import Row, by_count, by_time, medians

_OWN_RAY = "a Ray of its own in the task's process"
_COLD = "from execute to the first workflow task, cold machine"
_WARM = "from execute to the first workflow task, warm machine"
_ONE_TASK = Work(tasks=1, task_s=0.0)
#: What a cold start may take beyond Ray's own, and all that a warm one may take.
_ALLOWED_S = 1.0


def measure(quick: bool) -> list[Row]:
    rounds = 0 if quick else 5
    with cold_machine() as warm:
        warm.run("local", 1, _ONE_TASK)
        seconds = medians(
            {
                "warm": lambda: warm.run("local", 1, _ONE_TASK).first_task_s,
                "cold": partial(_on_cold_machine, "local"),
                "embedded": partial(_on_cold_machine, "embedded"),
                "ray alone": partial(_on_cold_machine, "ray alone"),
            },
            rounds=rounds,
        )
    return [
        by_time(_COLD, _OWN_RAY, ours=seconds["cold"], theirs=seconds["embedded"], goal="≥ 0.8"),
        by_count(
            _COLD,
            "ray.init and a Ray task, and 1 s",
            ours=seconds["cold"],
            allowed=round(seconds["ray alone"] + _ALLOWED_S, 3),
            unit="s",
        ),
        by_time(_WARM, _OWN_RAY, ours=seconds["warm"], theirs=seconds["embedded"], goal="≥ 3"),
        by_count(_WARM, "1 s", ours=seconds["warm"], allowed=_ALLOWED_S, unit="s"),
    ]


def _on_cold_machine(kind: Kind) -> float:
    with cold_machine() as machine:
        return machine.run(kind, 1, _ONE_TASK).first_task_s
