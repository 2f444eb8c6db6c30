"""That the benchmarks run; what they find on a busy machine says nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import peers
from benchmarks.memory import MARK_VARIABLE, megabytes
from benchmarks.rows import medians
from benchmarks.works import s3

ROOT = Path(__file__).parent.parent.parent


def bench(*works: str) -> list[str]:
    """The lines that a quick run prints."""
    command = [sys.executable, "-m", "benchmarks.bench", "--quick", *works]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


def test_rows_that_need_no_cluster_can_be_measured():
    lines = bench("submit", "literals", "listing", "large_values")[6:]
    assert [line.partition("  ")[0] for line in lines] == [
        "fingerprint of a list of 10,000 floats",
        "fingerprint of a list of 10,000 ints",
        "fingerprint of a list of 10,000 texts",
        "fingerprint of a list of 2,000 dicts",
        "fingerprint of a list of 2,000 nested dicts",
        "make a graph of 30 tasks that take 1,000 floats each",
        "list_all over 100 workflows",
        "get_status of one that has ended",
        "write of a numpy array of 16 MiB",
        "read of a numpy array of 16 MiB",
        "peak memory while a numpy array of 16 MiB is made and written",
        "peak memory while a numpy array of 16 MiB is loaded",
        "write of a Arrow table of 16 MiB",
        "read of a Arrow table of 16 MiB",
        "peak memory while a Arrow table of 16 MiB is made and written",
        "peak memory while a Arrow table of 16 MiB is loaded",
    ]
    # Counted, so it is the same on every machine.
    assert lines[6].split()[-6:] == ["5", "6", "requests", "1.2", "≥", "1"]


def test_parties_take_turns_and_the_first_round_only_warms_up():
    turns = []

    def party(name: str, figures: list[float]) -> Callable[[], float]:
        def do() -> float:
            turns.append(name)
            return figures.pop(0)

        return do

    parties = {"ours": party("ours", [9.0, 1.0, 5.0, 2.0]), "theirs": party("theirs", [0.0] * 4)}
    assert medians(parties, rounds=3) == {"ours": 2.0, "theirs": 0.0}
    assert turns == ["ours", "theirs"] * 4


def test_a_peer_does_what_it_is_asked_until_nothing_is_asked_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    program = tmp_path / "peer.py"
    program.write_text(
        "from answering import answer\n"
        "answer({'add': lambda *numbers: print('no answer') or sum(numbers)})\n"
    )
    monkeypatch.setattr(peers, "command", lambda _: [sys.executable, str(program)])
    monkeypatch.setattr(peers, "environment", lambda: os.environ | {"PYTHONPATH": str(peers.HERE)})
    with peers.running("adder") as ask:
        assert ask("add", 1, 2) == 3
        assert ask("add", 4) == 4
        with pytest.raises(RuntimeError, match="adder ended while it did divide"):
            ask("divide", 1, 2)


def test_requests_are_shown_all_and_beyond_what_a_workflow_may_have():
    rows = s3.request_rows("work", 1_700, tasks=1_000, workflows=200, a_task=0.2)
    assert [(row.work, row.ours, row.theirs, row.ratio) for row in rows] == [
        ("work: all requests", 1_700, 1_800.0, 1.06),
        ("work: requests a task beyond 8 a workflow", 0.1, 0.2, 2.0),
    ]


@pytest.mark.ray
@pytest.mark.slow
def test_rows_that_need_a_cluster_can_be_measured():
    assert len(bench("tiny")) == 4


def test_the_memory_of_the_processes_with_a_mark_is_summed_and_no_other():
    mark = uuid.uuid4().hex
    command = [sys.executable, "-c", "block = bytes(30_000_000); print(flush=True); input()"]
    with subprocess.Popen(
        command,
        env=os.environ | {MARK_VARIABLE: mark},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        assert 1 < megabytes(mark) < 100
        assert megabytes(uuid.uuid4().hex) == 0
        process.stdin.close()
    assert megabytes(mark) == 0


def test_an_unknown_work_is_refused():
    command = [sys.executable, "-m", "benchmarks.bench", "nothing"]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "no such work: nothing; there are airflow_pipeline, cached, " in done.stderr
