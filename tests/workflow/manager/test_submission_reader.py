"""A manager finds submissions in the storage, begins each one once, and answers it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import sample_records
from faulty import FaultyStore, Killed
from waiting import until

from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError, DataSaveError
from airflow_provider_rayworkflow.workflow.format.documents import load_frames
from airflow_provider_rayworkflow.workflow.format.signing import SIGNING_KEY_VARIABLE, SigningKeys
from airflow_provider_rayworkflow.workflow.local_ray.code_files import code_state
from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.manager.registry import Intervals
from airflow_provider_rayworkflow.workflow.manager.submission_reader import (
    MOST_AT_ONCE,
    BuildError,
    RefusedError,
)
from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.limits import Limits
from airflow_provider_rayworkflow.workflow.model.records import (
    ORIGIN_KEY,
    Encoding,
    Form,
    Result,
    TaskFailure,
    TaskTimes,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.scheduling.attempts import Errand, Lost, Returned
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.archives import Archive, ArchiveStore
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore, Data, buffers
from airflow_provider_rayworkflow.workflow.storage.leases import Process
from airflow_provider_rayworkflow.workflow.storage.mailbox import (
    ANYBODY,
    Mailbox,
    Owner,
    StopRequest,
    Submission,
    SubmissionAnswer,
)

pytestmark = pytest.mark.timeout(120)

GRAPH = Graph(
    tasks=[
        Task(name="a", function=0, arguments=0),
        Task(name="b", function=0, arguments=0, upstream=(0,)),
    ],
    blobs=[b""],
).to_bytes()
SUBMISSION = sample_records.submission(user_metadata={"of": "the try"}, cluster="here")
RESULT = Result(form=Form.VALUE, encoding=Encoding.JSON, inline=b"1")
INTERVALS = Intervals(poll_s=0.01, retry_s=0.01, submissions_s=0.01, watch_s=0.01)


class InstantRunner:
    """A task ends at once, or never."""

    def __init__(self, *, is_endless: bool = False) -> None:
        self._is_endless = is_endless
        self.started: Counter[str] = Counter()

    def start(self, errand: Errand) -> None:
        self.started[errand.run.task_id] += 1
        if not self._is_endless:
            times = TaskTimes(started_at=1.0, ended_at=2.0, attempt=1)
            end = Returned(result=RESULT, times=times)
            asyncio.get_running_loop().call_soon(errand.on_done, end)

    def stop(self, errand: Errand) -> None:
        if self._is_endless:
            task_id = errand.run.task_id
            gone = TaskFailure(
                task_id=task_id, type="", message="", traceback="", cause=Cause.SYSTEM
            )
            asyncio.get_running_loop().call_soon(errand.on_done, Lost(failure=gone))


@dataclass
class InProcessBuilder:
    """Gives the same graph, or error, for every submission.

    :ivar before: is awaited in each build.
    """

    graph: bytes | None = GRAPH
    error: Exception | None = None
    before: Callable[[Submission], Awaitable[object]] | None = None
    built: list[str] = field(default_factory=list)

    async def build(self, submission: Submission) -> bytes | None:
        self.built.append(submission.submission_id)
        if self.before is not None:
            await self.before(submission)
        if self.error is not None:
            raise self.error
        return self.graph


class RecordingStore(FaultyStore):
    """Writes down which runs have begun, and counts reads and listings.

    :ivar begun: the epochs of "w" that got a first status which is active, with their claims.
    """

    def __init__(self, store: ByteStore) -> None:
        super().__init__(store)
        self._claims: dict[int, dict[str, Any]] = {}
        self.begun: dict[int, dict[str, Any]] = {}
        self.reads: Counter[str] = Counter()

    def put(self, key: str, data: Data) -> None:
        name = keys.parse_status_key(key)
        if name is not None and name.number == 0 and name.status.is_active:
            self.begun[name.epoch] = self._claims[name.epoch]
        super().put(key, data)

    def put_if_absent(self, key: str, data: Data) -> bool:
        is_new = super().put_if_absent(key, data)
        if is_new and key.endswith(".epoch"):
            claim, _ = load_frames(key, "epoch", b"".join(buffers(data)))
            self._claims[claim["epoch"]] = claim
        return is_new

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self.reads[key] += 1
        return super().get(key, start, length)

    def list(self, folder: str) -> Any:
        self.reads[folder] += 1
        return super().list(folder)


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> RecordingStore:
    inner = MemoryStore() if request.param == "memory" else LocalStore(tmp_path)
    return RecordingStore(inner)


@pytest.fixture
def memory() -> RecordingStore:
    return RecordingStore(MemoryStore())


def manager_on(
    store: ByteStore,
    manager_id: str = "m",
    *,
    cluster: str = "here",
    builder: InProcessBuilder | None = None,
    runner: InstantRunner | None = None,
    limits: Limits | None = None,
    actor_id: str = "actor",
    process: Process | None = None,
    intervals: Intervals = INTERVALS,
) -> Manager:
    return Manager(
        store=WorkflowStore(store),
        runner=runner or InstantRunner(),
        manager_id=manager_id,
        actor_id=actor_id,
        limits=limits or Limits(),
        process=process,
        intervals=intervals,
        cluster=cluster,
        builder=builder or InProcessBuilder(),
    )


@asynccontextmanager
async def managing(store: ByteStore, manager_id: str = "m", **given: Any) -> AsyncIterator[Manager]:
    manager = manager_on(store, manager_id, **given)
    await manager.start()
    try:
        yield manager
    finally:
        await manager.close()


async def answered(store: ByteStore, submission: Submission = SUBMISSION) -> SubmissionAnswer:
    """The answer, as soon as the submission is gone."""
    mailbox = Mailbox(store)
    key = keys.submission_key(submission.workflow_id, submission.submission_id)
    await until(lambda: key not in mailbox.list_submissions())
    answer = mailbox.read_answer(submission.workflow_id, submission.submission_id)
    assert answer is not None
    return answer


async def ended(store: ByteStore, workflow_id: str = "w") -> WorkflowStatus:
    found = WorkflowStore(store)

    def is_over() -> bool:
        name = found.latest_status(workflow_id)
        return name is not None and not name.status.is_active

    await until(is_over)
    name = found.latest_status(workflow_id)
    assert name is not None
    return name.status


async def run_before(store: ByteStore) -> None:
    """Let there be a successful workflow of that id."""
    async with managing(store, "before", cluster="", actor_id="earlier") as manager:
        await manager.submit("w", GRAPH, user_metadata={})
        assert await ended(store) is WorkflowStatus.SUCCESSFUL


async def test_a_submission_is_run_once_answered_and_deleted(store):
    builder, runner = InProcessBuilder(), InstantRunner()
    async with managing(store, builder=builder, runner=runner):
        Mailbox(store).submit(SUBMISSION)
        answer = await answered(store)
        assert (answer.outcome, answer.message) == ("accepted", "")
        assert await ended(store) is WorkflowStatus.SUCCESSFUL
        await asyncio.sleep(0.05)
    assert builder.built == ["try-1"]
    assert runner.started == {"a": 1, "b": 1}
    record = WorkflowStore(store).read_status("w")
    assert record is not None
    assert record.user_metadata == {"of": "the try"}
    assert store.begun[1]["submission_id"] == "try-1"


class CodeRunner(InstantRunner):
    """Notes the code of each attempt. The task "b" is lost with its worker until that is called off."""

    def __init__(self) -> None:
        super().__init__()
        self.code: list[tuple[str, str]] = []
        self.loses_b = True

    def start(self, errand: Errand) -> None:
        task_id = errand.run.task_id
        self.code.append((task_id, dict(errand.run.code).get("RAYWORKFLOW_CODE", "")))
        if task_id != "b" or not self.loses_b:
            super().start(errand)
            return
        gone = TaskFailure(task_id=task_id, type="", message="", traceback="", cause=Cause.SYSTEM)
        lost = Lost(failure=gone, retryable=False)
        asyncio.get_running_loop().call_soon(errand.on_done, lost)


@pytest.mark.parametrize("is_recovered", [False, True], ids=["resumed", "recovered"])
async def test_a_run_of_the_stored_graph_has_the_code_as_it_is_now(memory, tmp_path, is_recovered):
    """Its author has fixed a module since; workers that have imported the one before may live yet."""
    module = tmp_path / "module.py"
    module.write_text("a bug")
    paths = [str(tmp_path)]
    code = {"RAYWORKFLOW_CODE": code_state(paths), "PYTHONPATH": str(tmp_path)}
    graph = replace(Graph.from_bytes(GRAPH), code=code).to_bytes()
    before = ("a", code["RAYWORKFLOW_CODE"]), ("b", code["RAYWORKFLOW_CODE"])

    runner, builder = CodeRunner(), InProcessBuilder(graph=graph)
    async with managing(memory, "m", runner=runner, builder=builder) as manager:
        Mailbox(memory).submit(SUBMISSION)
        await answered(memory)
        assert await ended(memory) is WorkflowStatus.RESUMABLE
        assert runner.code == [*before]
        module.write_text("the fix, which is longer")
        runner.loses_b, builder.graph = False, None
        if is_recovered:
            await manager.resume("w")
        else:
            Mailbox(memory).submit(replace(SUBMISSION, submission_id="again", workflow=""))
            await answered(memory, replace(SUBMISSION, submission_id="again"))
        assert await ended(memory) is WorkflowStatus.SUCCESSFUL
    assert runner.code == [*before, ("b", code_state(paths))]
    assert code_state(paths) != code["RAYWORKFLOW_CODE"]


async def test_a_workflow_that_a_task_has_started_keeps_the_archives_of_its_code(memory):
    """Its caller may be deleted, and it may be resumed after that."""
    archive, archives = Archive.of(b"code"), ArchiveStore(memory)
    named = {"working_dir": None, "py_modules": [archive.sha256]}
    code = {"RAYWORKFLOW_ARCHIVES": json.dumps(named)}
    graph = replace(Graph.from_bytes(GRAPH), code=code).to_bytes()

    async with managing(memory, builder=InProcessBuilder(graph=graph)) as manager:
        archives.use("w", archive, now=1.0)  # as its try does
        Mailbox(memory).submit(SUBMISSION)
        await answered(memory)
        assert await ended(memory) is WorkflowStatus.SUCCESSFUL
        assert archives.used_by("w") == [archive.sha256]
        await manager.submit("child", graph, user_metadata={})
        assert await ended(memory, "child") is WorkflowStatus.SUCCESSFUL
    WorkflowStore(memory).delete("w")
    assert archives.used_by("child") == [archive.sha256]
    assert archives.read(archive.sha256) == archive
    WorkflowStore(memory).delete("child")
    assert list(memory.list("v1/archives")) == []


async def test_a_manager_writes_no_use_of_an_archive_that_a_try_has_written(memory):
    named = {"working_dir": "a" * 64, "py_modules": []}
    code = {"RAYWORKFLOW_ARCHIVES": json.dumps(named)}
    graph = replace(Graph.from_bytes(GRAPH), code=code).to_bytes()

    async with managing(memory, builder=InProcessBuilder(graph=graph)):
        Mailbox(memory).submit(SUBMISSION)
        assert (await answered(memory)).outcome == "accepted"
    assert ArchiveStore(memory).used_by("w") == []


async def test_the_lease_of_a_manager_names_its_cluster(memory):
    async with managing(memory):
        lease = WorkflowStore(memory).leases.read("m")
        assert lease is not None
        assert lease.cluster == "here"


async def test_each_submission_is_taken_by_the_manager_of_its_cluster_and_version(memory):
    here, there = InProcessBuilder(), InProcessBuilder()
    mailbox = Mailbox(memory)
    for number, cluster in enumerate(["here", "there", "", "elsewhere", "there"]):
        workflow_id = f"w{number}"
        mailbox.submit(replace(SUBMISSION, workflow_id=workflow_id, cluster=cluster))
    mailbox.submit(replace(SUBMISSION, workflow_id="w5", package_version="another"))
    async with (
        managing(memory, "m", builder=here, actor_id="a"),
        managing(memory, "n", builder=there, cluster="there", actor_id="b"),
    ):
        await until(lambda: len(mailbox.list_submissions()) == 3)
        await asyncio.sleep(0.05)
    left = [mailbox.read_submission(key) for key in mailbox.list_submissions()]
    assert [one.cluster for one in left] == ["", "elsewhere", "here"]
    assert left[2].package_version == "another"
    assert (len(here.built), len(there.built)) == (1, 2)


@pytest.mark.invariant(5)
@pytest.mark.parametrize("on_existing", ["resume", "restart"])
async def test_two_managers_that_find_the_same_submission_run_it_once(store, on_existing):
    """As when a manager was replaced and its successor sees what it has begun to take."""

    if on_existing == "restart":
        await run_before(store)
    before = max(store.begun, default=0)
    both = asyncio.Barrier(2)
    builder = InProcessBuilder(before=lambda _: both.wait())
    Mailbox(store).submit(replace(SUBMISSION, on_existing=on_existing))
    async with (
        managing(store, "m", builder=builder, actor_id="a"),
        managing(store, "n", builder=builder, actor_id="b"),
    ):
        assert (await answered(store)).outcome == "accepted"
        assert await ended(store) is WorkflowStatus.SUCCESSFUL
        await asyncio.sleep(0.1)
    assert len(builder.built) == 2
    assert [epoch for epoch in store.begun if epoch > before] == [before + 1]


async def test_a_manager_that_builds_for_too_long_finds_the_submission_done(memory):
    """The try has read the answer, and a person has started the workflow over since."""

    may_go_on = asyncio.Event()
    slow = InProcessBuilder(before=lambda _: may_go_on.wait())
    mailbox = Mailbox(memory)
    mailbox.submit(replace(SUBMISSION, on_existing="restart"))
    async with managing(memory, "slow", builder=slow, actor_id="a"):
        await until(lambda: slow.built)
        async with managing(memory, "fast", actor_id="b"):
            assert (await answered(memory)).outcome == "accepted"
            assert await ended(memory) is WorkflowStatus.SUCCESSFUL
        mailbox.delete_answer("w", "try-1")
        may_go_on.set()
        await asyncio.sleep(0.1)
    assert list(memory.begun) == [1]
    assert mailbox.read_answer("w", "try-1") is None


GONE = replace(Process.current(), pid=2**22 + 1, started="1")


async def die_at(store: ByteStore, at: int, how: str) -> bool:
    """Have a manager take the submission, and die at one of its writes; False if it survives."""
    faulty = FaultyStore(store, at=at, how=how)
    manager = manager_on(faulty, "first", process=GONE)
    with contextlib.suppress(Killed):
        await manager.start()
    done = asyncio.ensure_future(_both_done(store))
    died = asyncio.wrap_future(faulty.died)
    await asyncio.wait([done, died], return_when=asyncio.FIRST_COMPLETED)
    if died.done():
        done.cancel()
        return True
    with contextlib.suppress(Killed):  # where the lease is given back, nothing is left to be done
        await manager.close()
    return False


async def _both_done(store: ByteStore) -> None:
    await answered(store)
    await ended(store)
    await asyncio.sleep(0.02)  # deletes what its last status replaces


def die(store: ByteStore, at: int, how: str) -> bool:
    """As a process: what it has begun ends with it."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: None)  # tasks that end by Killed
    with contextlib.closing(loop):
        has_died = loop.run_until_complete(die_at(store, at, how))
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        with contextlib.suppress(BaseException):
            loop.run_until_complete(asyncio.wait(left, timeout=0.1))
        return has_died


async def take_what_is_left(store: RecordingStore, actor_id: str) -> None:
    async with managing(store, "second", actor_id=actor_id) as manager:
        assert (await answered(store)).outcome == "accepted"
        if actor_id != "actor":
            await manager.resume("w")  # as its try does, where the first manager was running it
        assert await ended(store) is WorkflowStatus.SUCCESSFUL


@pytest.mark.invariant(5)
@pytest.mark.parametrize("asked", ["new", "restart", "from a task", "from a task, by anybody"])
@pytest.mark.parametrize(
    ("kind", "how", "successor"),
    [
        ("memory", "before", "the same actor"),
        ("memory", "after", "the same actor"),
        ("memory", "after", "another actor"),
        ("local", "torn", "another actor"),
    ],
)
def test_a_manager_dies_at_any_write_and_the_submission_runs_once(
    kind: str, asked: str, successor: str, how: str, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "new": {},
        "restart": {"on_existing": "restart"},
        "from a task": {"workflow": "", "from_task": "b"},
        "from a task, by anybody": {"workflow": "", "from_task": "b"} | by_anybody(epoch=1),
    }[asked]
    submission = replace(SUBMISSION, **changes)
    for at in itertools.count():
        folder = tmp_path / str(at)
        folder.mkdir()
        store = RecordingStore(MemoryStore() if kind == "memory" else LocalStore(folder))
        if asked != "new":
            asyncio.run(run_before(store))
        before = max(store.begun, default=0)
        Mailbox(store).submit(submission)
        if not die(store, at, how):
            break
        actor_id = "actor" if successor == "the same actor" else "another"
        asyncio.run(take_what_is_left(store, actor_id))
        begun = [claim for epoch, claim in store.begun.items() if epoch > before]
        assert begun, at
        assert len({_point_of_start(claim, asked) for claim in begun}) == 1, at
    assert at >= 7, "it has fewer writes than a run has"


def _point_of_start(claim: dict[str, Any], asked: str) -> int:
    """From which epoch on a run counts: every run that goes on with another one has the same."""
    return claim["restarts"]["b"] if asked.startswith("from a task") else claim["base_epoch"]


@pytest.mark.parametrize("on_existing", ["resume", "restart"])
def test_a_write_that_fails_leads_to_an_answer_and_never_to_a_second_run(on_existing: str) -> None:
    async def check(at: int) -> bool:
        store = RecordingStore(MemoryStore())
        if on_existing == "restart":
            await run_before(store)
        before = max(store.begun, default=0)
        first = 2  # after the manager's change log and its lease
        faulty = FaultyStore(store, at=at + first, how="error")
        runner = InstantRunner()
        with contextlib.suppress(DataSaveError):  # the lease can't be given back, in the last case
            async with managing(faulty, runner=runner):
                Mailbox(store).submit(replace(SUBMISSION, on_existing=on_existing))
                answer = await answered(store)
                if answer.outcome == "accepted":
                    await ended(store)
        assert len([epoch for epoch in store.begun if epoch > before]) <= 1, at
        assert answer.outcome in ("accepted", "failed")
        assert bool(runner.started) == (answer.outcome == "accepted"), at
        assert max(runner.started.values(), default=0) <= 1
        return faulty.writes > at + first

    at = 0
    while asyncio.run(check(at)):
        at += 1
    assert at > 5


def later_owner(mailbox: Mailbox) -> None:
    mailbox.take_over(Owner(workflow_id="w", token="later", submission_id="", since=2.0))


def resubmitted(mailbox: Mailbox) -> None:
    mailbox.take_over(Owner(workflow_id="w", token="try", submission_id="try-2", since=2.0))


def stop_request(mailbox: Mailbox) -> None:
    mailbox.request_stop(StopRequest(workflow_id="w", token="try", how="suspend", requested_at=2.0))


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        (later_owner, "another owner has taken it over"),
        (resubmitted, "its owner has submitted it again"),
        (stop_request, "its owner has asked to suspend it"),
    ],
)
@pytest.mark.parametrize("when", ["before it is found", "while its graph is built"])
async def test_a_submission_that_its_try_does_not_want_any_more_is_not_started(
    store, happens, reason, when
):
    mailbox = Mailbox(store)
    builder = InProcessBuilder()
    mailbox.submit(SUBMISSION)
    if when == "before it is found":
        happens(mailbox)
    else:
        builder.before = lambda _: asyncio.to_thread(happens, mailbox)
    async with managing(store, builder=builder):
        answer = await answered(store)
    assert answer.outcome == "failed"
    assert answer.message.startswith("Workflow w is not started: ")
    assert reason in answer.message
    assert len(builder.built) == (when != "before it is found")
    assert store.begun == {}


WATCHED_BUILDS = replace(INTERVALS, build_s=0.05)


def submit_hanging(mailbox: Mailbox) -> list[Submission]:
    """As many submissions as are taken at once, of workflows whose builds do not end."""
    hanging = [
        replace(SUBMISSION, workflow_id=f"hangs-{number}", workflow="hangs:build")
        for number in range(MOST_AT_ONCE)
    ]
    for one in hanging:
        mailbox.submit(one)
    return hanging


def withdrawn(mailbox: Mailbox, one: Submission) -> None:
    mailbox.delete_submission(one.workflow_id, one.submission_id)


def taken_over(mailbox: Mailbox, one: Submission) -> None:
    mailbox.take_over(
        Owner(workflow_id=one.workflow_id, token="later", submission_id="later", since=2.0)
    )


@dataclass
class HangingBuilder(InProcessBuilder):
    """Builds of "hangs:build" do not end by themselves; ``ended`` counts those that were."""

    ended: int = 0

    async def build(self, submission: Submission) -> bytes | None:
        if submission.workflow == "hangs:build":
            self.built.append(submission.submission_id)
            try:
                await asyncio.Event().wait()
            finally:
                self.ended += 1
        return await super().build(submission)


@pytest.mark.invariant(11)
@pytest.mark.parametrize("give_up", [withdrawn, taken_over])
async def test_builds_that_hang_end_with_their_tries_and_keep_no_place_from_others(memory, give_up):
    mailbox, builder = Mailbox(memory), HangingBuilder()
    hanging = submit_hanging(mailbox)
    async with managing(memory, builder=builder, intervals=WATCHED_BUILDS) as manager:
        await until(lambda: len(builder.built) == len(hanging))
        mailbox.submit(SUBMISSION)
        for one in hanging:
            give_up(mailbox, one)
        assert (await answered(memory)).outcome == "accepted"
        await until(lambda: builder.ended == len(hanging))
        await until(lambda: manager.submissions.count_taking == 0)


@pytest.mark.invariant(11)
async def test_a_build_that_takes_too_long_is_given_up(memory):
    """Its try was killed, and so does not take it back."""
    impatient = replace(WATCHED_BUILDS, build_timeout_s=0.0)

    mailbox, builder = Mailbox(memory), HangingBuilder()
    hanging = submit_hanging(mailbox)
    async with managing(memory, builder=builder, intervals=impatient):
        answer = await answered(memory, hanging[0])
        assert answer.outcome == "failed"
        assert "was not built within 0 s. Look what 'hangs:build' waits for" in answer.message
        await until(lambda: builder.ended == len(hanging))


def by_anybody(*, epoch: int, age_s: float = 0.0) -> dict[str, Any]:
    return {"token": ANYBODY, "epoch": epoch, "submitted_at": time.time() - age_s}


@pytest.mark.parametrize(
    ("changes", "outcome", "reason"),
    [
        (by_anybody(epoch=1), "accepted", ""),
        (by_anybody(epoch=0), "failed", "it has run since that was asked for"),
        (by_anybody(epoch=1, age_s=4000), "failed", "asked for more than an hour ago"),
    ],
    ids=["as it was", "run since", "long ago"],
)
async def test_a_resume_that_no_try_waits_for_is_void_once_it_is_not_what_was_meant(
    memory, changes, outcome, reason
):
    """It may be found days later, when the cluster has a manager again."""

    await run_before(memory)
    builder = InProcessBuilder(graph=None)
    submission = replace(SUBMISSION, workflow="", **changes)
    Mailbox(memory).submit(submission)
    async with managing(memory, builder=builder):
        answer = await answered(memory, submission)
    assert answer.outcome == outcome
    assert reason in answer.message
    assert len(builder.built) == (outcome == "accepted")
    assert WorkflowStore(memory).last_epoch("w") == 1  # it was successful: nothing is to run


RESTART = replace(SUBMISSION, submission_id="try-2", token="later", on_existing="restart")


@pytest.mark.parametrize("runs", ["here", "on another cluster"])
async def test_a_workflow_that_is_to_start_over_is_stopped_first(memory, runs):
    """A person clears a deferred task with on_clear="restart": the request of its old trigger is void."""

    endless = InstantRunner(is_endless=True)
    where = {"cluster": "here" if runs == "here" else "elsewhere", "runner": endless}
    async with managing(memory, "m", actor_id="a", **where) as manager:
        await manager.submit("w", GRAPH, user_metadata={})
        await until(lambda: endless.started)
        async with contextlib.AsyncExitStack() as stack:
            if runs != "here":
                await stack.enter_async_context(managing(memory, "n", actor_id="b"))
            Mailbox(memory).submit(RESTART)
            assert (await answered(memory, RESTART)).outcome == "accepted"
            claim = WorkflowStore(memory).read_claim("w", 2)
            assert (claim.submission_id, claim.base_epoch) == ("try-2", 2)
            if runs == "here":  # it goes on: no request is left that would stop it, too
                await until(lambda: endless.started == {"a": 2})
                await asyncio.sleep(0.1)
                assert "w" in manager._known.live
            else:
                assert await ended(memory) is WorkflowStatus.SUCCESSFUL


async def test_a_run_that_does_not_stop_fails_the_start_over_with_the_remedy(memory):
    impatient = {"intervals": replace(INTERVALS, stop_timeout_s=0.0)}
    runner = InstantRunner(is_endless=True)
    async with managing(memory, runner=runner, **impatient) as manager:
        await manager.submit("w", GRAPH, user_metadata={})
        Mailbox(memory).submit(RESTART)
        answer = await answered(memory, RESTART)
    assert answer.outcome == "failed"
    assert "still running or pending. Suspend or cancel it, or wait for its end" in (answer.message)


@pytest.mark.parametrize("on_existing", ["resume", "restart"])
async def test_a_submission_that_comes_while_a_run_ends_is_not_taken_for_a_part_of_it(on_existing):
    """Its last status is written, and the one before is not deleted yet."""

    class HeldDeletes(RecordingStore):
        def delete(self, keys_) -> None:
            wanted = list(keys_)
            if any(keys.parse_status_key(key) for key in wanted):
                is_ending.set()
                assert may_end.wait(30)
            super().delete(wanted)

    is_ending, may_end = threading.Event(), threading.Event()

    store = HeldDeletes(MemoryStore())
    runner, builder = CodeRunner(), InProcessBuilder()
    async with managing(store, runner=runner, builder=builder):
        Mailbox(store).submit(SUBMISSION)
        await answered(store)
        await until(is_ending.is_set)
        runner.loses_b = False
        again = replace(SUBMISSION, submission_id="try-2", on_existing=on_existing)
        Mailbox(store).submit(again)
        await until(lambda: "try-2" in builder.built)
        await asyncio.sleep(0.05)
        may_end.set()
        assert (await answered(store, again)).outcome == "accepted"
        assert await ended(store) is WorkflowStatus.SUCCESSFUL
    assert WorkflowStore(store).last_epoch("w") == 2


async def test_a_start_over_that_is_withdrawn_while_the_run_before_stops_begins_nothing(memory):
    class Stubborn(InstantRunner):
        """Its tasks can't be stopped."""

        def stop(self, errand: Errand) -> None:
            stopping.append(errand)

    stopping: list[Errand] = []
    runner, mailbox = Stubborn(is_endless=True), Mailbox(memory)
    async with managing(memory, runner=runner) as manager:
        await manager.submit("w", GRAPH, user_metadata={})
        await until(lambda: runner.started)
        mailbox.submit(RESTART)
        await until(lambda: stopping)
        mailbox.delete_submission("w", "try-2")
        await until(lambda: manager.submissions.count_taking == 0)
        for errand in stopping:
            InstantRunner.stop(runner, errand)
        assert await ended(memory) is WorkflowStatus.RESUMABLE
    assert WorkflowStore(memory).last_epoch("w") == 1


@pytest.mark.parametrize(
    ("builder", "changes", "outcome", "message"),
    [
        (InProcessBuilder(error=BuildError("no module 'x'")), {}, "failed", "no module 'x'"),
        (InProcessBuilder(error=RefusedError("no graph")), {}, "refused", "no graph"),
        (InProcessBuilder(error=OSError("a bug")), {}, "failed", "OSError: a bug"),
        (InProcessBuilder(graph=b"no graph"), {}, "", ""),
        (InProcessBuilder(graph=None), {}, "failed", "WorkflowNotResumableError"),
        (InProcessBuilder(), {"from_task": "no such task"}, "refused", "no such task"),
        (InProcessBuilder(), {"max_running_workflows": 7}, "failed", "ValueError"),
    ],
)
async def test_what_can_not_be_started_is_answered_with_the_reason(
    memory, builder, changes, outcome, message
):
    Mailbox(memory).submit(replace(SUBMISSION, **changes))
    async with managing(memory, builder=builder, limits=Limits(max_running=3)):
        answer = await answered(memory)
    assert answer.outcome in ([outcome] if outcome else ["failed", "refused"])
    assert message in answer.message
    assert memory.begun == {}


async def test_a_submission_that_finds_no_place_in_the_queue_hears_of_it(memory):
    limits = Limits(max_running=1, max_pending=0)
    async with managing(memory, runner=InstantRunner(is_endless=True), limits=limits) as manager:
        await manager.submit("other", GRAPH, user_metadata={})
        Mailbox(memory).submit(SUBMISSION)
        assert (await answered(memory)).outcome == "queue full"
    assert WorkflowStore(memory).read_status("w") is None


async def test_a_submission_sets_limits_that_are_unset(memory):
    async with managing(memory) as manager:
        Mailbox(memory).submit(replace(SUBMISSION, max_running_workflows=7))
        assert (await answered(memory)).outcome == "accepted"
        await asyncio.to_thread(manager.renew_lease)
        lease = WorkflowStore(memory).leases.read("m")
        assert lease is not None
        assert lease.limits["max_running"] == 7


async def test_the_retention_of_the_latest_submission_counts_and_survives_a_restart(memory):
    async def retention(manager: Manager) -> dict[str, float]:
        await asyncio.to_thread(manager.renew_lease)
        lease = WorkflowStore(memory).leases.read(manager.manager_id)
        assert lease is not None
        return lease.retention

    mailbox = Mailbox(memory)
    first = manager_on(memory)
    await first.start()
    mailbox.submit(replace(SUBMISSION, retention={"SUCCESSFUL": 30}))
    assert (await answered(memory)).outcome == "accepted"
    assert await retention(first) == {"SUCCESSFUL": 30}
    first.fence()
    async with managing(memory, "m2") as second:  # of the same actor
        assert await retention(second) == {"SUCCESSFUL": 30}
        later = replace(SUBMISSION, submission_id="try-2")
        mailbox.submit(later)
        assert (await answered(memory, later)).outcome == "accepted"
        assert await retention(second) == {}


async def test_the_log_says_who_has_changed_the_retention(memory, caplog: pytest.LogCaptureFixture):
    origin = {"dag_id": "flights", "task_id": "daily", "run_id": "r1", "map_index": -1}
    by_task = replace(
        SUBMISSION,
        retention={"FAILED": 5},
        connection="ray_prod",
        user_metadata={ORIGIN_KEY: origin},
    )
    by_page = replace(SUBMISSION, submission_id="try-2", connection="ray_test")

    with caplog.at_level("INFO"):
        async with managing(memory):
            for submission in (by_task, by_page):
                Mailbox(memory).submit(submission)
                await answered(memory, submission)
    said = [message for message in caplog.messages if message.startswith("Ended workflows")]
    assert said == [
        "Ended workflows are kept for 5 days (FAILED). Set by the submission of workflow w by task daily of "
        "DAG flights in run r1 with connection ray_prod",
        "Ended workflows are kept for ever: the retention is off. Set by the submission of workflow w with "
        "connection ray_test",
    ]


def test_a_submission_whose_retention_makes_no_sense_is_damaged(memory):
    mailbox = Mailbox(memory)
    mailbox.submit(replace(SUBMISSION, retention={"RUNNING": 1}))
    [key] = mailbox.list_submissions()
    with pytest.raises(DataLoadError, match="RUNNING"):
        mailbox.read_submission(key)


async def test_a_damaged_submission_stops_no_other_one_and_is_read_once(memory):
    bad = keys.submission_key("bad", "s")
    memory.put(bad, b"torn")
    Mailbox(memory).submit(SUBMISSION)
    async with managing(memory):
        assert (await answered(memory)).outcome == "accepted"
        await until(lambda: memory.reads[keys.SUBMISSIONS] > 10)
    assert memory.reads[bad] == 1


async def test_a_try_with_other_signing_keys_hears_of_it_and_nothing_is_run(memory):
    """It would wait for ever: a manager believes nothing of its submission."""

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(SIGNING_KEY_VARIABLE, "of-the-manager")
        builder = InProcessBuilder()
        elsewhere = replace(SUBMISSION, workflow_id="x", cluster="elsewhere")
        for submission in (SUBMISSION, elsewhere):
            Mailbox(memory, signing=SigningKeys.from_text("of-the-try")).submit(submission)
        async with managing(memory, builder=builder):
            answer = await answered(memory)
        assert answer.outcome == "failed"
        assert "it is not signed with a key of RAY_WORKFLOW_SIGNING_KEY" in answer.message
        assert builder.built == []
        (left,) = Mailbox(memory).list_submissions()
        assert left == keys.submission_key("x", SUBMISSION.submission_id)


async def test_a_fenced_manager_answers_nothing(memory):
    builder = InProcessBuilder()
    manager = manager_on(memory, builder=builder)

    async def fence(_: Submission) -> None:
        manager.fence()

    builder.before = fence
    await manager.start()
    Mailbox(memory).submit(SUBMISSION)
    await until(lambda: builder.built)
    await manager.submissions.settle()
    mailbox = Mailbox(memory)
    assert len(mailbox.list_submissions()) == 1
    assert mailbox.read_answer("w", "try-1") is None
    await manager.close()
    async with managing(memory, "next", actor_id="another"):
        assert (await answered(memory)).outcome == "accepted"


async def test_a_manager_that_closes_leaves_what_it_builds_to_the_next_one(memory):
    builder = InProcessBuilder(before=lambda _: asyncio.Event().wait())
    Mailbox(memory).submit(SUBMISSION)
    async with managing(memory, builder=builder) as manager:
        await until(lambda: builder.built)
        assert manager.count_held() == 1  # else its cluster might end as idle
    assert len(Mailbox(memory).list_submissions()) == 1
    async with managing(memory, "next"):
        assert (await answered(memory)).outcome == "accepted"


async def test_an_answer_that_was_read_ends_the_submission_for_good(memory):
    """A manager died before it could delete the submission."""

    mailbox, builder = Mailbox(memory), InProcessBuilder()
    mailbox.submit(SUBMISSION)
    mailbox.write_answer(
        SubmissionAnswer(
            workflow_id="w",
            submission_id="try-1",
            outcome="failed",
            message="no",
            answered_at=2.0,
        )
    )
    async with managing(memory, builder=builder):
        assert (await answered(memory)).message == "no"
    assert builder.built == []
    mailbox.submit(SUBMISSION)
    mailbox.delete_answer("w", "try-1")
    assert mailbox.list_submissions() == []


async def test_an_idle_look_is_one_listing(memory):
    """The cost of waiting: 86,400 requests a day at one look a second."""

    Mailbox(memory).submit(replace(SUBMISSION, cluster="elsewhere"))
    async with managing(memory) as manager:
        for _ in range(3):
            await manager.submissions.look()
            await manager.submissions.settle()
        # A manager's first look at a storage makes the index.
        await until(lambda: WorkflowStore(memory).index.load())
        memory.reads.clear()
        writes = memory.writes
        has_found = [await manager.submissions.look() for _ in range(10)]
        assert has_found == [False] * 10
        # The manager looks by itself meanwhile, and for change logs; and who makes the index lists all statuses.
        asked = {key for key, times in memory.reads.items() if times >= 10}
        assert asked - {keys.CHANGES} == {keys.SUBMISSIONS}
        assert memory.reads[keys.SUBMISSIONS] >= 10
        assert memory.writes == writes


async def test_the_requests_of_a_submission_are_as_the_module_says(memory):
    async with managing(memory):
        memory.reads.clear()
        Mailbox(memory).submit(SUBMISSION)
        await answered(memory)
        folders = ("v1/submissions/", "v1/owners/", "v1/requests/w/", "v1/answers/")
        reads = sum(n for key, n in memory.reads.items() if key.startswith(folders))
        assert reads - 2 == 7  # the try reads the owner, and the test has read the answer


async def test_many_submissions_are_taken_in_portions(memory):
    at_once = most = 0

    async def build(_: Submission) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1

    mailbox = Mailbox(memory)
    for number in range(50):
        mailbox.submit(replace(SUBMISSION, workflow_id=f"w{number}"))
    async with managing(memory, builder=InProcessBuilder(before=build)):
        await until(lambda: not mailbox.list_submissions())
    assert len(WorkflowStore(memory).list_statuses()) == 50
    assert 1 < most <= 16


async def test_a_storage_that_can_not_be_listed_is_asked_again(memory):
    list_all, left = memory.list, [2]

    def moody(folder: str) -> Any:
        if folder == keys.SUBMISSIONS and left[0]:
            left[0] -= 1
            raise DataLoadError("The storage is down")
        return list_all(folder)

    memory.list = moody
    Mailbox(memory).submit(SUBMISSION)
    async with managing(memory):
        await until(lambda: WorkflowStore(memory).latest_status("w"))
    assert left == [0]
