"""Mapped task instances at once on a cold machine, without a cluster: how long they take, and Ray's memory."""

from __future__ import annotations

import os
from functools import partial

from benchmarks.mapped import Kind, Outcome, Work, cold_machine
from benchmarks.rows import Row, by_amount, by_count, by_time, medians

_OWN_RAY = "a Ray of its own in each"
#: What Ray's processes may take together.
_ALLOWED_MB = 3_000
#: What may be added to the work that the CPUs share: Ray's start, the processes of 32 tries.
_ALLOWED_SHARE, _ALLOWED_S = 1.25, 15.0


def measure(quick: bool) -> list[Row]:
    # Of eight Rays that start at once on two cores, some need more than the 30 s that Ray allows itself.
    rounds, few, many = (0, 1, 2) if quick else (3, 4, 32)
    work = Work(tasks=2, task_s=0.1) if quick else Work(tasks=4, task_s=0.5)
    seconds = medians(
        {
            "ours": partial(_seconds, "local", few, work),
            "theirs": partial(_seconds, "embedded", few, work),
            "many": partial(_seconds, "local", many, work),
        },
        rounds=rounds,
    )
    took = {
        "ours": _megabytes("local", few, work),
        "theirs": _megabytes("embedded", few, work),
        "many": _megabytes("local", many, work),
    }
    allowed_s = _ALLOWED_SHARE * _work_s(many, work) / (os.cpu_count() or 1) + _ALLOWED_S
    return [
        by_time(
            _name(few, work),
            _OWN_RAY,
            ours=seconds["ours"],
            theirs=seconds["theirs"],
            goal="≥ 2",
        ),
        by_amount(
            f"{_name(few, work)}: Ray's peak memory",
            _OWN_RAY,
            ours=took["ours"],
            theirs=took["theirs"],
            unit="MB",
            goal="≥ 2",
        ),
        by_count(
            _name(many, work),
            f"{_ALLOWED_SHARE} times work / CPUs, and {_ALLOWED_S:g} s",
            ours=seconds["many"],
            allowed=allowed_s,
            unit="s",
        ),
        by_count(
            f"{_name(many, work)}: Ray's peak memory",
            "3 GB",
            ours=took["many"],
            allowed=_ALLOWED_MB,
            unit="MB",
        ),
    ]


def _seconds(kind: Kind, number: int, work: Work) -> float:
    return _outcome(kind, number, work).seconds


def _megabytes(kind: Kind, number: int, work: Work) -> float:
    return _outcome(kind, number, work, measures_memory=True).megabytes


def _outcome(kind: Kind, number: int, work: Work, *, measures_memory: bool = False) -> Outcome:
    with cold_machine() as machine:
        return machine.run(kind, number, work, measures_memory=measures_memory)


def _work_s(number: int, work: Work) -> float:
    return number * work.tasks * work.task_s


def _name(number: int, work: Work) -> str:
    return f"{number} mapped instances on a cold machine, {_work_s(number, work):g} s of work"
