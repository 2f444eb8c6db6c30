"""The tasks of the flights workflow as plain functions, on the real data."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from pipelines import flights as pipeline

JANUARY_1 = "2013-01-01"
NO_WEATHER = "2013-12-31"


@pytest.fixture(scope="module")
def january_1() -> pd.DataFrame:
    return joined(JANUARY_1)


@pytest.fixture(scope="module")
def stats(january_1: pd.DataFrame) -> list[dict]:
    return [pipeline.carrier_stats(january_1, carrier) for carrier in pipeline.CARRIERS]


def joined(day: str) -> pd.DataFrame:
    return pipeline.join_weather(
        pipeline.clean_flights(pipeline.load_flights(day)),
        pipeline.clean_weather(pipeline.load_weather(day)),
    )


def test_the_day_has_the_flights_and_weather_of_the_source():
    assert len(pipeline.load_flights(JANUARY_1)) == 842
    assert len(pipeline.load_weather(JANUARY_1)) == 67


def test_a_cancelled_or_diverted_flight_is_marked_and_kept(january_1: pd.DataFrame):
    assert len(january_1) == 842
    assert january_1["cancelled"].sum() == 4
    assert january_1["diverted"].sum() == 7
    assert not (january_1["cancelled"] & january_1["diverted"]).any()


def test_an_hour_without_weather_keeps_its_flights(january_1: pd.DataFrame):
    assert january_1["temp"].notna().sum() == 803
    assert joined(NO_WEATHER)["temp"].notna().sum() == 0


def test_weather_is_that_of_the_airport_and_the_scheduled_hour(january_1: pd.DataFrame):
    flight = january_1[(january_1["carrier"] == "UA") & (january_1["flight"] == 1545)].iloc[0]
    assert (flight["origin"], flight["hour"]) == ("EWR", 5)
    assert (flight["temp"], flight["visib"]) == (39.02, 10.0)


def test_a_carriers_statistics_leave_out_delays_that_never_were(stats: list[dict]):
    american = next(record for record in stats if record["carrier"] == "AA")
    assert american == {
        "carrier": "AA",
        "name": "American Airlines",
        "flights": 94,
        "cancelled": 2,
        "late": 30,
        "mean_dep_delay": 7.956522,
        "mean_arr_delay": 11.445652,
    }


def test_a_carrier_without_flights_gets_zeros_and_no_means(stats: list[dict]):
    mesa = next(record for record in stats if record["carrier"] == "YV")
    assert mesa == {
        "carrier": "YV",
        "name": "Mesa Airlines",
        "flights": 0,
        "cancelled": 0,
        "late": 0,
        "mean_dep_delay": None,
        "mean_arr_delay": None,
    }


def test_the_carriers_are_those_of_the_source(stats: list[dict]):
    airlines = pd.read_csv(pipeline._data_file("airlines.csv"))
    assert set(pipeline.CARRIERS) == set(airlines["carrier"])
    assert sum(record["flights"] for record in stats) == 842


def test_the_model_uses_complete_flights_only(january_1: pd.DataFrame, stats: list[dict]):
    model = pipeline.fit_delay_model(january_1, None, *stats)
    assert model["n"] == 799
    assert model["r2"] == pytest.approx(0.014489, abs=1e-6)
    assert model["coefficients"]["hour"] == pytest.approx(1.63235, abs=1e-5)
    assert model["coefficients"]["precip"] == 0  # a dry day explains nothing


def test_the_model_of_a_day_without_weather_is_empty():
    flights = joined(NO_WEATHER)
    own = [pipeline.carrier_stats(flights, carrier) for carrier in pipeline.CARRIERS]
    assert pipeline.fit_delay_model(flights, None, *own) == {
        "n": 0,
        "r2": None,
        "coefficients": None,
    }


def test_fail_once_fails_once(january_1: pd.DataFrame, stats: list[dict], tmp_path: Path):
    marker = str(tmp_path / "failed")
    with pytest.raises(RuntimeError, match="fit_delay_model fails once"):
        pipeline.fit_delay_model(january_1, marker, *stats)
    assert pipeline.fit_delay_model(january_1, marker, *stats)["n"] == 799


@pytest.mark.parametrize("never", [None, ""])
def test_without_a_marker_it_never_fails(january_1: pd.DataFrame, stats: list[dict], never):
    assert pipeline.fit_delay_model(january_1, never, *stats)["n"] == 799


def test_the_saved_files_agree_with_the_summary(
    january_1: pd.DataFrame, stats: list[dict], tmp_path: Path
):
    model = pipeline.fit_delay_model(january_1, None, *stats)
    summary = pipeline.save_results(JANUARY_1, str(tmp_path), january_1, model, *stats)
    assert summary["flights"] == 842
    assert summary["mean_dep_delay"] == pytest.approx(11.548926)
    assert json.loads((tmp_path / "2013-01-01.json").read_text()) == summary
    pd.testing.assert_frame_equal(pd.read_parquet(summary["parquet"]), january_1)


def test_saving_again_leaves_the_same_two_files(
    january_1: pd.DataFrame, stats: list[dict], tmp_path: Path
):
    for _ in range(2):
        pipeline.save_results(JANUARY_1, str(tmp_path), january_1, {"n": 0}, *stats)
    assert sorted(os.listdir(tmp_path)) == ["2013-01-01.json", "2013-01-01.parquet"]


def test_a_run_leaves_one_line_in_the_log_and_so_does_a_failure(tmp_path: Path):
    log = tmp_path / "runs.jsonl"

    def halve(number: int) -> float:
        return 10 / number

    run = pipeline.recorded(halve)
    assert run("halves", str(log), 5) == 2.0
    with pytest.raises(ZeroDivisionError):
        run("halves", str(log), 0)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["task"] for line in lines] == ["halves", "halves"]
    assert [line["error"] for line in lines] == [None, "ZeroDivisionError: division by zero"]
    assert lines[0]["pid"] == os.getpid()


@pytest.mark.parametrize("no_log", [None, ""])
def test_without_a_log_a_run_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_log
):
    monkeypatch.chdir(tmp_path)
    assert pipeline.recorded(len)("count", no_log, [1, 2]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_day_outside_the_data_is_refused_before_anything_runs(tmp_path: Path):
    with pytest.raises(ValueError, match="the flights of 2013 only"):
        pipeline.daily("2014-01-01", str(tmp_path))
