"""The Airflow task as the OpenLineage parent of what its workflow's tasks report.

OpenLineage's integrations, Spark's and dbt's among them, read the parent from the environment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

Json = dict[str, Any]


def parent_variables(ti: RuntimeTaskInstanceProtocol) -> dict[str, str]:
    """``OPENLINEAGE_PARENT_ID`` and ``OPENLINEAGE_ROOT_PARENT_ID``, each ``namespace/job/run``.

    Nothing where Airflow's OpenLineage provider is not installed or not switched on.
    """
    try:
        from airflow.providers.openlineage.conf import is_disabled
        from airflow.providers.openlineage.plugins import macros
    except ImportError:
        return {}
    if is_disabled():
        return {}
    return {
        "OPENLINEAGE_PARENT_ID": macros.lineage_parent_id(ti),
        "OPENLINEAGE_ROOT_PARENT_ID": macros.lineage_root_parent_id(ti),
    }


def with_variables(runtime_env: Json | None, variables: dict[str, str]) -> Json | None:
    """A runtime environment with these variables besides; what it says itself counts more."""
    if not variables or not isinstance(runtime_env, dict | None):
        return runtime_env  # what is no dict is refused later, by name
    given = runtime_env or {}
    return {**given, "env_vars": {**variables, **(given.get("env_vars") or {})}}
