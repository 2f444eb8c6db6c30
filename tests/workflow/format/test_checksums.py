"""Checksums of what is large are those of zlib."""

from __future__ import annotations

import zlib

import pytest

from airflow_provider_rayworkflow.workflow.format import checksums
from airflow_provider_rayworkflow.workflow.format.checksums import crc32


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [0, 1, 1000, 1001, 4096, 100_003])
def test_a_checksum_is_the_same_however_many_threads_make_it(
    monkeypatch: pytest.MonkeyPatch, threads: int, size: int
):
    monkeypatch.setattr(checksums, "_THREADS", threads)
    monkeypatch.setattr(checksums, "_LARGE_BYTES", 1000)
    content = bytes(number * number % 251 for number in range(size))
    assert crc32(content) == zlib.crc32(content)
    assert crc32(memoryview(content), 12345) == zlib.crc32(content, 12345)
    assert crc32(bytearray(content), crc32(b"before")) == zlib.crc32(b"before" + content)
