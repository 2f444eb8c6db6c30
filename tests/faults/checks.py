"""What must hold of a run after all its faults: the invariants, from the storage and the ledger."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledgers import Ledger, Line
from policy_checks import by_workflow, check_policies
from shapes import Plan
from watch import Watch

from airflow_provider_rayworkflow.workflow.format.documents import load_frames
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.overview import Overview
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader


@dataclass(kw_only=True, slots=True)
class Findings:
    """:ivar problems: each one breaks an invariant; of these, ``lost`` and ``repeated`` count those
    that concern committed tasks."""

    committed: int = 0
    lost: int = 0
    repeated: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Commit:
    """What a journal says, read without our readers of checkpoints."""

    task_id: str
    epoch: int
    attempt: int


def check(
    store: WorkflowStore,
    plans: Sequence[Plan],
    ledger: Ledger,
    watch: Watch,
    *,
    late_writes: bool = False,
    may_be_stopped: bool = False,
    may_overlap: bool = False,
    spares_workers: bool = False,
) -> Findings:
    """Check a run whose workflows have all ended.

    :param may_be_stopped: an owner was stopped for longer than its lease: its workers may have begun
        tasks after the next claim, of which nothing may be committed.
    :param late_writes: a write may have reached the storage long after its process had died or
        was stopped.
    :param may_overlap: workers may have gone on with attempts that were given up.
    :param spares_workers: no worker has ended but those that the plans end.
    """
    findings = Findings()
    findings.problems += watch.dishonest
    lines = by_workflow(ledger.lines())
    for plan in plans:
        noted = lines.get(plan.workflow_id, [])
        own = [line for line in noted if line.what == "start"]
        _check_end(store, plan, findings)
        once = [line for line in own if line.task_id not in plan.repeatable]
        _check_committed(store, plan, once, watch, findings)
        _check_repetitions(store, plan.workflow_id, once, findings, late_writes=late_writes)
        findings.problems += check_policies(
            plan,
            noted,
            spares_workers=spares_workers,
            may_overlap=may_overlap or may_be_stopped,
        )
        if not may_be_stopped:
            _check_owners(store, plan.workflow_id, own, watch, findings)
    return findings


def check_submissions(
    store: WorkflowStore, submitted: Mapping[str, Sequence[str]], ledger: Ledger
) -> list[str]:
    """No submission is lost, and none is run twice; what breaks that.

    A claim that a submission has made may be made again, if its manager died before a task began.

    :param submitted: by workflow: the ids of its submissions, the latest one last; only that was accepted.
    """
    problems = []
    starts = ledger.starts()
    for workflow_id, ids in submitted.items():
        claims = _claim_bodies(store, workflow_id)
        if not claims:
            problems.append(f"{workflow_id}: its submission is lost")
            continue
        latest = claims[max(claims)]
        if latest["submission_id"] != ids[-1]:
            problems.append(f"{workflow_id} runs for the submission {latest['submission_id']!r}")
        begun = latest["submission_epoch"]
        early = [line for line in starts if line.workflow_id == workflow_id and line.epoch < begun]
        if early:
            problems.append(
                f"{workflow_id}: its submission was run as {early[0].epoch}, and again as {begun}"
            )
    return problems


def check_lists(store: WorkflowStore, *, within_s: float = 30.0) -> list[str]:
    """Lists, which read change logs and the index, agree with a listing of all statuses; what does not.

    :param within_s: how long a manager may take to note what it has written, on a busy machine.
    """
    everything = [status for status in WorkflowStatus if status is not WorkflowStatus.NONE]
    until = time.monotonic() + within_s
    while True:
        listed = {one.workflow_id: one.status for one in Overview(store).find(everything)}
        stored = {name: status for name, status, _ in StatusReader(store).list_workflows()}
        if listed == stored:
            return []
        if time.monotonic() > until:
            return [f"lists differ: {listed.items() ^ stored.items()}"]
        time.sleep(0.2)


# ---- nothing is lost, and statuses tell the truth


def _check_end(store: WorkflowStore, plan: Plan, findings: Findings) -> None:
    record = store.read_status(plan.workflow_id)
    if record is None:
        findings.problems.append(f"{plan.workflow_id} is lost")
        return
    if record.status is not plan.end:
        findings.problems.append(f"{plan.workflow_id} is {record.status}: {record.failure}")
    elif plan.end is WorkflowStatus.FAILED:
        _check_failure(record, findings)
    elif plan.end is WorkflowStatus.CANCELED:
        pass
    elif record.output is None or record.output.value != plan.output:
        findings.problems.append(f"{plan.workflow_id} gave {record.output}, not {plan.output}")
    claims = sorted(_claims(store, plan.workflow_id))
    # The first ones may be missing: of a start that died between its claim and its status.
    if claims != list(range(claims[0], claims[-1] + 1)) or record.epoch != claims[-1]:
        findings.problems.append(
            f"{plan.workflow_id} has the claims {claims} and a status of {record.epoch}"
        )


def _check_failure(record: StatusRecord, findings: Findings) -> None:
    failure = record.failure
    if failure is None or failure.type != "ValueError" or "on purpose" not in failure.traceback:
        findings.problems.append(f"{record.workflow_id} failed by {failure}")


def _check_committed(
    store: WorkflowStore, plan: Plan, starts: list[Line], watch: Watch, findings: Findings
) -> None:
    """What was once committed is committed for good, and does not run again."""
    workflow_id = plan.workflow_id
    checkpoints = store.read_checkpoints(workflow_id)
    findings.problems += [str(damage) for damage in checkpoints.damaged]
    findings.committed += len(checkpoints.records)
    seen = {task: when for (name, task), when in watch.committed.items() if name == workflow_id}
    for task_id in sorted(seen.keys() - checkpoints.records.keys() - plan.repeatable):
        findings.lost += 1
        findings.problems.append(f"{workflow_id}: {task_id} was committed, and is no more")
    claims = _claims(store, workflow_id)
    for line in starts:
        committed_at, epoch = seen.get(line.task_id, (line.at, line.epoch))
        # Another owner knows what was committed when it claimed the workflow.
        known_from = line.at if line.epoch == epoch else claims[line.epoch][1]
        if committed_at < known_from:
            findings.repeated += 1
            findings.problems.append(
                f"{workflow_id}: {line.task_id} was committed before {committed_at} under {epoch}, "
                f"and ran again at {line.at} as {line.epoch}.{line.attempt}"
            )


def _check_repetitions(
    store: WorkflowStore,
    workflow_id: str,
    starts: list[Line],
    findings: Findings,
    *,
    late_writes: bool,
) -> None:
    """The same by epochs and attempts instead of the clock; and no attempt is made twice.

    A write that is on its way when its process dies or is stopped may arrive after the next claim:
    no process was told of that commit, and the task may run again.
    """
    first: dict[str, tuple[int, int]] = {}
    for commit in _commits(store, workflow_id):
        made = (commit.epoch, commit.attempt)
        first[commit.task_id] = min(first.get(commit.task_id, made), made)
    for line in starts:
        committed = first.get(line.task_id)
        if committed and (line.epoch, line.attempt) > committed and not late_writes:
            findings.repeated += 1
            findings.problems.append(
                f"{workflow_id}: {line.task_id} was committed as {committed} and ran again as "
                f"{line.epoch}.{line.attempt}"
            )
    attempts = Counter((line.task_id, line.epoch, line.attempt) for line in starts)
    findings.problems += [
        f"{workflow_id}: attempt {attempt} was made {times} times"
        for attempt, times in attempts.items()
        if times > 1 and attempt[0] in first
    ]


# ---- one owner at a time


def _check_owners(
    store: WorkflowStore, workflow_id: str, starts: list[Line], watch: Watch, findings: Findings
) -> None:
    """When an epoch is claimed, the owner of the one before is dead or has stopped its work."""
    claims = _claims(store, workflow_id)
    for epoch, (_, claimed_at) in claims.items():
        for earlier in range(1, epoch):
            owner = claims[earlier][0] if earlier in claims else ""
            late = [line for line in starts if line.epoch == earlier and line.at > claimed_at]
            if late and watch.last_alive.get(owner, 0) > claimed_at:
                findings.problems.append(
                    f"{workflow_id}: epoch {epoch} was claimed at {claimed_at}, and {owner}, who "
                    f"had epoch {earlier}, began {late[0].task_id} at {late[0].at}"
                )


# ---- a raw look


def _claims(store: WorkflowStore, workflow_id: str) -> dict[int, tuple[str, float]]:
    """Who claimed each epoch, and when: by the clock of the machine, not of the claim's owner."""
    root = Path(store.bytes.uri) if isinstance(store.bytes, LocalStore) else None
    found = {}
    for epoch, body in _claim_bodies(store, workflow_id).items():
        key = keys.epoch_key(workflow_id, epoch)
        at = (root / key).stat().st_mtime if root else body["claimed_at"]
        found[epoch] = (body["manager_id"], at)
    return found


def _claim_bodies(store: WorkflowStore, workflow_id: str) -> dict[int, dict[str, Any]]:
    """The claims of a workflow by epoch, as they are written."""
    found = {}
    for entry in store.bytes.list(keys.workflow_folder(workflow_id)):
        if entry.key.endswith(".epoch"):
            body = json.loads(store.bytes.get(entry.key).split(b"\n", 1)[0])["body"]
            found[int(body["epoch"])] = body
    return found


def _commits(store: WorkflowStore, workflow_id: str) -> Iterator[_Commit]:
    for entry in store.bytes.list(keys.workflow_folder(workflow_id)):
        if not entry.key.endswith(".journal"):
            continue
        body, frames = load_frames(entry.key, "journal", store.bytes.get(entry.key))
        for header, _ in frames:
            is_checkpoint = not header.get("failure") and not header.get("revoked")
            if "times" in header and is_checkpoint:
                yield _Commit(
                    task_id=header["task"],
                    epoch=body["epoch"],
                    attempt=header["times"]["attempt"],
                )
