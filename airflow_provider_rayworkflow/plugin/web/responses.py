"""How a route answers: in a thread of its storage's lane, in time, and always with something.

What goes wrong is told in plain words; what a storage, another service or an exception says goes
to the log only.
"""

from __future__ import annotations

import functools
import inspect
import json
import typing
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any

from fastapi import HTTPException
from fastapi.responses import JSONResponse

from airflow_provider_rayworkflow.plugin.web.access import NOT_SHOWN, UNREADABLE
from airflow_provider_rayworkflow.plugin.web.lanes import Lanes, NoAnswerError
from airflow_provider_rayworkflow.plugin.web.storages import lane_of
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowNotFoundError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger

log = get_logger(__name__)

LANES = Lanes()

# What is asked of Airflow's own database only. Also what names no connection that is of any use.
_AIRFLOW: Hashable = "airflow"


class SafeJson(JSONResponse):
    """JSON of all that a storage may hold: text that is not Unicode, too."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()


def on_storage(
    route: Callable[..., Any],
    *,
    lanes: Lanes = LANES,
    find_lane: Callable[[str], Hashable] = lane_of,
) -> Callable[..., Awaitable[Any]]:
    """The route as a coroutine that never blocks the event loop nor takes a thread of Airflow's.

    The route has a parameter ``conn_id``, or a ``body`` that has one: that of an action, which may take
    longer than a page.

    :param lanes: in which it is called.
    :param find_lane: the lane of a connection.
    """

    @functools.wraps(route)
    async def respond(**given: Any) -> Any:
        body = given.get("body")
        conn_id: str = body.conn_id if body is not None else given["conn_id"]
        until = lanes.deadline(is_action=body is not None)
        with_lane = functools.partial(find_lane, conn_id)
        lane = await _in_time(_AIRFLOW, with_lane, until=until, lanes=lanes)
        call = functools.partial(route, **given)
        return await _in_time(lane or _AIRFLOW, call, until=until, lanes=lanes)

    return _signed_as(route, respond)


def on_task_instance(
    find: Callable[..., tuple[str, str] | None],
) -> Callable[[Callable[..., Any]], Callable[..., Awaitable[Any]]]:
    """The same for a route that is given what ``find`` found in Airflow's database.

    :param find: takes what the route takes, and returns the ids of a connection and of a workflow.
    """

    def decorate(route: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        async def respond(**given: Any) -> Any:
            until = LANES.deadline()

            def look() -> tuple[tuple[str, str] | None, Hashable]:
                found = find(**given)
                return found, lane_of(found[0]) if found else None

            found, lane = await _in_time(_AIRFLOW, look, until=until)
            call = functools.partial(route, found=found, **given)
            return await _in_time(lane or _AIRFLOW, call, until=until)

        return _signed_as(find, respond)

    return decorate


async def _in_time(
    lane: Hashable, call: Callable[[], Any], *, until: float, lanes: Lanes = LANES
) -> Any:
    try:
        return await lanes.run(lane, call, until=until)
    except HTTPException:
        raise
    except NoAnswerError:
        raise HTTPException(503, NO_ANSWER, headers={"Retry-After": "10"}) from None
    except WorkflowNotFoundError as exc:
        raise HTTPException(404, NOT_SHOWN) from exc
    except Exception as exc:
        log.exception("A page can't be shown")
        raise HTTPException(502, UNREADABLE) from exc


NO_ANSWER = "The workflow's storage does not answer in time. Try again later."


def _signed_as(
    route: Callable[..., Any], respond: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    """Let FastAPI see the parameters of the route, with their types looked up where it stands."""
    hints: Mapping[str, Any] = typing.get_type_hints(route, include_extras=True)
    shape = inspect.signature(route)
    respond.__signature__ = shape.replace(  # type: ignore[attr-defined]
        parameters=[
            parameter.replace(annotation=hints.get(name, parameter.annotation))
            for name, parameter in shape.parameters.items()
        ],
        return_annotation=inspect.Signature.empty,
    )
    respond.__name__ = route.__name__
    return respond
