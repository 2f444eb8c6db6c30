"""``rayworkflow list``: workflows and their statuses, the newest first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_provider_rayworkflow.workflow.cli.stored import open_stored
from airflow_provider_rayworkflow.workflow.cli.text import table, table_lines
from airflow_provider_rayworkflow.workflow.cli.usage import (
    Answer,
    Commands,
    Json,
    add_status,
    count,
    point_in_time,
)
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowError
from airflow_provider_rayworkflow.workflow.format.shown_text import escaped
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import shown
from airflow_provider_rayworkflow.workflow.storage.listing import (
    LISTED,
    ListFilter,
    ListPage,
    iterate,
    read_page,
)
from airflow_provider_rayworkflow.workflow.storage.overview import Listed, Overview

_STATUSES = [status for status in WorkflowStatus if status in LISTED]
_TITLES = ("WORKFLOW", "STATUS", "EPOCH")
_PAGE_SIZE = 100


def add_to(commands: Commands) -> None:
    parser = commands.add(
        "list", _list, "List workflows and their statuses, those that were created last first."
    )
    add_status(parser, _STATUSES, f"only those with one of these: {', '.join(_STATUSES)}")
    parser.add_argument(
        "--dag", metavar="DAG", default="", help="only those that this Airflow DAG has started"
    )
    parser.add_argument(
        "--since",
        metavar="TIME",
        type=point_in_time,
        help="only those created from then on: 2026-07-01, 2026-07-01T12:00+02:00, or an age: 36h",
    )
    parser.add_argument(
        "--until", metavar="TIME", type=point_in_time, help="only those created before"
    )
    parser.add_argument(
        "--id",
        metavar="PART",
        default="",
        help="only those whose id has this in it, in upper or lower case; with --limit, those whose "
        "id begins with it come first",
    )
    parser.add_argument(
        "--limit", metavar="N", type=count, help="show a page of so many, and how to get the next"
    )
    parser.add_argument(
        "--page",
        metavar="CURSOR",
        default="",
        help=f"show the page that an answer has named, with the same filter ({_PAGE_SIZE} workflows "
        "without --limit)",
    )


def _list(options: Any) -> Answer:
    store = open_stored(options)
    problems: list[str] = []

    def leave_out(problem: WorkflowError) -> None:
        problems.append(str(problem))

    overview = Overview(store, report=leave_out)
    chosen = ListFilter(
        statuses=frozenset(map(WorkflowStatus, options.status or ())),
        dag_id=options.dag,
        since=options.since,
        until=options.until,
        text=options.id,
    )
    none = f"No workflows{' of this filter' if chosen != ListFilter() else ''} in {shown(store.bytes.uri)}."
    if options.limit is not None or options.page:
        size = options.limit or _PAGE_SIZE
        page = read_page(overview, chosen, size=size, after=options.page)
        return Answer(value=_page_value(page), text=_page_text(page, none), problems=(*problems,))
    found = _all(overview, chosen)
    if options.json:
        # One that ended meanwhile may have come twice.
        values = {listed.row.segment: _value(listed) for listed in found}
        return Answer(value=list(values.values()), text=None, problems=tuple(problems))
    text = None if _print(found) else none
    return Answer(value=None, text=text, problems=tuple(problems))


def _all(overview: Overview, chosen: ListFilter) -> Iterator[Listed]:
    has_times = chosen.dag_id or chosen.since is not None or chosen.until is not None
    if overview.load() or has_times:
        yield from iterate(overview, chosen)
        return
    # Without an index, names tell enough: no document has to be read.
    text = chosen.text.lower()
    for listed in overview.find(chosen.statuses or LISTED):
        if text in listed.workflow_id.lower():
            yield listed


def _print(found: Iterator[Listed]) -> bool:
    """Print rows as they come; False if none came."""
    lines = table_lines(_TITLES, map(_cells, found))
    title = next(lines)
    has_rows = False
    for line in lines:
        if not has_rows:
            print(escaped(title))
        has_rows = True
        print(escaped(line))
    return has_rows


def _page_text(page: ListPage, none: str) -> str:
    lines = [table(_TITLES, map(_cells, page.rows)) if page.rows else none]
    if page.is_cut:
        lines.append("Not all workflows were looked at: there may be more.")
    if page.next:
        lines.append(f"The next page: --page {page.next}")
    elif page.is_cut:
        lines.append("A narrower filter shows them, or `rayworkflow reindex` before.")
    return "\n".join(lines)


def _page_value(page: ListPage) -> Json:
    return {
        "workflows": [_value(listed) for listed in page.rows],
        "next_page": page.next or None,
        "is_cut": page.is_cut,
    }


def _cells(listed: Listed) -> tuple[str, WorkflowStatus, int]:
    return listed.workflow_id, listed.status, listed.row.epoch


def _value(listed: Listed) -> Json:
    """What is known of a workflow; times in seconds since the epoch."""
    row = listed.row
    value: Json = {
        "workflow_id": listed.workflow_id,
        "status": listed.status,
        "epoch": row.epoch,
    }
    times = {"created_at": row.created_at, "started_at": row.started_at, "ended_at": row.ended_at}
    known = {name: at for name, at in times.items() if at}
    return value | known | ({"dag_id": row.dag_id} if row.dag_id else {})
