"""The command ``rayworkflow``.

Exit codes: 0, 1 when the call failed or something was left out (a line on standard error says
what), 2 for wrong usage, 130 for Ctrl-C.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

_INTERRUPTED = 130


def program() -> NoReturn:
    """What the installed command calls: the process ends with it."""
    # Before the imports, which take longest. A traceback helps no user.
    signal.signal(signal.SIGINT, _end)
    sys.exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code.

    :param arguments: by default those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # of an ASCII terminal, too
            stream.reconfigure(errors="backslashreplace")
    try:
        from airflow_provider_rayworkflow.workflow.cli import dispatch

        return dispatch.run(arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # standard error is closed, too
        return 1


def _end(signum: int, frame: Any) -> None:
    try:  # no flush: a reader that has stopped would hold it for ever
        os.write(2, b"rayworkflow: interrupted\n")
    finally:
        os._exit(_INTERRUPTED)
