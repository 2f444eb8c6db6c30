"""Large values: to the storage and back, and what memory that takes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, by_count, by_rate, interleaved


def measure(quick: bool) -> list[Row]:
    rounds, size, most = (1, 2**24, 2**24) if quick else (5, 2**28, 2**30)
    rows = []
    for kind in ("numpy array", "Arrow table"):
        with tempfile.TemporaryDirectory() as folder:
            rows += _rates(kind, size, rounds, Path(folder))
        rows.append(_memory(kind, most))
    return rows


def _rates(kind: str, size: int, rounds: int, folder: Path) -> list[Row]:
    from airflow_provider_rayworkflow.workflow.codec import Encoding, decode, encode
    from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
    from airflow_provider_rayworkflow.workflow.storage.local import LocalStore

    value, raw = _value(kind, size), os.urandom(1 << 20) * (size >> 20)
    store = WorkflowStore(LocalStore(folder / "ours"))
    blobs: list[Any] = []

    def write() -> None:
        parts = encode(value).parts
        blobs.append(store.write_value("w", epoch=1, task_id="t", attempt=1, parts=parts))

    def read() -> None:
        _forget(folder / "ours" / blobs[-1].key)
        decode(Encoding.PICKLE, store.read_value(blobs[-1]))

    seconds = interleaved(
        {
            "raw write": lambda: _write_raw(folder / "raw", raw),
            "our write": write,
            "raw read": lambda: _read_raw(folder / "raw"),
            "our read": read,
        },
        rounds=rounds,
    )
    megabytes = size / 1e6
    return [
        by_rate(
            f"{name} of a {kind} of {size >> 20} MiB (MB/s)",
            f"raw {name} of the same disk",
            ours=megabytes / seconds[f"our {name}"],
            theirs=megabytes / seconds[f"raw {name}"],
            goal="≥ 0.8",
            unit="MB/s",
        )
        for name in ("write", "read")
    ]


def _write_raw(path: Path, content: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(content)
        os.fsync(file.fileno())


def _read_raw(path: Path) -> None:
    _forget(path)
    path.read_bytes()


def _forget(path: Path) -> None:
    """Have the next read come from the disk."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _value(kind: str, size: int) -> Any:
    import numpy as np

    numbers = np.random.default_rng(1).integers(0, 2**62, size // 8)
    if kind == "numpy array":
        return numbers
    import pyarrow as pa

    return pa.table({"number": pa.array(numbers)})


def _memory(kind: str, size: int) -> Row:
    """Peak memory of a process that makes and writes the value, beyond one that does nothing."""
    command = [sys.executable, "-m", __name__, kind, str(size)]
    peak = int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return by_count(
        f"peak memory while a {kind} of {size >> 20} MiB is written",
        "1.2 times the value",
        ours=peak / size,
        allowed=1.2,
        unit="of the value",
    )


def _peak(do: Callable[[], object]) -> int:
    before = _highest_bytes()
    do()
    return _highest_bytes() - before


def _highest_bytes() -> int:
    # Not ru_maxrss: a new process inherits that of the one that starts it.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def _make_and_write(kind: str, size: int) -> None:
    from airflow_provider_rayworkflow.workflow.codec import encode
    from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
    from airflow_provider_rayworkflow.workflow.storage.local import LocalStore

    with tempfile.TemporaryDirectory() as folder:
        store = WorkflowStore(LocalStore(folder))
        _value(kind, 8)  # what is imported does not count
        encode([1])

        def do() -> None:
            parts = encode(_value(kind, size)).parts
            store.write_value("w", epoch=1, task_id="t", attempt=1, parts=parts)

        print(_peak(do))


if __name__ == "__main__":
    _make_and_write(sys.argv[1], int(sys.argv[2]))
