"""Local folders of a runtime environment on their way to where tasks run: as archives in the storage.

A runtime environment with local folders means the machine of the author's Airflow process. What goes into
a submission means the same everywhere: each local folder, module or wheel becomes a reference
``{"archive": "<sha256>"}``. ``working_dir`` is the archive's content, an entry of ``py_modules`` is what
is imported from it. URIs stay as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from airflow_provider_rayworkflow.exceptions import RayWorkflowInputError
from airflow_provider_rayworkflow.tries.definition import check_environment
from airflow_provider_rayworkflow.workflow.storage.archives import (
    Archive,
    ArchiveError,
    check_members,
    pack,
)

Json = dict[str, Any]

#: What stands in a submission for a local folder.
ARCHIVE = "archive"

_ZIPS = (".whl", ".zip")
# Ray's own switch for what it packs by itself.
_INCLUDE_GITIGNORE = "RAY_RUNTIME_ENV_IGNORE_GITIGNORE"


@dataclass(frozen=True, slots=True)
class PackedEnvironment:
    """A runtime environment that means the same on every machine.

    :ivar runtime_env: JSON, with references in place of local folders.
    :ivar archives: what the references name, each once.
    """

    runtime_env: Json
    archives: list[Archive]


def with_archives(runtime_env: Json | None) -> PackedEnvironment:
    """Pack the local folders that a runtime environment names: ``working_dir`` and ``py_modules``.

    Files that name packages (``pip`` and ``uv`` as the path of a requirements file) are read. Left out of a
    folder is what ``excludes`` names, and what its ``.rayignore`` and ``.gitignore`` do, as Ray has it.

    :raises RayWorkflowInputError: for what can't be packed, or is no JSON.
    """
    given = dict(check_environment(runtime_env))
    excludes = _patterns(given.pop("excludes", None))
    archives: dict[str, Archive] = {}

    def reference(value: Any, what: str, *, is_module: bool = False) -> Any:
        archive = _packed(value, what, excludes, is_module=is_module)
        if archive is None:
            return value
        archives[archive.sha256] = archive
        return {ARCHIVE: archive.sha256}

    folder, modules = given.get("working_dir"), given.get("py_modules")
    if not isinstance(modules, (list, tuple, type(None))):
        raise RayWorkflowInputError("runtime_env['py_modules'] must be a list of paths or URIs.")
    try:
        if folder is not None:
            given["working_dir"] = reference(folder, "runtime_env['working_dir']")
        if modules is not None:
            what = "An entry of runtime_env['py_modules']"
            given["py_modules"] = [reference(one, what, is_module=True) for one in modules]
    except ArchiveError as exc:
        raise RayWorkflowInputError(f"runtime_env: {exc}") from exc
    for name in ("pip", "uv"):
        if name in given:
            given[name] = _requirements(given[name], name)
    return PackedEnvironment(_as_json(given), list(archives.values()))


def _packed(value: Any, what: str, excludes: Sequence[str], *, is_module: bool) -> Archive | None:
    """The archive of something local; None for a URI, or a reference to an archive."""
    path = _local_path(_file_of(value) if is_module else value, what)
    if path is None:
        return None
    if path.is_file() and path.suffix in (_ZIPS if is_module else (".zip",)):
        return _zip(path)
    return pack(path, with_parent=is_module, is_excluded=_excluding(path, excludes))


def _file_of(value: Any) -> Any:
    """The folder or file of an imported module; anything else as it is."""
    if not isinstance(value, ModuleType):
        return value
    folders = list(getattr(value, "__path__", []))
    if len(folders) > 1:
        raise RayWorkflowInputError(
            f"runtime_env['py_modules']: the module {value.__name__!r} lies in several folders; "
            "give their paths."
        )
    return folders[0] if folders else value.__file__


def _local_path(value: Any, what: str) -> Path | None:
    """The path of something local; None for a URI, or a reference to an archive.

    :raises RayWorkflowInputError: when it is neither, or nothing is there.
    """
    if isinstance(value, dict) and set(value) == {ARCHIVE}:
        return None
    if not isinstance(value, (str, os.PathLike)):
        raise RayWorkflowInputError(f"{what} must be a path or a URI, not {value!r:.200}.")
    text = os.fspath(value)
    if "://" in str(text):
        return None
    path = Path(str(text)).expanduser()
    if not path.exists():
        raise RayWorkflowInputError(
            f"{what} is {str(value)!r:.300}, and nothing is there on this machine. Give the path of a "
            "folder that Airflow's workers see, or a URI that the cluster can read."
        )
    return path


def _zip(path: Path) -> Archive:
    """A zip or a wheel as it is.

    :raises ArchiveError: when it can't be unpacked safely.
    """
    try:
        archive = Archive.of(path.read_bytes())
        check_members(archive.data)
    except OSError as exc:
        raise ArchiveError(f"{str(path)!r} can't be read: {exc}") from exc
    except ArchiveError as exc:
        raise ArchiveError(f"{str(path)!r} can't be used. {exc}") from exc
    return archive


def _patterns(excludes: Any) -> list[str]:
    if excludes is None:
        return []
    if not isinstance(excludes, (list, tuple)) or not all(isinstance(one, str) for one in excludes):
        raise RayWorkflowInputError("runtime_env['excludes'] must be a list of patterns.")
    return list(excludes)


def _excluding(folder: Path, excludes: Iterable[str]) -> Callable[[str], bool]:
    """What Ray leaves out of a folder: each file of patterns counts by itself."""
    from pathspec import GitIgnoreSpec  # Airflow brings it; parsing DAG files needs it not

    files = [".rayignore"]
    if os.environ.get(_INCLUDE_GITIGNORE) != "1":
        files.append(".gitignore")
    patterns = [list(excludes)]
    for name in files:
        path = folder / name
        if path.is_file():
            patterns.append(path.read_text().splitlines())
    specs = [GitIgnoreSpec.from_lines(lines) for lines in patterns if lines]
    return lambda name: any(spec.match_file(name) for spec in specs)


def _requirements(value: Any, name: str) -> Any:
    """A list of packages in place of the path of a requirements file."""
    if isinstance(value, dict) and isinstance(value.get("packages"), str):
        return value | {"packages": _requirements(value["packages"], name)}
    if not isinstance(value, str):
        return value
    try:
        lines = Path(value).expanduser().read_text().splitlines()
    except OSError as exc:
        raise RayWorkflowInputError(
            f"runtime_env[{name!r}] is the path {value!r:.300}, which can't be read: {exc.strerror}. "
            "Give a list of packages, or the path of a requirements file on Airflow's workers."
        ) from exc
    return [line.strip() for line in lines if line.strip()]


def _as_json(given: Json) -> Json:
    """A copy in JSON's types.

    :raises RayWorkflowInputError: without the values, which may be secrets.
    """
    for name, value in given.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise RayWorkflowInputError(
                f"runtime_env[{name!r}] must be JSON: it goes to the cluster as a document."
            ) from None
    copy: Json = json.loads(json.dumps(given))
    return copy
