"""What must hold of tasks that fail: budgets, policies after a failure, and saved progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise

from ledgers import Line
from shapes import Plan
from troubles import OF_TASK, OTHER_RETRIES, Trouble

from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.log_pieces import LogCursor


def check_stop(
    store: WorkflowStore,
    plan: Plan,
    record: StatusRecord,
    lines: Sequence[Line],
    *,
    spares_workers: bool,
) -> list[str]:
    """A run that ended by failures of its tasks ended as its policy says; what is otherwise.

    :param record: its status.
    :param lines: the ledger's, of this workflow.
    :param spares_workers: no worker has ended but those that the plan ends.
    """
    problems = []
    if record.status is WorkflowStatus.FAILED:
        committed = set(store.read_checkpoints(plan.workflow_id).records)
        if store.read_status(plan.workflow_id) != record:
            return []  # another cluster has resumed it meanwhile
        problems += _check_policy(plan, record, committed)
    if spares_workers:
        problems += _check_used_up(store, plan, record, lines)
    return [f"{plan.workflow_id}, {record.epoch}: {problem}" for problem in problems]


def _check_policy(plan: Plan, record: StatusRecord, committed: set[str]) -> list[str]:
    problems = []
    if plan.shape == "finishing":
        failed = _failed(record)
        numbers = range(plan.size)
        expected = {f"part_{n}" for n in numbers if f"part_{n}" not in failed}
        expected |= {f"behind_{n}" for n in numbers if not {f"part_{n}", f"behind_{n}"} & failed}
        if committed != expected:
            problems.append(f"of {failed} failed, it committed all but {expected ^ committed}")
    if plan.shape == "ruled" and not {"tell", "clean"} - _failed(record) <= committed:
        problems.append(f"after a failure, only {committed} were committed")
    if plan.shape == "ruled" and "last" in committed and plan.on_failure == "stop":
        problems.append("a task without a rule ran after a failure")
    return problems


def _failed(record: StatusRecord) -> set[str]:
    several = record.failed_tasks.first if record.failed_tasks else ()
    return {one.task_id for one in (*several, record.failure) if one is not None}


def _check_used_up(
    store: WorkflowStore, plan: Plan, record: StatusRecord, lines: Sequence[Line]
) -> list[str]:
    """The run ended by a crash no sooner than the budget of crashes was used up.

    An attempt counts that has not begun: Ray may have given it to a worker that a task of another workflow ended.
    """
    failure = record.failure
    trouble = plan.troubles.get(failure.task_id) if failure else None
    if failure is None or trouble is None or failure.cause != "crashed":
        return []
    own = [line for line in lines if (line.task_id, line.epoch) == (failure.task_id, record.epoch)]
    crashes = sum(line.what == "fails" and line.way not in OF_TASK for line in own)
    allowed = trouble.crashes + 1
    begun = {line.attempt for line in own if line.what == "start"}
    told = store.logs.read(plan.workflow_id, LogCursor(record.epoch), task_id=failure.task_id).lines
    lost = {*range(1, max([line.attempt for line in told], default=0) + 1)} - begun
    if crashes + len(lost) < allowed or (trouble.is_alone and crashes > allowed):
        return [f"{failure.task_id} crashed {crashes} times, of {trouble.crashes} that are paid"]
    return []


# ---- over all runs


def check_attempts(plan: Plan, lines: Sequence[Line], *, spares_workers: bool) -> list[str]:
    """No attempt was made beyond its budgets, and failures were not forgotten; what is otherwise."""
    problems = []
    for task_id, trouble in plan.troubles.items():
        if not trouble.is_alone:
            continue  # the loss of a Ray task that several share is paid by none
        most = 1 + trouble.retries + trouble.crashes + OTHER_RETRIES
        for epoch, own in _by_epoch(lines, task_id):
            starts = [line.attempt for line in own if line.what == "start"]
            if max(starts, default=0) > most:
                problems.append(f"{task_id} had {max(starts)} attempts in {epoch}, not {most}")
            if spares_workers:
                problems += _check_paid(task_id, trouble, own)
    return [f"{plan.workflow_id}: {problem}" for problem in problems]


def _check_paid(task_id: str, trouble: Trouble, lines: Sequence[Line]) -> Iterator[str]:
    """Before each attempt of a run, each cause has cost no more than its budget."""
    spent: Counter[str] = Counter()
    for line in lines:
        if line.what == "fails":
            spent["retry" if line.way in OF_TASK else "crashes"] += 1
        over = spent["retry"] > trouble.retries or spent["crashes"] > trouble.crashes
        if line.what == "start" and over:
            yield f"{task_id} began as {line.epoch}.{line.attempt} after {dict(spent)}"


def check_saved(plan: Plan, lines: Sequence[Line], *, may_overlap: bool) -> list[str]:
    """Each attempt goes on from what the one before has saved; what does not.

    :param may_overlap: an attempt that was given up may have gone on beside the next one.
    """
    problems = []
    for task_id, trouble in plan.troubles.items():
        if not trouble.saves:
            continue
        own = [line for line in lines if line.task_id == task_id]
        problems += [f"{plan.workflow_id}: {problem}" for problem in _lost_progress(own)]
        starts = sum(line.what == "start" for line in own)
        steps = sum(line.what == "step" for line in own)
        most = trouble.steps + max(0, starts - 1)
        if steps > most and not may_overlap:
            problems.append(
                f"{plan.workflow_id}: {task_id} did {steps} steps in {starts} attempts, not {most}"
            )
    return problems


def _lost_progress(lines: Sequence[Line]) -> Iterator[str]:
    saved: dict[tuple[int, int], int] = {}
    known: dict[tuple[int, int], int] = {}
    for line in lines:
        attempt = (line.epoch, line.attempt)
        match line.what:
            case "saved":
                saved[attempt] = line.number
            case "start":  # what was saved before has to be found after
                earlier = [one for one in saved if one < attempt]
                known[attempt] = saved[max(earlier)] if earlier else 0
            case "from" if line.number < known.get(attempt, 0):
                yield (
                    f"{line.task_id} went on from {line.number} as {attempt}, and "
                    f"{known[attempt]} had been saved"
                )


def check_memory(plan: Plan, lines: Sequence[Line]) -> list[str]:
    """A task that asks for more after a lack of memory gets twice as much each time, up to its limit."""
    asked = [
        [line.number for line in own if line.what == "asks"] for _, own in _by_epoch(lines, "eat")
    ]
    allowed = {64: (64, 128), 128: (128, 200), 200: (200,)}  # the same after other losses
    wrong = [
        one
        for one in asked
        if one and (one[0] not in allowed or any(b not in allowed[a] for a, b in pairwise(one)))
    ]
    return [f"{plan.workflow_id} asked for {one} MiB" for one in wrong]


def check_policies(
    plan: Plan, lines: Sequence[Line], *, spares_workers: bool, may_overlap: bool
) -> list[str]:
    """All of these; what breaks them."""
    return [
        *check_attempts(plan, lines, spares_workers=spares_workers),
        *check_saved(plan, lines, may_overlap=may_overlap),
        *check_memory(plan, lines),
    ]


def check_rules(plan: Plan, lines: Sequence[Line]) -> list[str]:
    """Of a run without other harm: what runs after failures ran once, and only what was bad ran again."""
    if not plan.bad_parts:
        return []
    starts = Counter(line.task_id for line in lines if line.what == "start")
    if plan.shape == "ruled" and starts["tell"] != 1:
        return [f"{plan.workflow_id}: tell ran {starts['tell']} times"]
    often = {task_id for task_id, times in starts.items() if times > 1}
    if plan.shape == "finishing" and often != plan.bad_parts:
        return [f"{plan.workflow_id}: {often} ran again, {plan.bad_parts} were bad"]
    return []


def _by_epoch(lines: Sequence[Line], task_id: str) -> Iterator[tuple[int, list[Line]]]:
    own = sorted((line for line in lines if line.task_id == task_id), key=lambda one: one.epoch)
    for epoch, found in groupby(own, key=lambda one: one.epoch):
        yield epoch, list(found)


def by_workflow(lines: Sequence[Line]) -> Mapping[str, list[Line]]:
    """The lines of each workflow, in their order."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line.workflow_id, []).append(line)
    return found
