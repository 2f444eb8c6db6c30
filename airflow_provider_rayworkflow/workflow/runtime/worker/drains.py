"""Notices that the node of a task is being drained."""

from __future__ import annotations

import threading
from collections.abc import Callable

from airflow_provider_rayworkflow.workflow.runtime import private_ray

#: Clouds give at least 30 s from the notice to the end of a preempted machine.
_LOOK_S = 5.0


class DrainNotice:
    """Whether this node will end soon. A thread of its own looks every few seconds, until then or :meth:`close`.

    :param is_drained: asks Ray.
    :param look_s: between looks, in seconds.
    :ivar is_given: it will.
    """

    def __init__(
        self,
        is_drained: Callable[[], bool] = private_ray.is_node_drained,
        *,
        look_s: float = _LOOK_S,
    ) -> None:
        self.is_given = False
        self._is_drained = is_drained
        self._look_s = look_s
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="drain-notice", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def _watch(self) -> None:
        while not (self.is_given or self._closed.is_set()):
            try:
                self.is_given = self._is_drained()
            except Exception:  # the head does not answer, or another Ray has no such call
                self.is_given = False
            self._closed.wait(self._look_s)
