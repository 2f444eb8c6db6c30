"""Notices that the node of a task is being drained."""

from __future__ import annotations

import threading

from airflow_provider_rayworkflow.workflow.runtime import private_ray

#: Clouds give at least 30 s from the notice to the end of a preempted machine.
_LOOK_S = 5.0


class DrainNotice:
    """Whether this node will end soon. A thread of its own looks every few seconds, until then or :meth:`close`.

    :ivar is_given: it will.
    """

    def __init__(self) -> None:
        self.is_given = False
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="drain-notice", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def _watch(self) -> None:
        while not (self.is_given or self._closed.is_set()):
            try:
                self.is_given = private_ray.is_node_drained()
            except Exception:  # the head does not answer, or another Ray has no such call
                self.is_given = False
            self._closed.wait(_LOOK_S)
