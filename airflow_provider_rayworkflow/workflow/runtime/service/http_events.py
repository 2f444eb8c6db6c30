"""HTTP events on Ray Serve. Needs ``ray[serve]``."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Receive

from airflow_provider_rayworkflow.workflow.common import HTTP_EVENT_PROVIDER_NAME
from airflow_provider_rayworkflow.workflow.event_listener import Event, EventListener
from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.execution.context import get_context
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.manager.http_events import Fate
from airflow_provider_rayworkflow.workflow.model.event_posts import (
    Body,
    EventSettings,
    RefusedPostError,
    check_headers,
    read_target,
)
from airflow_provider_rayworkflow.workflow.runtime.manager_handle import (
    has_several_managers,
    manager_of,
)
from airflow_provider_rayworkflow.workflow.runtime.names import (
    EVENT_ROUTE,
    current_location,
    event_path,
    provider_name,
)
from airflow_provider_rayworkflow.workflow.runtime.service import connect

log = get_logger(__name__)

#: How long a POST waits for the workflow before it is answered with 202.
WAIT_S = 30.0

# How long Serve may be away while an event is waited for.
_RESTART_S = 120.0

# How long the manager's settings are used, and how soon they are asked for again at the earliest.
_SETTINGS_FOR_S = 30.0
_ASK_INTERVAL_S = 1.0

# How much of a refused body is read, and for how long the next piece of it is waited for.
_MAX_DROPPED_BYTES = 64 * 1024 * 1024
_SILENCE_S = 0.5

# There is no manager (ValueError), or it or its storage has failed.
_UNAVAILABLE = (ValueError, RayError, StorageError)
_ANSWERS = {"committed": 200, "refused": 500, "stored": 202}
_starting = threading.Lock()


@serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=10_000)
class HTTPEventProvider:
    """``POST /event/send_event/{workflow_id}`` with ``{"event_key": …, "event_payload": …}``.

    That reaches the first one on a cluster. Each storage has one, which is reached below
    :func:`get_event_path`, too.

    Posters send the token (:func:`get_event_token`) as ``Authorization: Bearer <token>``. Answers
    200 when the workflow has checkpointed the event, 500 when its listener refused it, 202 when the
    event is stored and no task has taken it yet. Other answers have ``{"error": …}``: see
    :mod:`.model.event_posts` and :meth:`HttpEvents.post`.
    Holds no state: an event that was answered, or is being waited for, survives a restart.

    :param location: of the storage whose workflows it serves; None for the cluster's only one.
    """

    def __init__(self, location: str | None = None) -> None:
        self._location = location
        self._settings = EventSettings(token=None)
        self._settings_at = -math.inf

    async def __call__(self, request: Request) -> JSONResponse:
        incoming = _Incoming(request.receive)
        try:
            fate = await self._take(request, incoming)
        except RefusedPostError as exc:
            await incoming.drop_rest()
            return JSONResponse({"error": exc.message}, exc.status, headers=exc.headers)
        except _UNAVAILABLE as exc:
            # The answer has no details: they may name the storage.
            log.warning("An event could not be taken: %s", exc)
            error = "The workflow manager or its storage is not available now. Send it again."
            return JSONResponse({"error": error}, 503, headers={"retry-after": "10"})
        return JSONResponse({"event": fate}, _ANSWERS[fate])

    async def _take(self, request: Request, incoming: _Incoming) -> Fate:
        # Not request.url: there, an id with "?" or "#" would end at that.
        path = request.scope["path"]
        if self._location is not None:
            path = path.removeprefix(event_path(self._location))
        workflow_id = read_target(request.method, path.removeprefix(EVENT_ROUTE))
        settings = await self._check_headers(request)
        body = Body(settings)
        async for piece in incoming.pieces():
            body.add(piece)
        event_key, payload = body.read_event()
        fate = await manager_of(self._location).post_event.remote(
            workflow_id, event_key, payload, WAIT_S
        )
        if isinstance(fate, RefusedPostError):
            raise fate
        return fate  # type: ignore[no-any-return]  # of an actor's call

    async def _check_headers(self, request: Request) -> EventSettings:
        """Check the headers by the settings of the manager, which may be another one by now."""
        if time.monotonic() - self._settings_at > _SETTINGS_FOR_S:
            await self._ask_for_settings()
        try:
            check_headers(request.headers, self._settings)
        except RefusedPostError:
            if time.monotonic() - self._settings_at < _ASK_INTERVAL_S:
                raise
            await self._ask_for_settings()
            check_headers(request.headers, self._settings)
        return self._settings

    async def _ask_for_settings(self) -> None:
        self._settings = await manager_of(self._location).ask.remote("http_events.settings")
        self._settings_at = time.monotonic()

    async def get_event_payload(self, workflow_id: str, event_key: str) -> Event:
        """Wait for an event and return ``(event_key, payload)``; for listeners of one's own.

        It comes again until :meth:`report_checkpointed` is called, except after a crash; see
        :meth:`HttpEvents.take`.
        """
        return event_key, await manager_of(self._location).ask.remote(
            "take_event", workflow_id, event_key
        )

    async def report_checkpointed(
        self, workflow_id: str, event_key: str, is_committed: bool
    ) -> None:
        """Tell whether an event was checkpointed; for listeners of one's own.

        :raises WorkflowEventHandleError: when no event was given out under the key.
        """
        await manager_of(self._location).ask.remote(
            "http_events.report", workflow_id, event_key, is_committed
        )


class _Incoming:
    """The body of a request, piece by piece."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._has_ended = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """What has not been read yet."""
        while not self._has_ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self._has_ended = not message.get("more_body", False)
            yield message.get("body", b"")

    async def drop_rest(self) -> None:
        """Read the rest and keep none of it: a sender that is cut off never sees its answer.

        One that does not send now, or has too much to send, is not waited for.
        """
        dropped = 0
        pieces = self.pieces()
        with suppress(TimeoutError, StopAsyncIteration, ClientDisconnect):
            while dropped <= _MAX_DROPPED_BYTES:
                async with asyncio.timeout(_SILENCE_S):
                    dropped += len(await anext(pieces))


def get_event_token() -> str:
    """The token that posters send to this cluster; ``""`` where they need none.

    ``rayworkflow event-token`` prints it without a cluster.
    """
    settings: EventSettings = connect.call(connect.manager().ask.remote("http_events.settings"))
    return settings.token or ""


def get_event_path() -> str:
    """The path below which posters send this storage's events: ``/event/0123456789abcdef``.

    ``/event`` does as well where the cluster has one storage.
    """
    location = current_location() or connect.call(connect.manager().location.remote())
    return event_path(location)


def start_provider(*, restart_interval_s: float = 0.5) -> DeploymentHandle[Any]:
    """Start the application if it is not there yet, and return its handle.

    While Serve restarts or the application is being replaced, it is tried again.

    :param restart_interval_s: how often that is.
    """
    deadline = time.monotonic() + _RESTART_S
    while True:
        try:
            return _provider()
        except (RayServeException, RayError) as exc:
            if time.monotonic() > deadline:
                raise
            log.warning("The provider of HTTP events is not there yet: %s", exc)
            time.sleep(restart_interval_s)


def _provider() -> DeploymentHandle[Any]:
    location = current_location()
    name = HTTP_EVENT_PROVIDER_NAME if location is None else provider_name(location)
    with _starting:
        running = [
            one for one in serve.status().applications if one.startswith(HTTP_EVENT_PROVIDER_NAME)
        ]
        if HTTP_EVENT_PROVIDER_NAME in running and not has_several_managers():
            name = HTTP_EVENT_PROVIDER_NAME  # a program has started it, as for Ray Workflows
        if name not in running:
            route = EVENT_ROUTE if location is None or not running else event_path(location)
            application = HTTPEventProvider.bind(location)  # type: ignore[attr-defined]  # by serve
            serve.run(application, name=name, route_prefix=route)
            log.info("HTTP events are taken at %s/send_event/{workflow_id}", route)
        return serve.get_app_handle(name)


class HTTPListener(EventListener):
    """Waits for an event that is posted to :class:`HTTPEventProvider`, which it starts.

    :ivar handle: of the provider.
    """

    def __init__(self) -> None:
        self.handle = start_provider()

    async def poll_for_event(self, event_key: str | None = None) -> Event:
        """Return ``(event_key, payload)``.

        :param event_key: by default the id of the task that waits.
        """
        context = get_context()
        key = context.task_id if event_key is None else event_key
        payload = await manager_of().ask.remote(
            "http_events.wait", context.workflow_id, key, context.task_id
        )
        return key, payload

    async def event_checkpointed(self, event: Event) -> None:
        """Have the POST answered with 200."""
        key, _ = event
        await manager_of().ask.remote("http_events.report", get_context().workflow_id, key, True)
