"""Whatever managers and visitors do, and wherever they die, a watch ends up with what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from change_log_rows import LogWriter, NoNotes
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sample_records import lease, status_record

from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.change_logs import KEPT_S
from airflow_provider_rayworkflow.workflow.storage.keys import change_log_key
from airflow_provider_rayworkflow.workflow.storage.status_documents import status_key
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader
from airflow_provider_rayworkflow.workflow.storage.status_watch import StatusWatch

WORKFLOWS = ["a", "b"]


@dataclass(eq=False)
class Writer:
    """A manager, or a visitor.

    :ivar acts: what it is about, by workflow: the name of the next step, and the steps that are left.
    :ivar looks: how many looks there were when its log was written last.
    """

    id: str
    log: LogWriter
    is_manager: bool = True
    is_dead: bool = False
    has_log: bool = True
    looks: int = 0
    acts: dict[str, tuple[str, Iterator[str]]] = field(default_factory=dict)


class Agreement(RuleBasedStateMachine):
    """A small world. Each step of an act is a rule of its own, so that anything comes in between."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.store = WorkflowStore(MemoryStore()).with_notes(NoNotes())
        self.reader = StatusReader(self.store, patient=True)
        # Without the check of one status every 30 s, which would find everything in the end.
        self.watch = StatusWatch(self.reader, lambda: self.now, check_s=float("inf"))
        self.writers: list[Writer] = []
        self.records: dict[str, StatusRecord] = {}
        self.epochs = dict.fromkeys(WORKFLOWS, 0)
        self.deletions = dict.fromkeys(WORKFLOWS, 0)
        self.written: set[str] = set()
        self.looks = 0
        self.shown: dict[str, tuple[Status, str]] = {}

    # ---- what writers do, step by step: a step's name comes before it

    def start(self, writer: Writer, workflow_id: str) -> Iterator[str]:
        writer.log.look(workflow_id)
        self.flush(writer)
        self.epochs[workflow_id] += 1
        epoch = self.epochs[workflow_id]
        yield from self.write(writer, workflow_id, Status.RUNNING, epoch=epoch)

    def end(self, writer: Writer, workflow_id: str) -> Iterator[str]:
        yield "begin"
        record = self.records[workflow_id]
        if record.manager_id == writer.id:
            yield from self.write(
                writer, workflow_id, Status.SUCCESSFUL, epoch=record.epoch, number=1
            )

    def cancel(self, visitor: Writer, workflow_id: str) -> Iterator[str]:
        visitor.log.look(workflow_id)
        self.flush(visitor)
        self.epochs[workflow_id] += 1
        epoch = self.epochs[workflow_id]
        yield from self.write(visitor, workflow_id, Status.CANCELED, epoch=epoch)

    def delete(self, visitor: Writer, workflow_id: str) -> Iterator[str]:
        visitor.log.look(workflow_id)
        self.flush(visitor)
        yield "delete"
        self.store.delete(workflow_id)
        self.deletions[workflow_id] += 1
        self.records.pop(workflow_id, None)
        self.epochs[workflow_id] = 0
        yield "note"
        visitor.log.gone(workflow_id)
        self.flush(visitor, is_done=True)

    def write(
        self, writer: Writer, workflow_id: str, status: Status, *, epoch: int, number: int = 0
    ) -> Iterator[str]:
        record = status_record(
            status, workflow_id, epoch=epoch, number=number, manager_id=writer.id
        )
        earlier = self.records.get(workflow_id)
        deletions = self.deletions[workflow_id]
        yield "status"
        if self.deletions[workflow_id] != deletions:
            return
        self.written.add(status_key(record))
        self.store.write_status(record)
        latest = self.records.get(workflow_id)
        if latest is None or (latest.epoch, latest.number) < (record.epoch, record.number):
            self.records[workflow_id] = record
        yield "clean"
        if earlier is not None:
            self.store.bytes.delete([status_key(earlier)])
        yield "note"
        writer.log.note(record)
        yield "flush"
        self.flush(writer, is_done=not writer.is_manager)

    def flush(self, writer: Writer, *, is_done: bool = False) -> None:
        writer.log.flush(is_done=is_done)
        writer.looks = self.looks

    # ---- rules

    @initialize()
    def begin(self) -> None:
        for workflow_id in WORKFLOWS:
            self.add_manager()
            writer = self.writers[-1]
            self.act(writer, workflow_id, self.start(writer, workflow_id))
            while writer.acts:
                self.step_on(writer, workflow_id)
        self.watch_once()

    @precondition(lambda self: len(self.living()) < 3)
    @rule()
    def add_manager(self) -> None:
        manager = self.add_writer(is_manager=True)
        self.flush(manager)
        self.store.leases.write(lease(manager.id, ttl_s=1e6))

    def add_writer(self, *, is_manager: bool) -> Writer:
        writer_id = f"{'m' if is_manager else 'v'}{len(self.writers)}"
        writer = Writer(writer_id, LogWriter(self.store, writer_id), is_manager)
        self.writers.append(writer)
        return writer

    def living(self) -> list[Writer]:
        return [one for one in self.writers if one.is_manager and not one.is_dead]

    def free(self) -> list[str]:
        """The workflows that no living writer runs, or is about to."""
        living = {one.id for one in self.living()}
        busy = {workflow_id for _, workflow_id in self.acts()}
        return [
            workflow_id
            for workflow_id in WORKFLOWS
            if workflow_id not in busy
            and (
                (record := self.records.get(workflow_id)) is None
                or not record.status.is_active
                or record.manager_id not in living
            )
        ]

    def act(self, writer: Writer, workflow_id: str, steps: Iterator[str]) -> None:
        writer.acts[workflow_id] = ("", steps)
        self.step_on(writer, workflow_id)

    def step_on(self, writer: Writer, workflow_id: str) -> None:
        _, steps = writer.acts[workflow_id]
        if (name := next(steps, None)) is None:
            del writer.acts[workflow_id]
        else:
            writer.acts[workflow_id] = (name, steps)

    @precondition(lambda self: self.living() and self.free())
    @rule(data=st.data())
    def start_a_run(self, data: st.DataObject) -> None:
        writer = data.draw(st.sampled_from(self.living()))
        workflow_id = data.draw(st.sampled_from(self.free()))
        self.act(writer, workflow_id, self.start(writer, workflow_id))

    def running(self) -> list[tuple[Writer, str]]:
        return [
            (writer, workflow_id)
            for writer in self.living()
            for workflow_id, record in self.records.items()
            if record.manager_id == writer.id
            and record.status.is_active
            and workflow_id not in writer.acts
        ]

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def end_a_run(self, data: st.DataObject) -> None:
        writer, workflow_id = data.draw(st.sampled_from(self.running()))
        self.act(writer, workflow_id, self.end(writer, workflow_id))

    @precondition(lambda self: self.records.keys() & self.free())
    @rule(data=st.data(), is_deletion=st.booleans())
    def visit(self, data: st.DataObject, is_deletion: bool) -> None:
        workflow_id = data.draw(st.sampled_from(sorted(self.records.keys() & self.free())))
        if is_deletion or self.records[workflow_id].status.is_active:
            visitor = self.add_writer(is_manager=False)
            steps = self.delete if is_deletion else self.cancel
            self.act(visitor, workflow_id, steps(visitor, workflow_id))

    def acts(self) -> list[tuple[Writer, str]]:
        return [
            (writer, workflow_id)
            for writer in self.writers
            if not writer.is_dead
            for workflow_id in writer.acts
        ]

    @precondition(lambda self: self.acts())
    @rule(data=st.data(), steps=st.integers(1, 4))
    def go_on(self, data: st.DataObject, steps: int) -> None:
        writer, workflow_id = data.draw(st.sampled_from(self.acts()))
        for _ in range(steps):
            if workflow_id in writer.acts:
                self.step_on(writer, workflow_id)

    @precondition(lambda self: self.living() or self.acts())
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        at_work = [writer for writer, _ in self.acts()]
        writer = data.draw(st.sampled_from(at_work or self.living()))
        writer.is_dead = True
        self.store.leases.watch.know_dead([writer.id])

    def late(self) -> list[tuple[Writer, str]]:
        return [
            (writer, workflow_id)
            for writer in self.writers
            if writer.is_dead and writer.has_log
            for workflow_id, (name, _) in writer.acts.items()
            if name == "status"
        ]

    @precondition(lambda self: self.late())
    @rule(data=st.data())
    def write_late(self, data: st.DataObject) -> None:
        """A status that a writer has sent before its death arrives; nothing else does."""
        writer, workflow_id = data.draw(st.sampled_from(self.late()))
        _, steps = writer.acts.pop(workflow_id)
        next(steps, None)

    @precondition(lambda self: self.living())
    @rule(data=st.data(), left=st.integers(0, 2))
    def forget(self, data: st.DataObject, left: int) -> None:
        writer = data.draw(st.sampled_from(self.living()))
        writer.log.forget(max(0, writer.log.log.seq - left))
        self.flush(writer)

    def over(self) -> list[Writer]:
        return [
            one
            for one in self.writers
            if one.has_log and (one.is_dead or (not one.is_manager and not one.acts))
        ]

    @precondition(lambda self: self.over())
    @rule(data=st.data())
    def take_a_log(self, data: st.DataObject) -> None:
        writer = data.draw(st.sampled_from(self.over()))
        if writer.looks == self.looks:  # it stays long enough for all who look often enough
            self.now += KEPT_S
        writer.log.delete()
        writer.has_log, writer.acts = False, {}

    @precondition(lambda self: any(not one.acts for one in self.living()))
    @rule(data=st.data())
    def damage_a_log(self, data: st.DataObject) -> None:
        writer = data.draw(st.sampled_from([one for one in self.living() if not one.acts]))
        self.store.bytes.put(change_log_key(writer.id), b"{")

    @rule(seconds=st.sampled_from([0.0, 1.0, 11.0]))
    def look(self, seconds: float) -> None:
        self.now += seconds
        self.watch_once()

    def watch_once(self) -> dict[str, tuple[Status, str]]:
        self.looks += 1
        before, self.shown = self.shown, {}
        dead = {one.id for one in self.writers if one.is_dead}
        for segment, standing in self.watch.look(WORKFLOWS).items():
            assert isinstance(standing, tuple), standing
            status, key = standing
            self.shown[segment] = (status, key.key)
            assert key.key in self.written
            if status is not key.status:
                assert (status, key.status) == (Status.RESUMABLE, Status.RUNNING)
                assert key.manager_id in dead
                if before.get(segment) != self.shown[segment]:
                    assert self.store.latest_status(segment) == key, "it has ended"
        return self.shown

    def teardown(self) -> None:
        """All that lives comes to its end, and some time passes."""
        for writer, workflow_id in self.acts():
            while workflow_id in writer.acts:
                self.step_on(writer, workflow_id)
        for _ in range(3):
            self.now += 10.0
            shown = self.watch_once()
        assert shown == {
            segment: (status, key.key) for segment, status, key in self.reader.list_workflows()
        }


@pytest.mark.invariant(4)
def test_a_watch_ends_up_with_what_is_stored() -> None:
    few = settings(max_examples=300, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(Agreement, settings=few)
