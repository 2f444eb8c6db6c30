"""Stands between a client and an S3 server: counts requests, changes them, fails, or stays silent."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Collection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Proxy:
    """Forwards to a port of this machine; a context manager.

    :param drop: headers, in small letters, that don't reach the server.
    :ivar counts: requests by kind: ``"PUT"``, ``"GET"``, ``"LIST"``, ``"DELETE MANY"`` …
    :ivar failures: answers to give instead of forwarding, the next first: a status code; 0 to
        forward the request and close the connection without an answer.
    """

    def __init__(self, target: int, *, drop: Collection[str] = ()) -> None:
        self.target = target
        self.drop = drop
        self.counts: Counter[str] = Counter()
        self.failures: list[int] = []
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


class _Handler(BaseHTTPRequestHandler):
    owner: Proxy
    protocol_version = "HTTP/1.1"

    def forward(self) -> None:
        body = self._body()
        failure = self.owner.note(_kind(self.command, self.path))
        if failure:
            self.send_response(failure)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        headers = {k: v for k, v in self.headers.items() if k.lower() not in self.owner.drop}
        headers.pop("Transfer-Encoding", None)
        connection = http.client.HTTPConnection("127.0.0.1", self.owner.target, timeout=60)
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if failure == 0:
            self.close_connection = True
            return
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        size = answer.getheader("Content-Length") if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(size or 0))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

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
