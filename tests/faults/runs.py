"""One seeded run: workflows are begun, a fault strikes, everything ends, and is checked."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import troubles
from checks import Findings, check, check_lists, check_submissions
from clusters import ClusterIsGone, RayCluster
from ledgers import Ledger
from policy_checks import by_workflow, check_stop
from reports import Report
from shapes import Plan, draw
from watch import Watch
from worlds import World

from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader, StoredWorkflow

#: Within this time everything ends after a fault, with resumes of what was stopped.
END_S = 480.0
#: A manager that Ray restarts recovers its workflows by itself within this time.
RECOVERY_S = 240.0


class Run:
    """What a fault sees of the run that it strikes.

    :ivar rng: everything random comes from it.
    :ivar begun_there: how many tasks had begun on a node when it was killed.
    :ivar late_writes: see :func:`~checks.check`.
    :ivar may_be_stopped: an owner was stopped for a while: tasks that its workers had may begin
        after another one has taken the workflow over. Nothing of that is committed.
    :ivar may_overlap: so may attempts that were given up, on a node that has lost its raylet.
    :ivar spares_workers: no worker ends but those that tasks end, so that budgets are known exactly.
    :ivar recovers: the workflows go on without a resume, unless failures of their tasks have ended a run.
    :ivar submitted: by workflow: the ids of its submissions, the latest one last; empty where programs
        call the manager.
    """

    def __init__(self, world: World, seed: int, *, workflows: int | None = None) -> None:
        self.world = world
        self.seed = seed
        self.rng = random.Random(seed)
        self.plans = draw(self.rng, f"run{seed}", workflows or self.rng.randint(3, 6))
        world.folder.mkdir(parents=True, exist_ok=True)
        path = world.folder / f"ledger{seed}"
        for earlier in world.folder.glob(f"{path.name}*"):
            if earlier.name == path.name or earlier.name.startswith(f"{path.name}."):
                earlier.unlink()
        self.ledger = Ledger(path)
        self.faults = 0
        self.begun_there = 0
        self.resumes = 0
        self.late_writes = False
        self.may_be_stopped = False
        self.may_overlap = False
        self.spares_workers = False
        self.recovers = False
        self.submitted: dict[str, list[str]] = {}
        self.problems: list[str] = []
        self.watch = Watch(world.store(), self.ids)
        self._refused: dict[str, str] = {}
        self._asked: RayCluster | None = None

    @property
    def ids(self) -> list[str]:
        return [plan.workflow_id for plan in self.plans]

    # ---- what faults use

    def begin(self, cluster: RayCluster | None = None) -> None:
        """Submit everything, without waiting for the answer."""
        self._asked = cluster or self.world.cluster
        self._asked.send("start", **self.submission())

    def submission(self) -> dict[str, Any]:
        plans = [plan.to_json() for plan in self.plans]
        return {"plans": plans, "ledger": str(self.ledger.path)}

    def wait_for_a_moment(
        self, *, part: float = 0.8, unless: Callable[[], bool] = lambda: False
    ) -> None:
        """Until a number of tasks has begun that the seed says, and a little longer.

        :param part: at most so much of all tasks.
        :param unless: nothing will come any more.
        """
        tasks = sum(plan.size for plan in self.plans)
        number = self.rng.randint(1, max(1, int(tasks * part)))
        self.wait_until(
            lambda: len(self.ledger.starts()) >= number or self.is_at_rest() or unless()
        )
        time.sleep(self.rng.random() * 0.2)

    def wait_until(self, condition: Callable[[], Any], *, patience_s: float = END_S) -> Any:
        end = time.monotonic() + patience_s
        while not (value := condition()):
            if time.monotonic() > end:
                raise TimeoutError(f"still not true after {patience_s} s")
            time.sleep(0.02)
        return value

    def settle(self) -> dict[str, str]:
        """Wait for the answer to :meth:`begin`, if there is one; gives the errors in it."""
        if self._asked is None:
            return {}
        asked, self._asked = self._asked, None
        try:
            return dict(asked.receive())
        except ClusterIsGone:
            return {}

    def found(self) -> dict[str, StoredWorkflow | None]:
        statuses = StatusReader(self.world.store())
        return {workflow_id: statuses.read(workflow_id) for workflow_id in self.ids}

    def is_at_rest(self, plans: Sequence[Plan] | None = None) -> bool:
        """Nothing goes on by itself: all has ended as it must, or by failures that a resume has to follow.

        :param plans: those that count; None: all.
        """
        try:
            found = self.found()
        except StorageError:
            return False
        return all(
            _is_at_its_end(plan, found[plan.workflow_id])
            or _has_failed(plan, found[plan.workflow_id])
            for plan in (self.plans if plans is None else plans)
        )

    def unfinished(self) -> list[Plan]:
        """What has not ended as it must."""
        try:
            found = self.found()
        except StorageError:
            return self.plans
        return [plan for plan in self.plans if not _is_at_its_end(plan, found[plan.workflow_id])]

    # ---- the end

    def finish(self) -> None:
        """Let everything end: resume what has stopped, or submit it again."""
        self.settle()
        begun = time.monotonic()
        while unfinished := self.unfinished():
            waited = time.monotonic() - begun
            if waited > END_S:
                break
            if self.recovers and waited > RECOVERY_S:
                self.problems.append(f"did not recover: {[p.workflow_id for p in unfinished]}")
                self.recovers = False
            self._go_on(unfinished)
            time.sleep(0.1)
        self.problems += [
            f"{name} has not ended: {self._refused.get(name, '')}"
            for name in [plan.workflow_id for plan in self.unfinished()]
        ]

    def _go_on(self, unfinished: list[Plan]) -> None:
        try:
            found = self.found()
        except StorageError:
            return
        stopped = [
            plan
            for plan in unfinished
            if _has_failed(plan, found[plan.workflow_id])
            or (not self.recovers and _has_stopped(found[plan.workflow_id]))
        ]
        if not stopped:
            return
        self.repair(stopped)
        self.resumes += len(stopped)
        again = [plan for plan in stopped if found[plan.workflow_id] is None]
        # Airflow's retries submit again, people resume: both must do.
        again += [plan for plan in stopped if plan not in again and self.rng.random() < 0.5]
        resumed = [plan.workflow_id for plan in stopped if plan not in again]
        cluster = self.world.cluster
        if again:
            plans = [plan.to_json() for plan in again]
            self._refused |= cluster.ask("start", plans=plans, ledger=str(self.ledger.path))
        if resumed:
            self._refused |= cluster.ask("resume", workflow_ids=resumed)

    def repair(self, plans: Sequence[Plan]) -> None:
        """Look how runs have ended by failures, and mend what has failed them, before others go on."""
        lines = by_workflow(self.ledger.lines())
        for plan in plans:
            found = StatusReader(self.world.store()).read(plan.workflow_id)
            if found is None or not _has_failed(plan, found):
                continue
            self.problems += check_stop(
                self.world.store(),
                plan,
                found.record,
                lines.get(plan.workflow_id, []),
                spares_workers=self.spares_workers,
            )
            if found.record.status is WorkflowStatus.FAILED:
                troubles.repair(self.ledger.path, plan.workflow_id)

    def check(self) -> Findings:
        findings = check(
            self.world.store(),
            self.plans,
            self.ledger,
            self.watch,
            late_writes=self.late_writes,
            may_be_stopped=self.may_be_stopped,
            may_overlap=self.may_overlap,
            spares_workers=self.spares_workers,
        )
        findings.problems += check_submissions(self.world.store(), self.submitted, self.ledger)
        findings.problems += check_lists(self.world.store())
        return findings

    def forget(self, workflow_id: str) -> None:
        """Expect nothing of a workflow any more: its storage was taken away, and that was checked."""
        self.plans[:] = [plan for plan in self.plans if plan.workflow_id != workflow_id]
        self.world.store().delete(workflow_id)


def _is_at_its_end(plan: Plan, found: StoredWorkflow | None) -> bool:
    return found is not None and found.status is plan.end


def _has_failed(plan: Plan, found: StoredWorkflow | None) -> bool:
    """Its tasks have ended a run, as its manager has written; not that the manager is gone."""
    if found is None or not plan.may_stop or found.record.failure is None:
        return False
    return found.record.status in (WorkflowStatus.FAILED, WorkflowStatus.RESUMABLE)


def _has_stopped(found: StoredWorkflow | None) -> bool:
    return found is None or found.status.can_be_resumed


def run(world: World, fault: str, strike: Callable[[Run], None], seed: int) -> Report:
    """Make one run.

    :param strike: begins the workflows and makes the fault happen; everything may go on after it.
    """
    begun = time.monotonic()
    one = Run(world, seed)
    with one.watch:
        try:
            strike(one)
            one.finish()
        except Exception as exc:
            one.problems.append(f"{type(exc).__name__}: {exc}")
        if one.problems:  # what follows may fail because of them
            print(*one.problems, sep="\n")
        one.wait_until(lambda: one.watch.looks > 0)
    findings = one.check()
    return Report(
        seed=seed,
        fault=fault,
        faults=one.faults,
        workflows=len(one.plans),
        tasks=len(one.ledger.starts()),
        cut_off=len(one.ledger.running()),
        begun_there=one.begun_there,
        committed=findings.committed,
        lost=findings.lost,
        repeated=findings.repeated,
        resumes=one.resumes,
        seconds=round(time.monotonic() - begun, 1),
        problems=one.problems + findings.problems,
    )
