"""Runs the command that was asked for, and prints what it gives back."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from airflow_provider_rayworkflow.workflow.cli import text
from airflow_provider_rayworkflow.workflow.cli.commands import (
    cache,
    cancel,
    delete,
    event_token,
    fork,
    graph,
    local,
    logs,
    output,
    plan,
    prune,
    reindex,
    resume,
    resume_all,
    status,
    suspend,
    watch,
)
from airflow_provider_rayworkflow.workflow.cli.commands import list as listing
from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands, Parser
from airflow_provider_rayworkflow.workflow.format.shown_text import escaped, one_line

# In the order of the help.
_COMMANDS = (
    *(listing.add_to, status.add_to, watch.add_to, graph.add_to, logs.add_to),
    output.add_to,
    *(resume_all.add_to, plan.add_to, fork.add_to, resume.add_to, prune.add_to),
    *(reindex.add_to, cache.add_to),
    *(event_token.add_to, suspend.add_to, cancel.add_to, delete.add_to),
    local.add_to,
)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code.

    :param arguments: by default those of the process.
    """
    options = _parser().parse_args(arguments)
    try:
        answer: Answer = options.command(options)
        shown = _json(answer.value) if options.json else answer.text
        if shown is not None:
            print(escaped(shown), flush=True)
        problems = answer.problems
    except BrokenPipeError:  # of ``| head``; Python would complain once more at its exit
        _close_stdout()
        return 0
    except Exception as exc:  # Ray and storages raise of every kind; a traceback helps no user
        problems = (text.first_line(exc),)
        if isinstance(exc, OSError) and not isinstance(exc, ConnectionError):
            _close_stdout()  # a full disk, perhaps, which Python would meet again at its exit
    for problem in problems:
        print(f"rayworkflow: {one_line(problem)}", file=sys.stderr)
    return 1 if problems else 0


def _parser() -> Parser:
    parser = Parser(
        prog="rayworkflow", description="Look at durable Ray workflows, and act on them."
    )
    commands = Commands(parser)
    for add_to in _COMMANDS:
        add_to(commands)
    return parser


def _close_stdout() -> None:
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _json(value: Any) -> str:
    # DEL is the one character that a terminal obeys and JSON leaves as it is.
    return json.dumps(value, indent=2).replace("\x7f", "\\u007f")
