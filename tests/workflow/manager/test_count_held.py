"""How many workflows a manager holds: its cluster may end when that is none."""

from types import SimpleNamespace
from typing import Any

from airflow_provider_rayworkflow.workflow.manager.queries import Queries


def test_what_runs_or_waits_is_counted():
    known: Any = SimpleNamespace(live={})
    queries = Queries(known, resume=lambda _: NotImplemented)
    assert queries.count_held() == 0
    known.live |= {"runs": object(), "waits": object()}
    assert queries.count_held() == 2
