"""An S3 server on this machine, behind a wire that takes its time."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests" / "support"))
from servers import BUCKET, SeaweedFS, make_buckets, s3_address, seaweedfs

__all__ = ["BUCKET", "SeaweedFS", "Wire", "make_buckets", "s3_address", "slow_s3"]

_METHODS = (b"GET ", b"PUT ", b"POST ", b"HEAD ", b"DELETE ")


class Wire:
    """Forwards connections, and each request only after a while.

    :ivar counts: requests by method.
    """

    def __init__(self, target: int, delay_s: float) -> None:
        self.counts: Counter[str] = Counter()
        self.port = 0
        self.target = target
        self._delay_s = delay_s
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        self._ready.wait()

    @property
    def cpu_s(self) -> float:
        """CPU time that it has taken of this process, in seconds."""
        assert self._thread.ident is not None
        return time.clock_gettime(time.pthread_getcpuclockid(self._thread.ident))

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=2**20)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server = await asyncio.open_connection("127.0.0.1", self.target)
        await asyncio.gather(
            self._requests(reader, to_server[1]),
            _copy(to_server[0], writer),
            return_exceptions=True,
        )

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client sends its next request when it has the answer to the one before.
        while chunk := await reader.read(2**20):
            if chunk.startswith(_METHODS):
                self.counts[chunk.partition(b" ")[0].decode()] += 1
                await asyncio.sleep(self._delay_s)
            writer.write(chunk)
            await writer.drain()
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(2**20):
        writer.write(chunk)
        await writer.drain()
    writer.close()


@contextmanager
def slow_s3(folder: Path, *, delay_s: float) -> Iterator[tuple[str, Wire]]:
    """The URI of an empty storage, and the wire to it."""
    with seaweedfs(folder) as port:
        make_buckets(port)
        wire = Wire(port, delay_s)
        yield s3_address(wire.port), wire
