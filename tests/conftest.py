"""The environment of every test: set before anything imports Ray."""

import os

os.environ |= {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    # On a busy machine the dashboard's agent may take longer to start than Ray allows it.
    "RAY_agent_register_timeout_ms": "180000",
    # With a token, Ray writes one into the user's home.
    "RAY_AUTH_MODE": "disabled",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
