"""Waits for Ray workflows that others run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)

from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowEndedError,
    RayWorkflowInputError,
    RayWorkflowStorageError,
)
from airflow_provider_rayworkflow.links import LeavesLinks, RayWorkflowLink
from airflow_provider_rayworkflow.names import DEFAULT_CONN_ID
from airflow_provider_rayworkflow.tries import deferral
from airflow_provider_rayworkflow.tries.backoff import Backoff
from airflow_provider_rayworkflow.tries.definition import check_id
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_rayworkflow.hooks import RayWorkflowHook

Json = dict[str, Any]


class RayWorkflowSensor(LeavesLinks, BaseSensorOperator):
    """Wait for a workflow, also one of a program, or for one of its tasks.

    Its XCom is the status that the workflow had then. A sensor owns nothing: the
    workflow goes on also if the sensor is killed.

    :param workflow_id: need not exist yet. (templated)
    :param statuses: to wait for, names of :class:`WorkflowStatus`.
    :param failed_statuses: that fail the sensor at once. Without FAILED and RESUMABLE among them
        it waits on, for a resume of the workflow. A final status, SUCCESSFUL or CANCELED,
        always ends the wait.
    :param workflow_task_id: wait until this task of the workflow has a committed result, instead
        of for ``statuses``. (templated)
    :param ray_workflow_conn_id: says where the storage is. (templated)
    :param deferrable: wait in the triggerer. By default Airflow's ``[operators]
        default_deferrable``. ``poke_interval`` counts there too; sensors and tasks of one
        connection share their looks at the storage.
    :param unreachable_timeout_s: how long to keep retrying a storage that can't be read.
    """

    operator_extra_links = (RayWorkflowLink(),)
    template_fields: Sequence[str] = ("workflow_id", "workflow_task_id", "ray_workflow_conn_id")
    ui_color = "#e3f1fd"
    #: How long it looks itself, in seconds, before it is deferred.
    stay_s: float = deferral.STAY_S

    def __init__(
        self,
        *,
        workflow_id: str,
        statuses: Sequence[str] | None = None,
        failed_statuses: Sequence[str] = ("FAILED", "CANCELED"),
        workflow_task_id: str | None = None,
        ray_workflow_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        unreachable_timeout_s: float = 600.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if workflow_task_id is not None and statuses is not None:
            raise RayWorkflowInputError(
                "A sensor waits either for statuses or for a workflow_task_id, not for both."
            )
        _check_statuses("statuses", statuses or ())
        _check_statuses("failed_statuses", failed_statuses)
        self.workflow_id = workflow_id
        self.statuses = statuses
        self.failed_statuses = failed_statuses
        self.workflow_task_id = workflow_task_id
        self.ray_workflow_conn_id = ray_workflow_conn_id
        self.deferrable = deferrable
        self.unreachable_timeout_s = unreachable_timeout_s
        self.left_links = {}

    def execute(self, context: Context) -> Any:
        """Wait as ``mode`` or ``deferrable`` says.

        :raises RayWorkflowEndedError: when what is waited for can't come any more; not retried.
        """
        url = RayWorkflowLink.url(self.ray_workflow_conn_id, check_id(self.workflow_id))
        self._leave_link(context["ti"], RayWorkflowLink(), url)
        if not self.deferrable:
            return super().execute(context)
        with self._failing_as_in_poke_mode():
            return self._wait_deferred(*self._deadline())

    def resume_execution(self, next_method: str, next_kwargs: Json | None, context: Context) -> Any:
        """Airflow's entry after a deferral."""
        self.left_links = None
        with self._failing_as_in_poke_mode():
            return super().resume_execution(next_method, next_kwargs, context)

    @contextmanager
    def _failing_as_in_poke_mode(self) -> Iterator[None]:
        """Skip by ``soft_fail`` and ``never_fail`` what they skip where the sensor pokes."""
        try:
            yield
        except AirflowSkipException:
            raise
        except (AirflowSensorTimeout, AirflowTaskTimeout, AirflowFailException) as exc:
            if self.soft_fail or self.never_fail:
                name = "soft_fail" if self.soft_fail else "never_fail"
                raise AirflowSkipException(f"Skipped, since {name} is set: {exc}") from exc
            raise
        except Exception as exc:
            if self.never_fail:
                raise AirflowSkipException(f"Skipped, since never_fail is set: {exc}") from exc
            raise

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        from airflow_provider_rayworkflow.hooks import RayWorkflowHook

        workflow_id = check_id(self.workflow_id)
        hook = RayWorkflowHook(self.ray_workflow_conn_id)
        return Backoff(self.unreachable_timeout_s).retrying(
            lambda: self._look(hook, workflow_id),
            errors=RayWorkflowStorageError,
            warn=self.log.warning,
        )

    def execute_complete(self, context: Context, event: Json) -> Any:
        """Called when the trigger has fired."""
        deadline, clock = event["carried"]["deadline"], event["carried"]["clock"]
        if event["reason"] == "unreachable":
            message = f"{event['error']} Given up after {self.unreachable_timeout_s:g} s."
            if not self.silent_fail:
                raise RayWorkflowStorageError(message)
            self.log.error("Sensor poke failed: %s", message)
        if event["reason"] == "deadline":
            message = (
                f"{clock} is over, and workflow {event['workflow_id']!r} is {event['status']}."
            )
            if clock == _TASK_CLOCK:
                raise AirflowTaskTimeout(message)
            raise AirflowSensorTimeout(message)
        return self._wait_deferred(deadline, clock)

    def _wait_deferred(self, deadline: float, clock: str) -> Any:
        answer = self._poke_for(min(self.stay_s, deadline - time.time()))
        if answer.is_done:
            return answer.xcom_value
        from airflow_provider_rayworkflow.triggers import RayWorkflowTrigger

        self.defer(
            trigger=RayWorkflowTrigger(
                workflow_id=self.workflow_id,
                statuses=sorted({*self._wanted, *self._ends}),
                workflow_task_id=self.workflow_task_id,
                ray_workflow_conn_id=self.ray_workflow_conn_id,
                poll_interval_s=float(self.poke_interval),
                deadline=deadline,
                unreachable_timeout_s=self.unreachable_timeout_s,
                carried={"deadline": deadline, "clock": clock},
            ),
            method_name="execute_complete",
            # Only if there is no triggerer to see the deadline.
            timeout=timedelta(
                seconds=max(0.0, deadline - time.time()) + deferral.latest_return_s()
            ),
        )

    def _poke_for(self, seconds: float) -> PokeReturnValue:
        """Look again and again for a while before the deferral."""
        until = time.monotonic() + seconds
        while True:
            answer = self._look_once()
            left_s = until - time.monotonic()
            if answer.is_done or left_s <= 0:
                return answer
            time.sleep(min(left_s, self.poke_interval, _STAY_INTERVAL_S))

    def _look_once(self) -> PokeReturnValue:
        try:
            return self.poke({})
        except AirflowFailException:
            raise
        except Exception:
            if not self.silent_fail:
                raise
            self.log.exception("Sensor poke failed")
            return PokeReturnValue(False)

    def _look(self, hook: RayWorkflowHook, workflow_id: str) -> PokeReturnValue:
        found = hook.find(workflow_id)
        status = found.status if found else WorkflowStatus.NONE
        what = "it"
        if self.workflow_task_id is None:
            is_done = status in self._wanted
        else:
            what = f"its task {self.workflow_task_id!r}"
            is_done = found is not None and hook.has_finished(found, self.workflow_task_id)
        self.log.info("Workflow %s is %s", workflow_id, status)
        if not is_done and status in self._ends:
            wanted = "has finished" if self.workflow_task_id else f"is {' or '.join(self._wanted)}"
            failure = found.record.failure if found else None
            raise RayWorkflowEndedError(workflow_id, status, f"{what} {wanted}", failure)
        return PokeReturnValue(is_done, xcom_value=status.value if is_done else None)

    @property
    def _wanted(self) -> tuple[str, ...]:
        if self.workflow_task_id is not None:
            return ()
        return tuple(self.statuses or (WorkflowStatus.SUCCESSFUL.value,))

    @property
    def _ends(self) -> frozenset[str]:
        """What can't, or shall not, become what is waited for."""
        return _FINAL.union(self.failed_statuses) - set(self._wanted)

    def _deadline(self) -> tuple[float, str]:
        """When to give up, in seconds since the epoch, and whose time it is."""
        of_sensor = self.timeout, f"The timeout of the sensor, {self.timeout:g} s,"
        if self.execution_timeout is None:
            seconds, clock = of_sensor
        else:
            of_task = self.execution_timeout.total_seconds(), _TASK_CLOCK
            seconds, clock = min(of_sensor, of_task)
        return time.time() + seconds, clock


_FINAL = frozenset({WorkflowStatus.SUCCESSFUL.value, WorkflowStatus.CANCELED.value})
_TASK_CLOCK = "The execution_timeout"
# How often to look in the worker, at least, before the deferral.
_STAY_INTERVAL_S = 1.0


def _check_statuses(name: str, statuses: Sequence[str]) -> None:
    known = [status.value for status in WorkflowStatus if status is not WorkflowStatus.NONE]
    unknown = [status for status in statuses if status not in known]
    if isinstance(statuses, str) or unknown:
        raise RayWorkflowInputError(f"{name} must be a list of {known}, not {statuses!r}.")
