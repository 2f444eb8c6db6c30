"""Environment variables that say which code the workers of a task import. Pure.

Ray gives no task a worker of another runtime environment, so these variables keep workers of different code
apart. A stored graph has those of the run that brought it; a run takes its own (:func:`with_code`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

#: On the local Ray: how the files stood that a worker may import (:func:`.code_files.code_state`).
CODE_VARIABLE = "RAYWORKFLOW_CODE"

#: Names the archives of a process: JSON with ``working_dir`` (a SHA-256 or null) and ``py_modules`` (a list
#: of them).
ARCHIVES_VARIABLE = "RAYWORKFLOW_ARCHIVES"

#: With :data:`CODE_VARIABLE`: the folders that a worker may import from.
PATH_VARIABLE = "PYTHONPATH"

#: On the local Ray: JSON with the two above, which all its processes have that are told nothing else.
BASE_VARIABLE = "RAYWORKFLOW_BASE_CODE"

_SHA256 = re.compile("[0-9a-f]{64}")


def code_of(runtime_env: Json) -> dict[str, str]:
    """Those of a runtime environment; ``{}`` where it has neither files' states nor archives."""
    variables = runtime_env.get("env_vars") or {}
    names = [name for name in (CODE_VARIABLE, ARCHIVES_VARIABLE) if variables.get(name)]
    if CODE_VARIABLE in names and variables.get(PATH_VARIABLE):
        names.append(PATH_VARIABLE)
    return {name: variables[name] for name in names}


def archives_of(code: Mapping[str, str]) -> list[str]:
    """The SHA-256 of each archive that it names, each once; what is no such name is left out."""
    try:
        named = json.loads(code.get(ARCHIVES_VARIABLE) or "{}")
        found = [named["working_dir"], *named["py_modules"]] if named else []
    except (ValueError, KeyError, TypeError):  # a program has set the variable
        return []
    return [name for name in dict.fromkeys(map(str, found)) if _SHA256.fullmatch(name)]


def base_variables(code: Mapping[str, str]) -> dict[str, str]:
    """For the processes of a local Ray that is started for code (:func:`code_of`); ``{}`` for none."""
    if CODE_VARIABLE not in code:
        return {}
    base = {name: code.get(name, "") for name in (CODE_VARIABLE, PATH_VARIABLE)}
    return {PATH_VARIABLE: base[PATH_VARIABLE], BASE_VARIABLE: json.dumps(base)}


def base_code(variables: Mapping[str, str]) -> dict[str, str]:
    """What :func:`base_variables` was told, of the environment of one of its processes; ``{}`` elsewhere."""
    base: dict[str, str] = json.loads(variables.get(BASE_VARIABLE) or "{}")
    return base


def without_base(runtime_env: Json, base: Mapping[str, str]) -> Json:
    """A runtime environment without the variables that every process has; one with other code stays.

    Ray starts a worker for each environment, in two processes one after the other; it has some for none.
    """
    variables = runtime_env.get("env_vars") or {}
    if not base or any(variables.get(name) != value for name, value in base.items()):
        return runtime_env
    others = {name: value for name, value in variables.items() if name not in base}
    rest = {name: value for name, value in runtime_env.items() if name != "env_vars"}
    return rest | ({"env_vars": others} if others else {})


def with_code(runtime_env: Json, code: Mapping[str, str]) -> Json:
    """The runtime environment of a task, with the code of its run in the place of what it was stored with.

    :param code: :func:`code_of` the run; empty: as it was stored. A task keeps a path of its own.
    """
    if not code:
        return runtime_env
    variables = dict(runtime_env.get("env_vars") or {})
    for name in (CODE_VARIABLE, ARCHIVES_VARIABLE):
        variables.pop(name, None)
    return runtime_env | {"env_vars": dict(code) | variables}
