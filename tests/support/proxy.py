"""Stands between a client and an S3 server: counts requests, changes them, fails, or stays silent."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class Unanswered(Exception):
    """Raised to close the connection without an answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client gets."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A request on its way; a call carries it out.

    :ivar path: the bucket and the key, unquoted, without the query.
    """

    path: str
    forward: Callable[[], Answer]

    def __call__(self) -> Answer:
        return self.forward()


class Proxy:
    """Forwards to a port of this machine; a context manager.

    :param drop: headers, in small letters, that don't reach the server.
    :ivar counts: requests by kind: ``"PUT"``, ``"GET"``, ``"LIST"``, ``"DELETE MANY"`` …
    :ivar failures: answers to give instead of forwarding, the next first: a status code; 0 to
        forward the request and close the connection without an answer.
    :ivar intercept: called with the kind of a request and its :class:`Forwarding`. It may call that,
        and do other things before and after. It returns an answer or raises :class:`Unanswered`.
    """

    def __init__(self, target: int, *, drop: Collection[str] = ()) -> None:
        self.target = target
        self.drop = drop
        self.counts: Counter[str] = Counter()
        self.failures: list[int] = []
        self.intercept: Callable[[str, Forwarding], Answer] = pass_on
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def note(self, kind: str) -> int | None:
        """Count a request; returns how it fails."""
        with self._lock:
            self.counts[kind] += 1
            return self.failures.pop(0) if self.failures else None


def pass_on(kind: str, forward: Forwarding) -> Answer:
    """Interfere with nothing."""
    return forward()


class _Handler(BaseHTTPRequestHandler):
    owner: Proxy
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client was killed
            super().handle()

    def handle_request(self) -> None:
        body = self._body()
        kind = _kind(self.command, self.path)
        failure = self.owner.note(kind)
        if failure:
            self._answer(Answer(failure))
            return
        try:
            path = unquote(urlsplit(self.path).path)
            answer = self.owner.intercept(kind, Forwarding(path, lambda: self._forward(body)))
            if failure == 0:
                raise Unanswered
            self._answer(answer)
        except (Unanswered, OSError, http.client.HTTPException):  # also when the server is down
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_request

    def _forward(self, body: bytes | None) -> Answer:
        headers = {k: v for k, v in self.headers.items() if k.lower() not in self.owner.drop}
        headers.pop("Transfer-Encoding", None)
        connection = http.client.HTTPConnection("127.0.0.1", self.owner.target, timeout=60)
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, tuple(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def _answer(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        sizes = [value for name, value in answer.headers if name.lower() == "content-length"]
        for name, value in answer.headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        is_head = self.command == "HEAD" and sizes
        self.send_header("Content-Length", sizes[0] if is_head else str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length")
        return self.rfile.read(int(length)) if length else None

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _kind(method: str, path: str) -> str:
    query = parse_qs(urlsplit(path).query, keep_blank_values=True)
    if "list-type" in query:
        return "LIST"
    if "delete" in query:
        return "DELETE MANY"
    return method
