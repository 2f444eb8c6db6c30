"""The code that this process can import, for the local Ray's workers: always as it is now."""

from __future__ import annotations

import os
import sys
import sysconfig
from itertools import takewhile
from typing import Any

from airflow_provider_rayworkflow.tries.definition import check_environment
from airflow_provider_rayworkflow.workflow.local_ray.code_files import code_state
from airflow_provider_rayworkflow.workflow.model.code_variables import CODE_VARIABLE, PATH_VARIABLE

Json = dict[str, Any]


def with_code_of_this_process(runtime_env: Json | None) -> Json:
    """A runtime environment in which workers import what this process can, as its files are now.

    Folders of a ``PYTHONPATH`` that it has come first.

    :raises RayWorkflowInputError: as :func:`check_environment`.
    """
    given = check_environment(runtime_env)
    variables = given.get("env_vars") or {}
    paths = [path for path in variables.get(PATH_VARIABLE, "").split(os.pathsep) if path]
    paths += [_absolute(path) for path in sys.path if path]
    own = {PATH_VARIABLE: os.pathsep.join(paths), CODE_VARIABLE: code_state(paths)}
    return given | {"env_vars": variables | own}


def can_be_of_all(runtime_env: Json | None) -> bool:
    """True if all processes of a local Ray may have the path of this one, Ray's own among them.

    False where an author's folder comes before Python's own modules: then only what is the author's imports
    from there.
    """
    if ((runtime_env or {}).get("env_vars") or {}).get(PATH_VARIABLE):
        return False
    pythons = sysconfig.get_path("stdlib")
    first = takewhile(lambda path: path != pythons, sys.path)
    allowed = {*os.environ.get(PATH_VARIABLE, "").split(os.pathsep), sysconfig.get_path("scripts")}
    return all(path in allowed or not os.path.isdir(path) for path in first)


def _absolute(path: str) -> str:
    """The path as a process with another working folder finds it; what is no path stays."""
    return os.path.abspath(path) if os.path.exists(path) else path
