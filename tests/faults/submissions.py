"""The workflows of a run as submissions: documents in the mailbox, as tries of task instances write them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection
from typing import Literal

import psutil
from runs import Run
from shapes import Plan

from airflow_provider_rayworkflow import __version__
from airflow_provider_rayworkflow.workflow.storage.mailbox import (
    Mailbox,
    Submission,
    SubmissionAnswer,
    python_version,
)


class Submissions:
    """What a run has submitted to the manager of its world's first cluster.

    With ``on_existing="restart"``, as for half of the seeds, a submission that is run twice runs committed
    tasks again, which the checks of a run notice.

    :param build_s: how long the worker takes that makes a graph.
    """

    def __init__(self, run: Run, *, build_s: float = 0.0) -> None:
        self._run = run
        self._build_s = build_s
        self._builders = run.ledger.path.with_suffix(".builders")
        self._builders.unlink(missing_ok=True)
        choices: list[Literal["resume", "restart"]] = ["resume", "restart"]
        self._on_existing = run.rng.choice(choices)
        self._mailbox = Mailbox(run.world.bytes)
        self.cluster: str = run.world.cluster.ask("cluster_id")

    def write(self) -> None:
        """Submit all workflows of the run."""
        for plan in self._run.plans:
            self._submit(plan)

    def settle(self) -> None:
        """Wait until each is answered and gone, and read the answers, as tries do.

        A try whose submission could not be begun, as the worker with its graph was lost again and again,
        is followed by another try.
        """
        for plan in self._run.plans:
            while (answer := self._answer(plan)) is None or answer.outcome != "accepted":
                if answer is None or "was lost" not in answer.message:
                    self._run.problems.append(f"{plan.workflow_id} got the answer {answer}")
                    break
                self._mailbox.delete_answer(plan.workflow_id, answer.submission_id)
                self._submit(plan)
        self._run.wait_until(lambda: not self._open())
        for plan in self._run.plans:
            self._mailbox.delete_answer(plan.workflow_id, self._latest(plan))

    def are_answered(self) -> bool:
        return all(self._read_answer(plan) is not None for plan in self._run.plans)

    def builder(self, *, but: Collection[int]) -> int | None:
        """A process that makes a graph now, or has just made it; None if there is no such process.

        :param but: those that do not count.
        """
        if not self._builders.exists():
            return None
        found = [int(line) for line in self._builders.read_text().split()]
        return next((pid for pid in found if pid not in but and psutil.pid_exists(pid)), None)

    def _submit(self, plan: Plan) -> None:
        submission_id = uuid.uuid4().hex
        self._run.submitted.setdefault(plan.workflow_id, []).append(submission_id)
        arguments = {
            "ledger": str(self._run.ledger.path),
            "plan": plan.to_json(),
            "builders": str(self._builders),
            "build_s": self._build_s,
        }
        self._mailbox.submit(
            Submission(
                workflow_id=plan.workflow_id,
                submission_id=submission_id,
                token=uuid.uuid4().hex,
                cluster=self.cluster,
                workflow="shapes:from_submission",
                arguments=arguments,
                user_metadata={},
                on_existing=self._on_existing,
                on_failure=plan.on_failure,
                submitted_at=time.time(),
                python=python_version(),
                package_version=__version__,
            )
        )

    def _answer(self, plan: Plan) -> SubmissionAnswer | None:
        """The answer to the latest submission of a workflow; None if it never came."""
        try:
            answer: SubmissionAnswer = self._run.wait_until(lambda: self._read_answer(plan))
        except TimeoutError:
            return None
        return answer

    def _read_answer(self, plan: Plan) -> SubmissionAnswer | None:
        return self._mailbox.read_answer(plan.workflow_id, self._latest(plan))

    def _latest(self, plan: Plan) -> str:
        return self._run.submitted[plan.workflow_id][-1]

    def _open(self) -> list[str]:
        ours = [f"/{ids[-1]}.submission" for ids in self._run.submitted.values()]
        return [key for key in self._mailbox.list_submissions() if key.endswith(tuple(ours))]
