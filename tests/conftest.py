"""The environment of every test, set before anything imports Ray, and the order of the tests."""

import asyncio
import inspect
import os
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

os.environ |= {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    # On a busy machine the dashboard's agent may take longer to start than Ray allows it.
    "RAY_agent_register_timeout_ms": "180000",
    # Ray's node gives up by itself when that takes more than 15 s: waiting for it longer is in vain.
    "RAY_raylet_start_wait_time_s": "60",
    # And so may Serve's proxy.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    # Here Ray's workers share a machine with Airflow's processes and a browser, all of one session. By default
    # they give way to each of these (niceness 15), so that a busy machine leaves a manager nothing to renew
    # its lease with; on a cluster they compete with each other only.
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

# Ray authenticates, as by default; without a token it would write one into the user's home.
for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
    os.environ.pop(name, None)
if "PYTEST_XDIST_WORKER" not in os.environ:  # they inherit it
    _TOKEN = tempfile.NamedTemporaryFile("w", prefix="rayworkflow-token-")  # noqa: SIM115
    _TOKEN.write(secrets.token_hex(32))
    _TOKEN.flush()
    os.environ["RAY_AUTH_TOKEN_PATH"] = _TOKEN.name

_SHARED_RAY = Path(__file__).parent / "workflow" / "ray"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no worker is left with one when the others are done.

    Each third of these starts an Airflow: three that start at once would wait for each other.
    What shares one Ray in its process comes last: other tests want none to be up.
    """
    own_ray = [item for item in items if _SHARED_RAY not in item.path.parents]
    slow = {item.path: item for item in own_ray if item.get_closest_marker("slow")}
    live = [path for path, item in slow.items() if item.get_closest_marker("live")]
    others = [path for path in slow if path not in live]
    ranks = {path: 3 * number for number, path in enumerate(live)}
    ranks |= {path: number + number // 2 + 1 for number, path in enumerate(others)}
    last = len(items)
    items.sort(key=lambda item: (_SHARED_RAY in item.path.parents, ranks.get(item.path, last)))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine, in an event loop of its own: one of its module's ``loop_factory``, if it has one."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    given = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    factory = getattr(pyfuncitem.module, "loop_factory", None)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(pyfuncitem.obj(**given))
    return True


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table of the faults that were injected, if there were any."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    runs = [
        value
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "fault run" and report.when == "call"
    ]
    if runs:
        sys.path.append(str(Path(__file__).parent / "faults"))
        from reports import Report, table

        terminalreporter.section("faults")
        terminalreporter.write_line(table([Report(**run) for run in runs]))
