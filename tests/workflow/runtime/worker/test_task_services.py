"""What an attempt's services note of it: whether it is busy, and where its manager is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_rayworkflow.workflow.model.graph import Shape
from airflow_provider_rayworkflow.workflow.runtime.worker.log_capture import into
from airflow_provider_rayworkflow.workflow.runtime.worker.services import Services
from airflow_provider_rayworkflow.workflow.runtime.worker.task_log import TaskLog
from airflow_provider_rayworkflow.workflow.scheduling.attempts import TaskRun
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.keys import epoch_key

RUN = TaskRun(*("w", 1, "a", 1, b"", ((), Shape()), b"", ()), checkpoint=True, wants_json=False)

_seen: list[bool] = []


class Noting:
    """Notes while it is pickled and unpickled whether its attempt is busy."""

    def __init__(self, log: TaskLog) -> None:
        self._log = log

    def __reduce__(self) -> Any:
        _seen.append(self._log.is_busy)
        return _note, ()


def _note() -> str:
    _seen.append(_logs[0].is_busy)
    return "state"


_logs: list[TaskLog] = []


@pytest.fixture
def log() -> Iterator[TaskLog]:
    log = TaskLog(RUN)
    _logs[:], _seen[:] = [log], []
    with into(log):
        yield log


@pytest.fixture
def services(log: TaskLog) -> Services:
    store = MemoryStore()
    store.put(epoch_key("w", 1), b"claim")
    return Services(WorkflowStore(store), RUN)


def test_an_attempt_is_busy_while_its_state_is_pickled_and_unpickled(services, log):
    services.save(Noting(log))
    assert not log.is_busy
    assert services.saved() == "state"
    assert not log.is_busy
    assert len(_seen) >= 2
    assert all(_seen)


def test_an_attempt_is_busy_from_the_end_of_its_function_on(services, log):
    services.close()
    assert log.is_busy


def test_an_attempt_that_has_ended_gets_no_folder(services):
    services.close()
    with pytest.raises(RuntimeError, match="has ended"):
        _ = services.folder
