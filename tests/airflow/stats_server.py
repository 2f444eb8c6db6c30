"""Where Airflow sends its metrics: a socket in place of a StatsD server."""

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class StatsServer:
    """What has come so far waits in the socket."""

    socket: socket.socket

    @property
    def environment(self) -> dict[str, str]:
        """What sends an Airflow's metrics here."""
        return {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_PORT": str(self.socket.getsockname()[1]),
        }

    def take(self, prefix: str) -> Counter[str]:
        """How often each metric of this prefix has come since the last call, without its value."""
        lines = []
        with suppress(BlockingIOError):
            while True:
                lines += self.socket.recv(65536).decode().splitlines()
        return Counter(line.partition(":")[0] for line in lines if line.startswith(prefix))


@contextmanager
def stats_server() -> Iterator[StatsServer]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024 * 1024)
        server.settimeout(0)
        yield StatsServer(server)
