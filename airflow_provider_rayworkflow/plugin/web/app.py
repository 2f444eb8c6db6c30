"""The routes. Each needs a user who is logged in; what is shown comes from the storage alone."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from fastapi.templating import Jinja2Templates
from starlette.exceptions import HTTPException as StarletteHTTPException

from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.plugin import base_path
from airflow_provider_rayworkflow.plugin.graphs import draw, members
from airflow_provider_rayworkflow.plugin.tasks import TaskDetails
from airflow_provider_rayworkflow.plugin.web import formats
from airflow_provider_rayworkflow.plugin.web.access import (
    UNREADABLE,
    Access,
    AccessDep,
    get_user,
    login_url,
)
from airflow_provider_rayworkflow.plugin.web.actions import ActionBody, PageAction, act, offered
from airflow_provider_rayworkflow.plugin.web.bulk import (
    OFFERS,
    BulkBody,
    Selected,
    act_on_batch,
    bulk_offers,
    count_selected,
    statuses_for,
)
from airflow_provider_rayworkflow.plugin.web.chosen import STATUSES, ChosenDep
from airflow_provider_rayworkflow.plugin.web.lanes import NoAnswerError, in_turn
from airflow_provider_rayworkflow.plugin.web.lists import (
    ShownPage,
    count_page,
    list_page,
    visible_part,
)
from airflow_provider_rayworkflow.plugin.web.logs import log_after
from airflow_provider_rayworkflow.plugin.web.responses import SafeJson, on_storage, on_task_instance
from airflow_provider_rayworkflow.plugin.web.shown import (
    ShownWorkflow,
    describe_task,
    open_workflow,
)
from airflow_provider_rayworkflow.plugin.web.storages import open_hook
from airflow_provider_rayworkflow.plugin.web.task_instances import workflow_of
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.offline.plan import PlannedTask
from airflow_provider_rayworkflow.workflow.storage.outline import TooLargeError

log = get_logger(__name__)

_HERE = Path(__file__).parent
_STATIC = {
    file.relative_to(_HERE / "static").as_posix(): file
    for file in (_HERE / "static").rglob("*")
    if file.is_file()
}
_TEMPLATES = Jinja2Templates(directory=_HERE / "templates")
_TEMPLATES.env.filters.update(formats.FILTERS)
_TEMPLATES.env.globals["tasks_title"] = formats.STATE_TITLES
_TEMPLATES.env.globals["plan_titles"] = formats.PLAN_TITLES

# No script but our own files, and no other site may show the page in a frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'self'; base-uri 'none'"
)

ConnId = Annotated[str, Query(max_length=250)]
WorkflowId = Annotated[str, Query(max_length=2000)]


@functools.cache
def create_app() -> FastAPI:
    """The pages, to be mounted below Airflow's API server."""
    app = FastAPI(
        title="Ray workflows",
        dependencies=[Depends(get_user)],  # of every route: nothing is open by forgetting it
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        default_response_class=SafeJson,
    )
    app.get("/")(to_workflows)
    app.get("/workflows", response_class=HTMLResponse)(show_workflows)
    app.get("/counts", response_class=HTMLResponse)(show_counts)
    app.get("/bulk", response_class=HTMLResponse)(show_bulk)
    app.post("/bulk")(do_bulk)
    app.get("/workflow", response_class=HTMLResponse)(show_workflow)
    app.get("/task_instance", response_class=HTMLResponse)(show_task_instance)
    app.get("/workflow/live")(show_changes)
    app.get("/workflow/group", response_class=HTMLResponse)(show_group)
    app.get("/workflow/task", response_class=HTMLResponse)(show_task)
    app.get("/workflow/all_logs", response_class=HTMLResponse)(show_all_logs)
    app.get("/workflow/log")(show_log)
    app.post("/workflow/action")(do_action)
    app.get("/static/{name:path}")(static)
    app.add_exception_handler(StarletteHTTPException, _show_error)
    app.add_exception_handler(RequestValidationError, _show_refusal)
    app.middleware("http")(_protected)
    return app


# ---- pages


async def to_workflows() -> Response:
    """The list is the first page."""
    return RedirectResponse("workflows")


@on_storage
def show_workflows(
    request: Request,
    access: AccessDep,
    chosen: ChosenDep,
    conn_id: ConnId = RayWorkflowHook.default_conn_name,
) -> Response:
    """The workflows of a connection that the user may see: one page of them."""
    may_see_all = access.allows_connection("GET", conn_id)
    page: ShownPage | None = None
    try:
        page = list_page(open_hook(conn_id), access, chosen)
    except NoAnswerError:
        raise
    except Exception as exc:  # any error: an answer, and the details to the log only
        log.warning("The workflows of connection %r can't be listed: %s", conn_id, exc)
    problem = "" if page or not may_see_all else UNREADABLE
    page = visible_part(page, may_see_connection=may_see_all)
    context = {
        "conn_id": conn_id,
        "connections": access.connections,
        "statuses": STATUSES,
        "chosen": chosen,
        "problem": problem,
        "page": page,
        "offers": bulk_offers(access, conn_id, page.rows) if page else {},
        "may_count": page is not None and access.allows_all(conn_id),
    }
    return _page(request, "workflows.html", context)


@on_storage
def show_counts(
    request: Request, access: AccessDep, chosen: ChosenDep, conn_id: ConnId
) -> Response:
    """How many workflows were created in the last day, as a part of the list's page."""
    if not access.allows_all(conn_id):
        access.refuse()
    counts = count_page(open_hook(conn_id), access)
    context = {"conn_id": conn_id, "statuses": STATUSES, "chosen": chosen, "counts": counts}
    return _page(request, "counts.html", context)


@on_storage
def show_bulk(
    request: Request, access: AccessDep, chosen: ChosenDep, conn_id: ConnId, action: PageAction
) -> Response:
    """What has to be confirmed before something is done to all workflows that a filter selects."""
    if action not in OFFERS:
        raise HTTPException(404, "There is no such page.")
    may_see_all = access.allows_connection("GET", conn_id)
    selected = Selected()
    try:
        selected = count_selected(open_hook(conn_id), access, chosen, action)
    except NoAnswerError:
        raise
    except Exception as exc:  # any error: an answer, and the details to the log only
        log.warning("The workflows of connection %r can't be counted: %s", conn_id, exc)
        if may_see_all:
            access.fail(conn_id)
    if not may_see_all and not selected.count:  # as where there is no such connection
        selected = Selected()
    context = {
        "conn_id": conn_id,
        "chosen": chosen,
        "action": action.value,
        "offer": OFFERS[action],
        "statuses": statuses_for(chosen, action),
        "selected": selected,
    }
    return _page(request, "bulk.html", context)


@on_storage
def show_workflow(
    request: Request, access: AccessDep, conn_id: ConnId, workflow_id: WorkflowId
) -> Response:
    """One workflow."""
    return _workflow_page(request, access, conn_id, workflow_id, is_tab=False)


def _workflow_of(
    request: Request,
    access: AccessDep,
    dag_id: ConnId,
    run_id: ConnId,
    task_id: ConnId,
    map_index: Annotated[str, Query(max_length=20)] = "",
) -> tuple[str, str] | None:
    """The workflow of a task instance: its connection and its id.

    :param map_index: of a task that is not mapped, Airflow leaves its placeholder here.
    """
    access.check_dag(dag_id)
    index = int(map_index) if re.fullmatch(r"\d{1,9}", map_index, re.ASCII) else -1
    return workflow_of(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=index)


@on_task_instance(_workflow_of)
def show_task_instance(
    request: Request, access: Access, found: tuple[str, str] | None, task_id: str, **_: str
) -> Response:
    """The workflow of a task instance, as a tab on it."""
    if found is None:
        return _page(request, "no_workflow.html", {"task_id": task_id})
    return _workflow_page(request, access, *found, is_tab=True)


def _workflow_page(
    request: Request, access: AccessDep, conn_id: str, workflow_id: str, *, is_tab: bool
) -> Response:
    workflow = open_workflow(access, conn_id, workflow_id)
    query = urlencode({"conn_id": conn_id, "workflow_id": workflow_id})
    context = _context(access, workflow) | {"query": query, "is_tab": is_tab}
    return _page(request, "workflow.html", context)


# ---- parts of a page


@on_storage
def show_changes(access: AccessDep, conn_id: ConnId, workflow_id: WorkflowId) -> dict[str, Any]:
    """What changes of a workflow's page: its head as HTML, its graph as data."""
    workflow = open_workflow(access, conn_id, workflow_id)
    graph: dict[str, Any] = {"nodes": [], "edges": []}
    damaged: list[str] = []
    too_large = ""

    def read() -> tuple[dict[str, Any], list[str]]:
        tasks = workflow.tasks()
        return draw(tasks.views()), tasks.damaged

    try:
        graph, damaged = in_turn(read)
    except TooLargeError as exc:
        too_large = f"{exc} {_TOO_LARGE}"
    context = _context(access, workflow) | {"damaged": damaged}
    head = _TEMPLATES.get_template("workflow_head.html").render(context)
    return {
        "head": head,
        "graph": graph,
        "too_large": too_large,
        "is_active": workflow.found.status.is_active,
    }


@on_storage
def show_group(
    request: Request,
    access: AccessDep,
    conn_id: ConnId,
    workflow_id: WorkflowId,
    label: Annotated[str, Query(max_length=1000)],
    state: Annotated[str, Query(max_length=20)] = "",
    text: Annotated[str, Query(max_length=500)] = "",
    page: Annotated[int, Query(ge=1, le=10_000)] = 1,
) -> Response:
    """The tasks of a group, as a part of a page."""
    workflow = open_workflow(access, conn_id, workflow_id)

    def read() -> dict[str, Any]:
        found = members(workflow.tasks().views(), label)
        states = {task.state for task in found}
        chosen = [
            task
            for task in found
            if (not state or task.state == state) and text.lower() in task.task_id.lower()
        ]
        return {
            "label": label,
            "total": len(found),
            "states": [name for name in formats.STATE_TITLES if name in states],
            "state_name": state,
            "text": text,
            "page": page,
            "pages": max(1, -(-len(chosen) // _MEMBERS_SHOWN)),
            "tasks": chosen[(page - 1) * _MEMBERS_SHOWN : page * _MEMBERS_SHOWN],
        }

    with _small_enough():
        return _page(request, "group.html", in_turn(read))


@on_storage
def show_task(
    request: Request,
    access: AccessDep,
    conn_id: ConnId,
    workflow_id: WorkflowId,
    task_id: WorkflowId,
) -> Response:
    """One task, as a part of a page."""
    workflow = open_workflow(access, conn_id, workflow_id)

    def read() -> tuple[TaskDetails | None, PlannedTask | None]:
        tasks = workflow.tasks(value_of=task_id)
        return tasks.details(task_id), tasks.planned(task_id)

    with _small_enough():
        details, planned = in_turn(read)
    if details is None:
        raise HTTPException(404, "There is no such task.")
    context = {
        "task": describe_task(workflow, details, planned),
        "run_again": offered(access, workflow).get(PageAction.RUN_AGAIN),
        "origin": workflow.origin,
        "task_instance_path": workflow.task_instance_path(base_path()),
    }
    return _page(request, "task.html", context)


@on_storage
def show_all_logs(
    request: Request, access: AccessDep, conn_id: ConnId, workflow_id: WorkflowId
) -> Response:
    """The place of the log of all tasks, as a part of a page."""
    open_workflow(access, conn_id, workflow_id)
    return _page(request, "log.html", {})


@on_storage
def show_log(
    access: AccessDep,
    conn_id: ConnId,
    workflow_id: WorkflowId,
    task_id: Annotated[str, Query(max_length=2000)] = "",
    after: Annotated[str, Query(max_length=60)] = "",
) -> dict[str, Any]:
    """What tasks have printed and logged: :func:`log_after`."""
    workflow = open_workflow(access, conn_id, workflow_id)
    return in_turn(
        lambda: log_after(workflow.hook.store, workflow.workflow_id, task_id=task_id, after=after)
    )


@contextmanager
def _small_enough() -> Iterator[None]:
    """Around what reads tasks for a part of a page.

    :raises HTTPException: 409 where they are too many or too large for that.
    """
    try:
        yield
    except TooLargeError as exc:
        raise HTTPException(409, f"{exc} {_TOO_LARGE}") from exc


_TOO_LARGE = "That is too large for a page; rayworkflow graph shows it in a terminal."


# ---- actions


@on_storage
def do_action(
    access: AccessDep,
    body: ActionBody,
    x_rayworkflow: Annotated[str, Header()] = "",
    sec_fetch_site: Annotated[str, Header()] = "same-origin",
) -> dict[str, str]:
    """Do what the user has confirmed. ``{"message"}`` says what was done, for people."""
    _check_own_page(x_rayworkflow, sec_fetch_site)
    return {"message": act(access, body)}


@on_storage
def do_bulk(
    access: AccessDep,
    body: BulkBody,
    x_rayworkflow: Annotated[str, Header()] = "",
    sec_fetch_site: Annotated[str, Header()] = "same-origin",
) -> dict[str, Any]:
    """Do a part of what the user has confirmed for many workflows: a :class:`.BatchDone`."""
    _check_own_page(x_rayworkflow, sec_fetch_site)
    return act_on_batch(access, body)


def _check_own_page(x_rayworkflow: str, sec_fetch_site: str) -> None:
    """Return for a request of these pages.

    A page of another site can't make a browser send this header, nor JSON: it would have to ask
    first, and no answer comes.

    :raises HTTPException: 403.
    """
    if not x_rayworkflow or sec_fetch_site != "same-origin":
        raise HTTPException(403, "Actions come from the pages of this Airflow only.")


# ---- files and errors


async def static(name: str) -> Response:
    """A script, a style sheet, an icon."""
    if name not in _STATIC:
        raise HTTPException(404, "There is no such file.")
    return FileResponse(_STATIC[name], headers={"Cache-Control": "private, max-age=3600"})


def _context(access: AccessDep, workflow: ShownWorkflow) -> dict[str, Any]:
    return {
        "workflow": workflow,
        "record": workflow.record,
        "status": workflow.found.status.value,
        "actions": offered(access, workflow),
        "task_instance_path": workflow.task_instance_path(base_path()),
    }


def _page(
    request: Request, template: str, context: dict[str, Any], status_code: int = 200
) -> Response:
    text = _TEMPLATES.get_template(template).render(context | {"request": request})
    # What a storage holds may be no Unicode: shown escaped.
    return HTMLResponse(text.encode("utf-8", "backslashreplace"), status_code)


async def _protected(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _wants_page(request: Request) -> bool:
    return request.method == "GET" and "text/html" in request.headers.get("accept", "")


def _show_error(request: Request, exc: Exception) -> Response:
    status, detail = getattr(exc, "status_code", 500), str(getattr(exc, "detail", exc))
    headers = getattr(exc, "headers", None)
    if not _wants_page(request):
        return SafeJson({"detail": detail}, status, headers=headers)
    if status == 401:
        return RedirectResponse(login_url(str(request.url)), 303)
    page = _page(request, "problem.html", {"problem": detail}, status)
    page.headers.update(headers or {})
    return page


def _show_refusal(request: Request, exc: Exception) -> Response:
    """Of a request that is not as it has to be. Nothing of it is repeated: it may be anything."""
    errors = exc.errors() if isinstance(exc, RequestValidationError) else []
    names = {str(error["loc"][-1]) for error in errors if error.get("loc")}
    known = sorted(name for name in names if name.isidentifier() and name.isascii())[:10]
    detail = (
        f"The request has no valid {', '.join(known)}." if known else "The request is not valid."
    )
    if not _wants_page(request):
        return SafeJson({"detail": detail}, 422)
    return _page(request, "problem.html", {"problem": detail}, 422)


_MEMBERS_SHOWN = 100
