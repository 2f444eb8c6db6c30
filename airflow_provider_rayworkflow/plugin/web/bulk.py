"""What is done to all workflows that a filter selects: they are counted first, then it is done in batches.

The page's script asks for one batch after the other, so that each is answered in time. Each workflow is read
again, and needs the rights that it would need alone.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fastapi import HTTPException
from pydantic import BaseModel, Field

from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.plugin.web.access import Access
from airflow_provider_rayworkflow.plugin.web.actions import (
    METHODS,
    ActionBody,
    ClusterAwayError,
    PageAction,
    act,
)
from airflow_provider_rayworkflow.plugin.web.chosen import STATUSES, Chosen, known_statuses
from airflow_provider_rayworkflow.plugin.web.lanes import NoAnswerError, each
from airflow_provider_rayworkflow.plugin.web.lists import (
    Row,
    open_overview,
    origin_of,
    read_in_turn,
)
from airflow_provider_rayworkflow.plugin.web.seals import seal, unseal
from airflow_provider_rayworkflow.plugin.web.storages import open_hook
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.listing import (
    LISTED,
    ListFilter,
    ListPage,
    UnknownPageError,
    check_begin,
)
from airflow_provider_rayworkflow.workflow.storage.overview import Listed, Overview

log = get_logger(__name__)

#: So many workflows at most are acted on after one confirmation.
MOST = 1000
#: So many at most in one request.
BATCH = 100
# Rows that the filter does not take make pages that are cut.
_MOST_PAGES = 4
# A cluster may take a second for each.
_RESUMED_AT_ONCE = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class BulkOffer:
    """A button for all that a filter selects.

    :ivar question: what has to be confirmed.
    :ivar statuses: of the workflows that it is for.
    :ivar batch: for how many the script asks at once.
    """

    title: str
    question: str
    statuses: frozenset[WorkflowStatus]
    batch: int = BATCH


OFFERS = {
    PageAction.RESUME: BulkOffer(
        title="Resume",
        question="Airflow clears the task instances that started them, and their next tries resume them. "
        "What no task instance started, the connection's cluster resumes. Tasks with a checkpoint don't "
        "run again.",
        statuses=frozenset(status for status in LISTED if status.can_be_resumed),
        batch=_RESUMED_AT_ONCE,
    ),
    PageAction.CANCEL: BulkOffer(
        title="Cancel",
        question="They are stopped for good: they can't be resumed. Task instances that wait for them "
        "fail.",
        statuses=LISTED - {WorkflowStatus.SUCCESSFUL, WorkflowStatus.CANCELED},
    ),
    PageAction.DELETE: BulkOffer(
        title="Delete",
        question="Everything that is stored of them is deleted, their outputs and their checkpoints too.",
        statuses=frozenset(status for status in LISTED if not status.is_active),
    ),
}


class BulkBody(BaseModel):
    """What the page's script sends, a batch at a time: :class:`.Chosen` is the filter.

    :ivar before: :attr:`Selected.before` of what the user has confirmed: later workflows are not meant.
    :ivar most: how many it acts on, at most.
    """

    conn_id: str = Field(max_length=250)
    action: PageAction
    status: list[str] = Field(default=[], max_length=20)
    dag_id: str = Field(default="", max_length=250)
    since: str = Field(default="", max_length=40)
    until: str = Field(default="", max_length=40)
    text: str = Field(default="", max_length=500)
    before: float
    after: str = Field(default="", max_length=2000)
    most: int = Field(ge=1, le=BATCH)

    @property
    def chosen(self) -> Chosen:
        return Chosen(
            status=known_statuses(self.status),
            dag_id=self.dag_id,
            since=self.since,
            until=self.until,
            text=self.text,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Selected:
    """How many workflows an action is for.

    :ivar count: at most :data:`MOST`.
    :ivar is_more: there are more, or may be: not all were looked at.
    :ivar before: the first time after the newest creation among them, in seconds since the epoch by the clocks of
        the managers that created them. This server's clock may differ from those.
    """

    count: int = 0
    is_more: bool = False
    before: float = field(default=0.0, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchDone:
    """What became of a batch.

    :ivar done: how many are done.
    :ivar clears: task instances that the page's script has to clear, with the ids of their workflows.
    :ivar failures: the others, each as an id and a reason for people.
    :ivar next: begins the next batch, ``""`` for none.
    """

    done: int = 0
    clears: Sequence[dict[str, Any]] = ()
    failures: Sequence[tuple[str, str]] = ()
    next: str = ""


def bulk_offers(access: Access, conn_id: str, rows: Sequence[Row]) -> dict[PageAction, BulkOffer]:
    """What the user may have done to at least one of these workflows."""
    return {
        action: offer
        for action, offer in OFFERS.items()
        if any(
            row.listed.status in offer.statuses
            and access.allows(METHODS[action], conn_id, row.origin)
            for row in rows
        )
    }


def statuses_for(chosen: Chosen, action: PageAction) -> list[str]:
    """The statuses of the workflows that are selected, by name."""
    wanted = OFFERS[action].statuses
    return [name for name in chosen.status or STATUSES if name in wanted]


def count_selected(
    hook: RayWorkflowHook, access: Access, chosen: Chosen, action: PageAction, *, most: int = MOST
) -> Selected:
    """How many workflows of a filter the user may do this to now.

    :raises StorageError: when the storage can't be read.
    """
    overview, count, after, before = open_overview(hook), 0, "", 0.0
    for _ in range(_MOST_PAGES):
        page = _read(overview, hook, access, chosen.filter, action, size=most - count, after=after)
        count, after = count + len(page.rows), page.next
        before = max([before, *(_behind(listed.row.created_at) for listed in page.rows)])
        if not after or count == most:
            break
    return Selected(count=count, is_more=bool(after), before=before)


def _behind(seconds: float) -> float:
    return math.nextafter(seconds, math.inf)


def act_on_batch(
    access: Access,
    body: BulkBody,
    *,
    act_on: Callable[..., str] = act,
    at_once: int | None = None,
) -> dict[str, Any]:
    """Do it to the next workflows of a filter. What goes wrong with one does not stop the others.

    :param act_on: :func:`.actions.act`.
    :param at_once: on how many at the same time; by default on as many as the storage gains by.
    :raises HTTPException: 422 where the filter or the begin is none; 502 as for one workflow.
    """
    if body.action not in OFFERS:
        raise HTTPException(422, f"{body.action.value} is done to one workflow at a time.")
    chosen = body.chosen.filter
    until = min(body.before, chosen.until) if chosen.until is not None else body.before
    # Before the connection is opened: a refusal tells nothing of it.
    try:
        after = unseal(body.after)
        check_begin(after, _for(body.action, chosen))
    except UnknownPageError as exc:
        raise HTTPException(422, str(exc)) from exc
    if (opened := _open_batch(access, body, replace(chosen, until=until), after)) is None:
        return asdict(BatchDone())
    hook, page = opened
    batch = _Batch(
        access, hook, body.action, act_on, at_once=at_once or hook.store.bytes.reads_at_once
    )
    # One note for many.
    inactive = [one.row.segment for one in page.rows if not one.status.is_active]
    is_noted = body.action is not PageAction.RESUME and inactive
    with hook.store.notes.changing(inactive) if is_noted else nullcontext():
        return asdict(batch.act(page))


def _open_batch(
    access: Access, body: BulkBody, chosen: ListFilter, after: str
) -> tuple[RayWorkflowHook, ListPage] | None:
    """The connection, and the workflows of a batch; None for a user who may not know that there is such a one.

    :raises HTTPException: 422 where the begin is of another storage; 502 where they can't be read.
    """
    found = None
    try:
        hook = open_hook(body.conn_id)
        overview = open_overview(hook)
        page = _read(overview, hook, access, chosen, body.action, size=body.most, after=after)
        found = hook, page
    except NoAnswerError:
        raise
    except UnknownPageError as exc:  # of another storage
        if access.allows_connection("GET", body.conn_id):
            raise HTTPException(422, str(exc)) from exc
    except Exception as exc:  # any error: an answer, and the details to the log only
        log.warning("The workflows of connection %r can't be listed: %s", body.conn_id, exc)
        if access.allows_connection("GET", body.conn_id):
            access.fail(body.conn_id)
    has_rows = found is not None and found[1].rows
    return found if has_rows or access.allows_connection("GET", body.conn_id) else None


class _Batch:
    """Acts on the workflows of a batch."""

    def __init__(
        self,
        access: Access,
        hook: RayWorkflowHook,
        action: PageAction,
        act_on: Callable[..., str],
        *,
        at_once: int,
    ) -> None:
        self._access = access
        self._hook = hook
        self._action = action
        self._act_on = act_on
        self._at_once = at_once
        self._away = ""
        self._cluster = threading.Lock()

    def act(self, page: ListPage) -> BatchDone:
        """Act on the workflows of a page. Where a cluster is needed that is away, on no more."""
        said = each(self._act_or_say, page.rows, at_once=self._at_once)
        told = list(zip(page.rows, said, strict=True))
        acted_on = [listed for listed, failure in told if not failure]
        clears = [clear for listed in acted_on if (clear := self._clear_of(listed))]
        return BatchDone(
            done=len(acted_on) - len(clears),
            clears=clears,
            failures=[(listed.workflow_id, failure) for listed, failure in told if failure],
            next="" if self._away else seal(page.next),
        )

    def _act_or_say(self, listed: Listed) -> str:
        """Act on one workflow; returns why that failed, for people, ``""`` if it did not."""
        needs_cluster = self._action is PageAction.RESUME and origin_of(listed) is None
        try:
            # One that is away is asked once.
            with self._cluster if needs_cluster else nullcontext():
                if self._away:
                    return f"Not tried. {self._away}"
                self._act(listed)
        except NoAnswerError:
            raise
        except HTTPException as exc:
            return str(exc.detail)
        except Exception:
            log.exception("%s of workflow %r failed", self._action, listed.workflow_id)
            return _FAILED
        return ""

    def _act(self, listed: Listed) -> None:
        conn_id, workflow_id = self._hook.ray_workflow_conn_id, listed.workflow_id
        body = ActionBody(conn_id=conn_id, workflow_id=workflow_id, action=self._action)
        try:
            self._act_on(self._access, body, hook=self._hook)
        except ClusterAwayError as exc:
            self._away = str(exc.detail)
            raise

    def _clear_of(self, listed: Listed) -> dict[str, Any] | None:
        """The task instance that the page's script has to clear, None for none."""
        origin = origin_of(listed)
        if self._action is not PageAction.RESUME or origin is None:
            return None
        return {"workflow_id": listed.workflow_id, **asdict(origin.key)}


_FAILED = "It failed. The API server's log says why."


def _read(
    overview: Overview,
    hook: RayWorkflowHook,
    access: Access,
    chosen: ListFilter,
    action: PageAction,
    *,
    size: int,
    after: str,
) -> ListPage:
    """A page of those that the filter selects, and that the user may do this to."""
    conn_id = hook.ray_workflow_conn_id
    chosen = _for(action, chosen)
    if not chosen.statuses:
        return ListPage(rows=[])

    def may_act(listed: Listed) -> bool:
        origin = origin_of(listed)
        return all(access.allows(one, conn_id, origin) for one in ("GET", METHODS[action]))

    return read_in_turn(
        overview,
        chosen,
        size=size,
        after=after,
        is_shown=may_act,
    )


def _for(action: PageAction, chosen: ListFilter) -> ListFilter:
    """The filter with the statuses that allow the action; with no status where none does."""
    return replace(chosen, statuses=OFFERS[action].statuses & (chosen.statuses or LISTED))
