"""When a task instance leaves its worker for the triggerer, and when it may come back.

Airflow 3.3 fails a task instance that comes back from a deferral too soon (apache/airflow #67287,
#71580, #72716). The scheduler hears of the end of the first half from the executor, later than of
the deferral itself, and it knows that half by names which the second half shares: a task instance
that is queued or running again by then counts as killed from outside.
"""

from __future__ import annotations

from airflow.sdk.configuration import conf

#: How long a task instance waits in its worker before it is deferred: a workflow that ends by then
#: needs no second process.
STAY_S = 5.0

# The process of the first half ends, the scheduler's loop goes round, an executor asks its workers:
# each takes a moment, on a busy machine some seconds.
_MARGIN_S = 6.0


def least_deferral_s() -> float:
    """How long a deferral has to last, in seconds, so that Airflow can't take its end for a kill.

    The parts, in the order in which they pass:

    - ``[workers] min_heartbeat_interval``, 5 s by default: a supervisor whose task process has
      closed its sockets and not ended yet looks at it again after that time
      (``airflow.sdk.execution_time.supervisor``, ``_monitor_subprocess``).
    - ``[scheduler] scheduler_idle_sleep_time``, 1 s by default: the pause between two rounds of
      the scheduler, which takes the executor's reports once a round
      (``airflow.jobs.scheduler_job_runner``, ``_run_scheduler_loop``).
    - a margin of 6 s for what has no setting.
    """
    heartbeat_s = conf.getfloat("workers", "min_heartbeat_interval", fallback=5.0)
    round_s = conf.getfloat("scheduler", "scheduler_idle_sleep_time", fallback=1.0)
    return float(heartbeat_s + round_s + _MARGIN_S)


def latest_return_s() -> float:
    """How much later than its own deadline Airflow's scheduler ends a deferral, in seconds.

    It does so only where no triggerer is there to notice the deadline.
    """
    return least_deferral_s() + _TRIGGERER_MARGIN_S


_TRIGGERER_MARGIN_S = 30.0
