"""Times and durations as people read them."""

import pytest

from airflow_provider_rayworkflow.workflow.format.times import duration, utc_time


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-1.0, "0.0 s"),
        (5.04, "5.0 s"),
        (184.0, "3 min 04 s"),
        (3720.0, "1 h 02 min"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float | None, text: str):
    assert duration(seconds) == text


def test_a_time_is_that_of_utc():
    assert utc_time(1_700_000_000.9) == "2023-11-14 22:13:20 UTC"
    assert utc_time(None) == "-"
