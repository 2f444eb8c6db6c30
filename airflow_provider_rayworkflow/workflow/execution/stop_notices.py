"""Tells attempts that they are to be stopped, and stops them a while later.

Only an attempt whose worker listens gets that while: others can't use it.
"""

from __future__ import annotations

import asyncio

from airflow_provider_rayworkflow.workflow.scheduling.attempts import Errand, Runner

#: How long an attempt that listens may go on, in seconds, if its task does not say.
STOP_GRACE_S = 0.5


class StopNotices:
    """The notices of one run. It belongs to one event loop.

    :param runner: stops the attempts.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._listening: dict[Errand, asyncio.Future[None]] = {}
        self._due: dict[Errand, asyncio.TimerHandle] = {}

    def listen(self, errand: Errand) -> asyncio.Future[None]:
        """Done as soon as an attempt is to be stopped, or has ended: its worker may not know that yet."""
        notice = self._listening.get(errand)
        if notice is None:
            notice = self._listening[errand] = asyncio.get_running_loop().create_future()
        return notice

    def stop(self, errand: Errand, *, at_once: bool = False) -> None:
        """Stop an attempt, when the grace of its task is over if it listens.

        :param at_once: without that, also if it has been told before.
        """
        notice = self._listening.get(errand)
        if notice is None or at_once:
            self._runner.stop(errand)
        elif errand not in self._due:
            _tell(notice)
            grace_s = errand.run.stop_grace_s
            loop = asyncio.get_running_loop()
            self._due[errand] = loop.call_later(
                STOP_GRACE_S if grace_s is None else grace_s, self._runner.stop, errand
            )

    def ended(self, errand: Errand) -> None:
        """An attempt has ended: what its worker still does is of no use."""
        if not self._listening:
            return
        notice = self._listening.pop(errand, None)
        if notice is not None:
            _tell(notice)
        if (due := self._due.pop(errand, None)) is not None:
            due.cancel()


def _tell(notice: asyncio.Future[None]) -> None:
    if not notice.done():
        notice.set_result(None)
