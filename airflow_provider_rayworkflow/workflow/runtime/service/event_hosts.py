"""The actors in which tasks wait for events: one for each runtime environment, while any wait there."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import ray

from airflow_provider_rayworkflow.workflow.runtime.worker.events import EventHost

#: How many tasks of one runtime environment may wait for events at once.
MAX_EVENTS = 100_000

_MAX_EVENT_RETRIES = 10


@dataclass(slots=True, eq=False)
class UsedHost:
    """One actor, and how many tasks wait there."""

    name: str
    actor: Any
    waiting: int = 0


class EventHosts:
    """Those of one manager. It belongs to one event loop.

    :param idle_s: how long an actor stays when its last task waits no more. The next one may wait soon, and
        an actor takes about a second to start. But each version of an author's code has an environment of
        its own, so none may stay for good.
    """

    def __init__(self, *, idle_s: float = 60.0) -> None:
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self._hosts: dict[str, UsedHost] = {}

    def take(self, runtime_env: Any) -> UsedHost:
        """The host of a runtime environment, for one task, which gives it back."""
        name = json.dumps(runtime_env or {}, sort_keys=True, default=repr)
        if name not in self._hosts:
            host = ray.remote(EventHost).options(
                num_cpus=0,
                max_restarts=-1,
                # All who wait there lose a try when one listener kills the process, and another
                # one when they come back before it has restarted.
                max_task_retries=_MAX_EVENT_RETRIES,
                max_concurrency=MAX_EVENTS,
                runtime_env=runtime_env,
            )
            self._hosts[name] = UsedHost(name, host.remote())
        used = self._hosts[name]
        used.waiting += 1
        return used

    def give_back(self, used: UsedHost) -> None:
        """A task waits there no more."""
        used.waiting -= 1
        if not used.waiting:
            self._loop.call_later(self._idle_s, self._end_if_idle, used)

    def _end_if_idle(self, used: UsedHost) -> None:
        if not used.waiting and self._hosts.get(used.name) is used:
            del self._hosts[used.name]
            ray.kill(used.actor, no_restart=True)
