"""The program of the migration guide."""

import runpy
from pathlib import Path

import pytest

from airflow_provider_rayworkflow import workflow

PROGRAM = Path(__file__).parents[3] / "docs" / "examples" / "trip_booking.py"


@pytest.fixture
def trip():
    return runpy.run_path(str(PROGRAM))["trip"]


def test_a_trip_is_booked_whole(manager, trip, new_id, tmp_path):
    result = workflow.run(trip(str(tmp_path)), workflow_id=new_id)
    assert [number.split("-")[0] for number in result["booked"]] == ["flight", "hotel", "car"]
    assert {file.name for file in tmp_path.iterdir()} == set(result["booked"])


def test_bookings_are_canceled_when_the_hotel_is_full(manager, trip, new_id, tmp_path):
    result = workflow.run(trip(str(tmp_path), "hotel"), workflow_id=new_id)
    assert result["booked"] == []
    assert result["errors"] == ["no hotel is left"]
    assert [number.split("-")[0] for number in result["canceled"]] == ["flight", "car"]
    assert list(tmp_path.iterdir()) == []
    assert workflow.get_status(new_id) == workflow.SUCCESSFUL


def test_the_same_trip_is_booked_once(manager, trip, new_id, tmp_path):
    first = workflow.run(trip(str(tmp_path)), workflow_id=new_id)
    assert workflow.run(trip(str(tmp_path)), workflow_id=new_id) == first
    assert len(list(tmp_path.iterdir())) == 3
