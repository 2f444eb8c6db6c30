"""How the code blocks of a page are found and run.

``python`` blocks of a page run one after the other in one namespace, on workflows in this process;
``bash`` blocks each in an empty folder, where ``make`` only looks whether it knows the targets, and
``rayworkflow local`` finds no local Ray;
``json`` is parsed. Blocks in other languages are shown,
not run. A comment ``<!-- skip: next "tests/…py" -->`` before a block names the test that runs it.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import SkipTest

from markdown_it import MarkdownIt
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

from airflow_provider_rayworkflow.workflow.local_ray.environment import FOLDER_VARIABLE
from airflow_provider_rayworkflow.workflow.testing import in_process

ROOT = Path(__file__).parents[2]

RUN = {"python", "bash", "json"}
# What a program prints, and what changes between two versions of one.
SHOWN = {"text", "diff"}


def languages(page: Path) -> list[str]:
    """The info strings of a page's fenced blocks."""
    tokens = MarkdownIt().parse(page.read_text())
    return [token.info.strip() for token in tokens if token.type == "fence"]


def run_blocks(page: Path) -> Iterator[str]:
    """Run the blocks of a page, in order.

    :returns: what the skipped ones give as the reason.
    """
    document = Sybil(
        [
            PythonCodeBlockParser(),
            CodeBlockParser("bash", _run_bash),
            CodeBlockParser("json", _parse_json),
            SkipParser(),
        ]
    ).parse(page)
    document.namespace["ROOT"] = ROOT
    with in_process(), tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for example in document.examples():
            try:
                example.evaluate()
            except SkipTest as skipped:
                yield str(skipped)


def _run_bash(example: Example) -> None:
    make = f'make() {{ command make --dry-run --directory {ROOT} "$@" >make.out; }}'
    command = f"{make}\n{example.parsed}\nenv --null >environment\n"
    with tempfile.TemporaryDirectory(prefix="rayworkflow-docs-") as folder:
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder,
            env=os.environ
            | {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                FOLDER_VARIABLE: f"{folder}/local",
            },
            check=True,
            timeout=120,
        )
        for line in Path(folder, "environment").read_text().split("\0"):
            if line.startswith("AIRFLOW_CONN_"):
                _check_connection(*line.split("=", 1))


def _check_connection(variable: str, value: str) -> None:
    from airflow.sdk import Connection

    from airflow_provider_rayworkflow.connection.settings import ConnectionSettings

    conn_id = variable.removeprefix("AIRFLOW_CONN_").lower()
    ConnectionSettings.from_connection(Connection.from_json(value, conn_id=conn_id))


def _parse_json(example: Example) -> None:
    json.loads(example.parsed)
