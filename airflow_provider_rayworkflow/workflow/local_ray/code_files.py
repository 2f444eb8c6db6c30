"""How the files stand that the local Ray's workers may import: another state, other workers.

Ray gives a task no worker of another runtime environment. So a variable that says how the files stand keeps
workers apart that have imported an older version of a module.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from airflow_provider_rayworkflow.workflow.model.code_variables import CODE_VARIABLE, PATH_VARIABLE
from airflow_provider_rayworkflow.workflow.storage.archives import is_virtual_environment

# A look at this many takes about a tenth of a second.
_MOST_FILES = 20_000
_OF_PYTHON = ("stdlib", "platstdlib", "purelib", "platlib")
_NO_CODE = frozenset({"__pycache__", ".git", "node_modules"})


def with_files_of_now(code: Mapping[str, str]) -> dict[str, str]:
    """What a stored graph says of its workers' code (:func:`.code_of`), with its files as they stand now.

    Reads the folders' entries; code that is not in such files stays.
    """
    if CODE_VARIABLE not in code:
        return dict(code)
    paths = [path for path in code.get(PATH_VARIABLE, "").split(os.pathsep) if path]
    return dict(code) | {CODE_VARIABLE: code_state(paths)}


def code_state(paths: Sequence[str]) -> str:
    """A digest that changes with every file below some folders, but for those of Python's environment.

    Packages that are installed to be edited (``pip install -e``) count, too, wherever they are. Of names, sizes
    and times, not of contents. A virtual environment in one of the folders is passed over, as
    ``__pycache__``, ``node_modules`` and ``.git`` are. Where there are more than 20,000 files, it is another one
    each time.
    """
    digest = hashlib.sha256()
    count = 0
    folders = dict.fromkeys(os.path.realpath(path) for path in [*paths, *_editable_places()])
    seen = set(folders)
    for path in folders:
        if _is_of_python(path):
            continue
        for name, found in _files(path, seen):
            count += 1
            if count > _MOST_FILES:
                return uuid.uuid4().hex
            digest.update(
                f"{name}\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ino}\n".encode()
            )
    return digest.hexdigest()[:32]


def _editable_places() -> Iterator[str]:
    """Where the packages are that setuptools makes known by a finder, and so by no folder of the path."""
    for finder in sys.meta_path:
        name = getattr(finder, "__module__", None) or ""
        if name.startswith("__editable__"):
            found = getattr(sys.modules.get(name), "MAPPING", None)
            yield from map(str, found.values()) if isinstance(found, dict) else ()


def _is_of_python(path: str) -> bool:
    """True for what changes with an installation only: a running Ray keeps to its own."""
    # Not all below sys.prefix: DAGs may be in /usr/local/airflow.
    return any(Path(path).is_relative_to(folder) for folder in _folders_of_python())


@cache
def _folders_of_python() -> frozenset[str]:
    return frozenset(os.path.realpath(sysconfig.get_path(name)) for name in _OF_PYTHON)


def _files(path: str, seen: set[str]) -> Iterator[tuple[str, os.stat_result]]:
    """The files below a folder, or the one of a path, in an order that does not change.

    :param seen: the folders that no link leads to any more: a link may lead to a folder around it.
    """
    try:
        if os.path.isfile(path):
            yield path, os.stat(path)
            return
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        try:
            if entry.is_dir():
                if _may_have_code(entry) and _is_new(entry, seen):
                    yield from _files(entry.path, seen)
            elif entry.is_file():
                yield entry.path, entry.stat()
        except OSError:
            continue  # gone since


def _may_have_code(folder: os.DirEntry[str]) -> bool:
    """False for tools' folders and environments of Python; a folder on the path itself always counts."""
    return (
        folder.name not in _NO_CODE
        and not is_virtual_environment(folder.path)
        and not _is_of_python(folder.path)
    )


def _is_new(folder: os.DirEntry[str], seen: set[str]) -> bool:
    if not folder.is_symlink():
        return True
    target = os.path.realpath(folder.path)
    if target in seen:
        return False
    seen.add(target)
    return True
