"""Book a trip: flight, hotel and car, or nothing at all.

The three bookings are made at the same time. If one of them fails, those that were made are
canceled again, and that is a *result* of the workflow, not its failure. A crash in between loses
nothing: with the same workflow id, bookings that are committed are not made again, and one that
may have been made is made under the same booking number, so that the agency knows it already.

    python trip_booking.py FOLDER [SOLD_OUT]

FOLDER stands for the travel agencies: a file is a booking. SOLD_OUT is ``flight``, ``hotel`` or ``car``.
"""

import sys
import uuid
from pathlib import Path

import ray

from airflow_provider_rayworkflow import workflow

KINDS = ("flight", "hotel", "car")


class SoldOutError(Exception):
    """An agency has nothing left."""


@ray.remote
def make_booking_number(kind):
    # A task of its own: once it is committed, every attempt to book has the same number.
    return f"{kind}-{uuid.uuid4().hex[:8]}"


@workflow.options(catch_exceptions=True)
@ray.remote
def book(folder, number, sold_out):
    kind = number.split("-")[0]
    if kind == sold_out:
        raise SoldOutError(f"no {kind} is left")
    (Path(folder) / number).write_text("booked\n")
    return number


@ray.remote
def cancel_booking(folder, number):
    (Path(folder) / number).unlink(missing_ok=True)
    return number


@ray.remote
def settle(folder, *bookings):
    """All bookings, each ``(number, None)`` or ``(None, error)``, become one result."""
    made = [number for number, error in bookings if error is None]
    errors = [str(error) for _, error in bookings if error is not None]
    if not errors:
        return {"booked": made, "canceled": [], "errors": []}
    undone = [cancel_booking.bind(folder, number) for number in made]
    return workflow.continuation(give_up.bind(errors, *undone))


@ray.remote
def give_up(errors, *canceled):
    return {"booked": [], "canceled": list(canceled), "errors": errors}


def trip(folder, sold_out=None):
    """The workflow."""
    bookings = [
        book.options(**workflow.options(task_id=f"book_{kind}")).bind(
            folder, make_booking_number.bind(kind), sold_out
        )
        for kind in KINDS
    ]
    return settle.bind(folder, *bookings)


if __name__ == "__main__":
    folder, sold_out = Path(sys.argv[1]).absolute(), (sys.argv[2:] or [None])[0]
    folder.mkdir(parents=True, exist_ok=True)
    print(workflow.run(trip(str(folder), sold_out), workflow_id=f"trip-{folder.name}"))
