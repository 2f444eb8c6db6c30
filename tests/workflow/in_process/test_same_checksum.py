"""Large values that a checksum does not tell apart: what is computed of one never stands for the other."""

from __future__ import annotations

import zlib

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing

SIZE = 100_000
#: The polynomial of CRC-32, its highest power first, as bytes that are read from their lowest bits on.
POLYNOMIAL = int(f"{0x104C11DB7:033b}"[::-1], 2).to_bytes(5, "little")


def two_values() -> tuple[bytes, bytes]:
    one = bytes(SIZE)
    return one, one[:50_000] + POLYNOMIAL + one[50_005:]


def test_the_two_values_have_the_same_checksum_and_length():
    one, other = two_values()
    assert one != other
    assert len(one) == len(other)
    assert zlib.crc32(one) == zlib.crc32(other)


class Source:
    number = 0


@workflow.task(version="1", checkpoint=True)
def load(day: str) -> bytes:
    return two_values()[Source.number]


@workflow.task(cache=workflow.Cache(version="1"))
def count(data: bytes) -> int:
    return SIZE - data.count(0)


def test_a_result_in_the_cache_is_of_the_very_value():
    with testing.in_process() as workflows:
        found = []
        for number in (0, 1):
            Source.number = number
            found.append(workflows.run(count(load("monday")), workflow_id=f"w{number}"))
        assert found == [0, 5]


def test_a_resume_runs_what_takes_another_value():
    with testing.in_process() as workflows:
        Source.number = 0
        assert workflows.run(count(load("tuesday")), workflow_id="w") == 0
        Source.number = 1
        assert workflows.run(count(load("tuesday")), workflow_id="w", from_task="load") == 5
