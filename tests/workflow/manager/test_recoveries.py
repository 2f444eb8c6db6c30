"""A restarted manager goes on with what the one before it held, but not for ever with what may end it."""

from __future__ import annotations

import pytest
from sample_records import lease
from test_submission_reader import GONE, GRAPH, InstantRunner, manager_on

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowNotResumableError
from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.manager.recoveries import recoveries_of
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.keys import WorkflowFile

pytestmark = pytest.mark.timeout(120)


async def begun(store: MemoryStore, manager_id: str) -> Manager:
    manager = manager_on(store, manager_id, runner=InstantRunner(is_endless=True))
    await manager.start()
    return manager


def kill(manager: Manager, store: MemoryStore, manager_id: str) -> None:
    """It writes nothing any more, and its process is gone."""
    manager.fence()
    WorkflowStore(store).leases.write(lease(manager_id, actor_id="actor", process=GONE))


async def test_a_workflow_of_which_each_manager_dies_at_once_stays_resumable_in_the_end() -> None:
    store = MemoryStore()

    statuses = []
    for number in range(8):
        manager = await begun(store, f"m{number}")
        if number == 0:
            await manager.submit("w", GRAPH, user_metadata={})
        statuses.append(str(await manager.queries.get_status("w")))
        kill(manager, store, f"m{number}")
    manager = await begun(store, "last")
    await manager.resume("w")  # a person may try again
    statuses.append(str(await manager.queries.get_status("w")))
    await manager.close()
    assert statuses == ["RUNNING"] * 6 + ["RESUMABLE"] * 2 + ["RUNNING"]


def claim(recoveries: int) -> Claim:
    return Claim(
        workflow_id="w",
        epoch=7,
        manager_id="m",
        claimed_at=1_000.0,
        graph_epoch=1,
        base_epoch=1,
        user_metadata={},
        recoveries=recoveries,
    )


def file(epoch: int, kind: str) -> WorkflowFile:
    return WorkflowFile(epoch=epoch, number=0, kind=kind, key="", size=1)


def test_a_recovery_counts_in_a_row_of_managers_that_died_soon_and_committed_nothing() -> None:
    files = [file(6, "journal"), file(7, "epoch")]
    assert recoveries_of(claim(recoveries=3), files, now=1_500.0) == 4
    assert recoveries_of(claim(recoveries=3), [*files, file(7, "journal")], now=1_500.0) == 1
    assert recoveries_of(claim(recoveries=3), files, now=1_600.0) == 1
    assert recoveries_of(None, files, now=1_500.0) == 1
    with pytest.raises(WorkflowNotResumableError, match="died 6 times in a row within 10 minutes"):
        recoveries_of(claim(recoveries=5), files, now=1_500.0)
