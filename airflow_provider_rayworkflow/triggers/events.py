"""Finished workflows as events for Airflow's assets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Hashable, Sequence
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

from airflow_provider_rayworkflow.exceptions import RayWorkflowInputError
from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.completions import Completion, Completions
from airflow_provider_rayworkflow.workflow.storage.keys import quote_prefix

log = get_logger(__name__)

Json = dict[str, Any]


class RayWorkflowEventTrigger(BaseEventTrigger):
    """Fires for every workflow that ends: for an ``AssetWatcher``, so that it starts a DAG.

    An event is ``{"workflow_id", "status", "epoch"}``. What has ended before the trigger's first
    look does not fire. Then each end fires, also one that comes while no triggerer runs: the
    storage keeps which ends Airflow has stored. An end fires a second time only if the triggerer
    dies in the second or two between Airflow's storing it and that note.

    :param statuses: that count as an end, names of :class:`WorkflowStatus`.
    :param workflow_id_prefix: of the ids to look at.
    :param ray_workflow_conn_id: says where the storage is.
    """

    def __init__(
        self,
        *,
        statuses: Sequence[str] = ("SUCCESSFUL",),
        workflow_id_prefix: str = "",
        ray_workflow_conn_id: str = RayWorkflowHook.default_conn_name,
        poll_interval_s: float = 10.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow's
        ends = [status.value for status in _ENDS]
        if isinstance(statuses, str) or not set(statuses) <= set(ends) or not statuses:
            raise RayWorkflowInputError(f"statuses must be a list of {ends}, not {statuses!r}.")
        if poll_interval_s <= 0:
            raise RayWorkflowInputError(
                f"poll_interval_s must be more than 0, not {poll_interval_s!r}."
            )
        try:
            quote_prefix(workflow_id_prefix)
        except ValueError as exc:
            raise RayWorkflowInputError(f"workflow_id_prefix: {exc}") from exc
        self.statuses = sorted(statuses)
        self.workflow_id_prefix = workflow_id_prefix
        self.ray_workflow_conn_id = ray_workflow_conn_id
        self.poll_interval_s = poll_interval_s

    def serialize(self) -> tuple[str, Json]:
        return (
            "airflow_provider_rayworkflow.triggers.RayWorkflowEventTrigger",
            {
                "statuses": self.statuses,
                "workflow_id_prefix": self.workflow_id_prefix,
                "ray_workflow_conn_id": self.ray_workflow_conn_id,
                "poll_interval_s": self.poll_interval_s,
            },
        )

    def shared_stream_key(self) -> Hashable:
        """Its own: a stream of Airflow's tells what has been stored, also to a single listener."""
        return json.dumps(self.serialize(), sort_keys=True)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: Json) -> SharedStreamProducer:
        return _Ends(**kwargs)

    async def filter_shared_stream(
        self, shared_stream: AsyncIterator[Json]
    ) -> AsyncIterator[TriggerEvent]:
        async for end in shared_stream:
            yield TriggerEvent(end)  # type: ignore[no-untyped-call] # Airflow's

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Not how Airflow runs it: no call tells here what has been stored."""
        raise NotImplementedError("Airflow 3.3 takes the events from filter_shared_stream.")
        yield


_ENDS = (
    WorkflowStatus.SUCCESSFUL,
    WorkflowStatus.FAILED,
    WorkflowStatus.RESUMABLE,
    WorkflowStatus.CANCELED,
)


#: How many events Airflow may have at a time that it has not stored yet.
_MAX_ON_THE_WAY = 200
_STEP_S = 0.1


class _Ends(SharedStreamProducer):
    """The ends of workflows, each until Airflow has stored its event. Reads in threads."""

    def __init__(
        self,
        *,
        statuses: Sequence[str],
        workflow_id_prefix: str,
        ray_workflow_conn_id: str,
        poll_interval_s: float,
    ) -> None:
        self._statuses = [WorkflowStatus(status) for status in statuses]
        self._prefix = workflow_id_prefix
        self._conn_id = ray_workflow_conn_id
        self._poll_interval_s = poll_interval_s
        self._completions: Completions | None = None
        self._unconfirmed: list[Completion] = []
        self._on_the_way = 0
        self._lock = threading.Lock()  # Airflow confirms while we look

    async def open_stream(self) -> AsyncIterator[tuple[Json, Completion]]:
        while True:
            try:
                ends = await asyncio.to_thread(self._look)
            except Exception as exc:  # a watcher lives for ever: the next look may be luckier
                log.warning("The ends of workflows can't be read: %s", exc)
                ends = []
            for end in ends:
                # Airflow ends a stream of which it has to keep more than its queue takes.
                while self._on_the_way >= _MAX_ON_THE_WAY:
                    await asyncio.sleep(_STEP_S)
                self._on_the_way += 1
                yield end.to_json(), end
            await asyncio.sleep(self._poll_interval_s)

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        self._on_the_way -= len(batch)
        try:
            await asyncio.to_thread(self._settle, batch)
        except Exception as exc:  # raising would end the watcher; the next look confirms
            log.warning("The ends that were passed on can't be noted: %s", exc)

    def _look(self) -> list[Completion]:
        with self._lock:
            if self._completions is None:
                hook = RayWorkflowHook(self._conn_id)
                self._completions = Completions(
                    hook.store,
                    self._name(hook.settings.namespace),
                    statuses=self._statuses,
                    prefix=self._prefix,
                )
            self._confirm(self._completions)
            return self._completions.look()

    def _settle(self, batch: Sequence[AdvanceItem]) -> None:
        with self._lock:
            if self._completions is None:
                return
            for item in batch:
                if item.outcome.is_clean:
                    self._unconfirmed.append(item.broker_payload)
                else:
                    self._completions.give_again(item.broker_payload)
            self._confirm(self._completions)

    def _confirm(self, completions: Completions) -> None:
        if self._unconfirmed:
            completions.confirm(self._unconfirmed)
            self._unconfirmed = []

    def _name(self, namespace: str | None) -> str:
        """Different for each Airflow and each watcher that differs in anything."""
        given = [namespace, self._conn_id, self._prefix, sorted(self._statuses)]
        return hashlib.sha256(json.dumps(given).encode()).hexdigest()[:32]
