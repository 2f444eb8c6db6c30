"""No process stays for tasks that waited for events once."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_rayworkflow.workflow.runtime.service import event_hosts
from airflow_provider_rayworkflow.workflow.runtime.service.event_hosts import EventHosts

NEW_CODE = {"env_vars": {"RAYWORKFLOW_CODE": "new"}}


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the actors that were killed; in the place of Ray."""
    numbers, killed = itertools.count(1), list[int]()

    class Made:
        def options(self, **_: Any) -> Made:
            return self

        def remote(self) -> int:
            return next(numbers)

    def kill(actor: int, *, no_restart: bool) -> None:
        assert no_restart
        killed.append(actor)

    monkeypatch.setattr(event_hosts, "ray", SimpleNamespace(remote=lambda _: Made(), kill=kill))
    return killed


async def turn() -> None:
    """Let pass what is due in the loop."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_host_ends_when_its_last_task_waits_no_more(killed: list[int]):
    hosts = EventHosts(idle_s=0.0)
    first, second, other = hosts.take(None), hosts.take({}), hosts.take(NEW_CODE)
    assert (first.actor, second.actor, other.actor) == (1, 1, 2)
    hosts.give_back(first)
    await turn()
    assert killed == []
    hosts.give_back(second)
    await turn()
    assert killed == [1]
    assert hosts.take(None).actor == 3
    hosts.give_back(other)
    await turn()
    assert killed == [1, 2]


async def test_a_task_that_comes_in_time_keeps_it(killed: list[int]):
    hosts = EventHosts(idle_s=0.0)
    hosts.give_back(hosts.take(None))
    again = hosts.take(None)
    await turn()
    assert (again.actor, killed) == (1, [])
    hosts.give_back(again)
    await turn()
    assert killed == [1]
