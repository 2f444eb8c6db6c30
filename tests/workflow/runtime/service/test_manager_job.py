"""The job that starts a manager stays as long as that is there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_rayworkflow.workflow.runtime.service.manager_job import wait_for_end


def manager(actor_id: str) -> Any:
    return SimpleNamespace(_actor_id=actor_id)


@pytest.mark.parametrize("last", [None, manager("b")], ids=["gone", "replaced"])
def test_it_waits_until_the_manager_is_gone_or_replaced(last: Any):
    found = iter([manager("a"), manager("a"), last])
    wait_for_end(manager("a"), lambda: next(found), sleep=lambda _: None)
    assert next(found, "all were asked for") == "all were asked for"
