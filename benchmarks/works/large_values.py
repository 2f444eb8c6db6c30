"""Large values: to the storage and back, and what memory that takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from airflow_provider_rayworkflow.workflow.model.codec import Encoding, decode, encode
from airflow_provider_rayworkflow.workflow.model.records import Blob
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from benchmarks.rows import Row, by_count, by_rate, medians, seconds_of

_KINDS: dict[str, Callable[[Any], Any]] = {
    "numpy array": lambda numbers: numbers,
    "Arrow table": lambda numbers: pa.table({"number": pa.array(numbers)}),
}


def measure(quick: bool) -> list[Row]:
    rounds, size = (1, 2**24) if quick else (11, 2**30)
    rows = []
    for kind in _KINDS:
        # Nothing is deleted meanwhile: the disk may be told of it while the next one writes.
        with tempfile.TemporaryDirectory() as folder:
            rows += _rates(kind, size, rounds, Path(folder, kind, "rates"))
            rows += _memory(kind, size, f"{folder}/{kind}/memory")
    return rows


# ---- how fast


def _rates(kind: str, size: int, rounds: int, folder: Path) -> list[Row]:
    """Each file is a new one, synced; each read comes from the disk.

    Before each turn as much is written and read without a clock: memory that a virtual machine
    hasn't used for a moment is its host's, and takes seconds to come back (2 s for 1 GiB here).
    Without that, who comes first takes what was in use just now, and the next one waits.
    """
    numbers = _numbers(size)
    raw, ours = _Raw(folder / "raw", numbers), _Ours(folder / "ours", _KINDS[kind](numbers))
    before = _Raw(folder / "before", numbers)
    before.write()

    def turn(do: Callable[[], float]) -> float:
        before.write_again()
        before.read()
        return do()

    parties = {
        "raw write": raw.write,
        "our write": ours.write,
        "raw read": raw.read,
        "our read": ours.read,
    }
    seconds = medians({name: partial(turn, do) for name, do in parties.items()}, rounds=rounds)
    megabytes = size / 1e6
    return [
        by_rate(
            f"{name} of a {kind} of {size >> 20} MiB",
            f"raw {name} of the same disk",
            ours=megabytes / seconds[f"our {name}"],
            theirs=megabytes / seconds[f"raw {name}"],
            goal="≥ 0.8",
            unit="MB/s",
        )
        for name in ("write", "read")
    ]


class _Raw:
    """A file, written and read by the operating system's calls alone."""

    def __init__(self, folder: Path, content: Any) -> None:
        folder.mkdir(parents=True)
        self._paths = (folder / str(number) for number in count())
        self._content = content

    def write(self) -> float:
        self._path = next(self._paths)
        self._path.touch()
        return self.write_again()

    def write_again(self) -> float:
        return seconds_of(self._write)

    def _write(self) -> None:
        with open(self._path, "r+b", buffering=0) as file:
            pending = memoryview(self._content).cast("B")
            while pending:
                pending = pending[file.write(pending) :]
            os.fsync(file.fileno())

    def read(self) -> float:
        with _out_of_cache(self._path):
            return seconds_of(self._path.read_bytes)


class _Ours:
    """A value, written and read as a task's."""

    def __init__(self, root: Path, value: Any) -> None:
        self._root = root
        self._store = WorkflowStore(LocalStore(root))
        self._value = value
        self._attempts = count(1)

    def write(self) -> float:
        return seconds_of(self._write)

    def _write(self) -> None:
        self._blob = _write(self._store, self._value, attempt=next(self._attempts))

    def read(self) -> float:
        with _out_of_cache(self._root / self._blob.key):
            return seconds_of(partial(_load, self._store, self._blob))


def _write(store: WorkflowStore, value: Any, *, attempt: int = 1) -> Blob:
    parts = encode(value).parts
    return store.values.write("w", epoch=1, task_id="t", attempt=attempt, parts=parts)


def _load(store: WorkflowStore, blob: Blob) -> Any:
    return decode(Encoding.PICKLE, store.values.read(blob))


@contextmanager
def _out_of_cache(path: Path) -> Iterator[None]:
    """Have a read come from the disk, and leave no room taken in the page cache."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        yield
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _numbers(size: int) -> Any:
    return np.random.default_rng(1).integers(0, 2**62, size // 8)


# ---- how much memory, each in a process of its own


def _memory(kind: str, size: int, folder: str) -> list[Row]:
    written = _in_a_process("write", kind, str(size), folder)
    loaded = _in_a_process("load", kind, json.dumps(written["blob"]), folder)
    return [
        by_count(
            f"peak memory while a {kind} of {size >> 20} MiB is {what}",
            "1.2 times the value",
            ours=done["peak"] / size,
            allowed=1.2,
            unit="of the value",
        )
        for what, done in (("made and written", written), ("loaded", loaded))
    ]


def _in_a_process(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", __name__, *arguments]
    done: dict[str, Any] = json.loads(subprocess.check_output(command))
    return done


def main(what: str, kind: str, argument: str, folder: str) -> None:
    """Print the peak beyond that of a process that has done the same with a small value."""
    store = WorkflowStore(LocalStore(folder))
    small = WorkflowStore(LocalStore(f"{folder}/small"))
    _load(small, _write(small, _KINDS[kind](_numbers(2**16))))
    before = _highest_bytes()
    if what == "write":
        blob = _write(store, _KINDS[kind](_numbers(int(argument))))
    else:
        blob = Blob(**json.loads(argument))
        _load(store, blob)
    print(json.dumps({"peak": _highest_bytes() - before, "blob": asdict(blob)}))


def _highest_bytes() -> int:
    # Not ru_maxrss: a new process inherits that of the one that starts it.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
