"""Runs benchmarks: ``python -m benchmarks.bench [--quick] [WORK …]``.

Each work runs in a process of its own. Its rows take the place of earlier ones in
``results/latest.json``; ``--quick`` only shows that all of them work, and keeps no figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.plot import draw

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "latest.json"
TABLE = HERE / "results" / "latest.md"
PLOT = HERE.parent / "docs" / "performance.svg"
WORKS = sorted(path.stem for path in (HERE / "works").glob("[a-z]*.py"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("works", nargs="*", metavar="WORK", help=f"of {', '.join(WORKS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--plot", action="store_true", help="only draw the plot again")
    options = parser.parse_args()
    if unknown := set(options.works) - set(WORKS):
        parser.error(f"no such work: {', '.join(unknown)}; there are {', '.join(WORKS)}")
    failed = []
    for work in [] if options.plot else options.works or WORKS:
        rows = _run(work, quick=options.quick)
        if rows is None:
            failed.append(work)
            continue
        _print(rows)
        if not options.quick:
            _keep(work, rows)
    if not options.quick and RESULTS.exists():
        kept = json.loads(RESULTS.read_text())
        TABLE.write_text(_table(kept["machine"], kept["rows"]))
        draw(kept["rows"], PLOT)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(work: str, *, quick: bool) -> list[dict[str, Any]] | None:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "rows.json")
        program = "import sys; from benchmarks.bench import measure; measure(*sys.argv[1:])"
        command = [sys.executable, "-c", program, work, str(result), "quick" if quick else ""]
        path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        env = os.environ | {"PYTHONPATH": path}
        # Ray prints what its processes say: beside the rows, not between them.
        if subprocess.run(command, env=env, stdout=sys.stderr).returncode:
            return None
        rows: list[dict[str, Any]] = json.loads(result.read_text())
        return rows


def measure(work: str, result: str, quick: str) -> None:
    """Measure one work in this process."""
    rows = import_module(f"benchmarks.works.{work}").measure(bool(quick))
    Path(result).write_text(json.dumps([asdict(row) for row in rows]))


def _print(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        figures = f"{row['ours']:>10,} {row['theirs']:>10,} {row['unit']:<12}"
        print(f"{row['work']:<62} {row['peer']:<36} {figures} {row['ratio']:>8} {row['goal']}")
    sys.stdout.flush()


def _table(machine: str, rows: list[dict[str, Any]]) -> str:
    """What docs/performance.md shows."""
    lines = ["| work | against | ours | theirs | ratio | goal | `make bench WORKS=` |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        figures = (
            f"{row['ours']:,} {row['unit']} | {row['theirs']:,} {row['unit']} | {row['ratio']}"
        )
        lines.append(
            f"| {row['work']} | {row['peer']} | {figures} | {row['goal']} | {row['made_by']} |"
        )
    return "\n".join([*lines, "", f"Measured on: {machine}.", ""])


def _keep(work: str, rows: list[dict[str, Any]]) -> None:
    kept = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = [row | {"made_by": work} for row in rows]
    # What a work measured before under another name is gone.
    others = [row for row in kept if row["made_by"] != work]
    measured = {(row["work"], row["peer"]): row for row in others + rows}
    RESULTS.parent.mkdir(exist_ok=True)
    content = {"machine": _machine(), "rows": list(measured.values())}
    RESULTS.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} CPUs ({platform.machine()}), {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}"
    )


if __name__ == "__main__":
    sys.exit(main())
