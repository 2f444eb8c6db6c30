"""The keeper's eye on the manager of one storage, in a thread: a storage may hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.shown_text import shown_text
from airflow_provider_rayworkflow.workflow.local_ray.cluster import LocalCluster
from airflow_provider_rayworkflow.workflow.storage import shown

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchTimes:
    """In seconds.

    :param look_s: between two looks.
    :param doubt_s: so long a manager counts as busy that does not say whether it is.
    """

    look_s: float = 1.0
    doubt_s: float = 600.0


class ManagerWatch:
    """Starts a manager when it is asked for, and looks how many workflows it holds.

    :param report: told the storage, why it has no manager (``""`` if it has), and whether that may be better a
        moment later.
    """

    def __init__(
        self,
        cluster: LocalCluster,
        storage: str,
        *,
        report: Callable[[str, str, bool], None],
        times: WatchTimes = WatchTimes(),
    ) -> None:
        self._cluster = cluster
        self._storage = storage
        self._location = storage
        self._report = report
        self._times = times
        self._changed = threading.Condition()
        self._is_asked = False
        self._is_up = False
        self._is_doubtful = False
        self._wanted_at = 0.0  # a look that begins no earlier
        self._looked_at = 0.0
        self._known_at = time.monotonic()  # when it was last known how many are held
        self._is_busy = True
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="manager-watch", daemon=True)
        self._thread.start()

    def ask(self, location: str) -> None:
        """Have the manager started, and the answer reported. Does not wait."""
        with self._changed:
            self._location = location
            self._is_asked = self._is_busy = True
            self._known_at = time.monotonic()
            self._changed.notify_all()

    def close(self) -> None:
        """Look no more. Does not wait for a look that is under way."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    @property
    def is_running(self) -> bool:
        """True until it has ended after :meth:`close`."""
        return self._thread.is_alive()

    @property
    def is_busy(self) -> bool:
        """True if it holds workflows, as of the last look, or if that is in doubt."""
        with self._changed:
            return self._is_busy and not self._is_lost()

    def is_idle_now(self, timeout_s: float) -> bool:
        """Look once more; True if it holds nothing, False also if it does not say in time."""
        wanted_at = time.monotonic()
        with self._changed:
            if self._is_lost():
                return True
            self._wanted_at = wanted_at
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._looked_at >= wanted_at, timeout_s)
            return self._looked_at >= wanted_at and not self._is_busy

    def _is_lost(self) -> bool:
        return time.monotonic() - self._known_at >= self._times.doubt_s

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_closed or self._is_asked or self._wanted_at > self._looked_at,
                    self._times.look_s,
                )
                if self._is_closed:
                    return
                is_asked, self._is_asked = self._is_asked, False
                begun = time.monotonic()
            if is_asked or self._is_doubtful:
                self._start(is_asked=is_asked)
            if self._is_doubtful or not self._look(begun):
                time.sleep(self._times.look_s)

    def _start(self, *, is_asked: bool) -> None:
        """Start it, also again: a manager in doubt may have died for good."""
        try:
            self._cluster.start_manager(self._storage, self._location)
        except Exception as exc:  # of Ray or of a storage: the caller is told
            log.warning("No manager for %s: %s", shown(self._storage), shown_text(str(exc)))
            # One that was up may hold workflows, and its storage may work again in a moment.
            self._is_doubtful = self._is_up
            problem = _sentence(exc)
            # Ray's error for a task has the attributes of its cause.
            is_transient = getattr(exc, "is_transient", False) is True
        else:
            self._is_up, self._is_doubtful = True, False
            log.info("The manager for %s is up", shown(self._storage))
            problem, is_transient = "", False
        if is_asked:
            self._report(self._storage, problem, is_transient)

    def _look(self, begun: float) -> bool:
        """Note how many it holds; False if it does not say."""
        try:
            held = self._cluster.held(self._storage) if self._is_up else 0
        except Exception as exc:
            log.warning("The manager of %s: %s", shown(self._storage), shown_text(str(exc)))
            with self._changed:
                self._is_doubtful = self._is_busy = True
            return False
        with self._changed:
            self._known_at = time.monotonic()
            self._looked_at = begun
            self._is_busy = held > 0 or self._is_asked
            self._changed.notify_all()
        return True


def _sentence(exc: Exception) -> str:
    text = shown_text(str(exc)).strip() or type(exc).__name__
    return text if text.endswith((".", "!", "?")) else f"{text}."
