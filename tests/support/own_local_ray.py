"""A local Ray of their own for some processes of a test; none of it stays."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_rayworkflow.workflow.local_ray.environment import FOLDER_VARIABLE
from airflow_provider_rayworkflow.workflow.local_ray.overview import end_local_ray, list_local_rays

_END_TIMEOUT_S = 60.0


class OwnLocalRay:
    """Not below pytest's folder, whose paths are too long for sockets.

    :ivar environment: for the processes that shall use it.
    """

    def __init__(self) -> None:
        self._root = tempfile.mkdtemp(prefix="rayworkflow-local-")
        self.environment = {FOLDER_VARIABLE: self._root}

    def end(self) -> None:
        for local_ray in list_local_rays(self._root):
            end_local_ray(local_ray, timeout_s=_END_TIMEOUT_S)
        shutil.rmtree(self._root, ignore_errors=True)


@contextmanager
def own_local_ray() -> Iterator[OwnLocalRay]:
    """One that ends with the context."""
    made = OwnLocalRay()
    try:
        yield made
    finally:
        made.end()
