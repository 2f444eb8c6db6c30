"""The environment of every test, set before anything imports Ray, and the order of the tests."""

import os
from pathlib import Path

import pytest

os.environ |= {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    # On a busy machine the dashboard's agent may take longer to start than Ray allows it.
    "RAY_agent_register_timeout_ms": "180000",
    # And so may Serve's proxy.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    # With a token, Ray writes one into the user's home.
    "RAY_AUTH_MODE": "disabled",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

_SHARED_RAY = Path(__file__).parent / "workflow" / "ray"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no worker is left with one when the others are done.

    What shares one Ray in its process comes last: other tests want none to be up.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (_SHARED_RAY in item.path.parents, item.path not in slow))
