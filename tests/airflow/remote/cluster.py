"""A Ray cluster of its own, as ``ray start --head`` makes it, with its dashboard."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import processes

T = TypeVar("T")

_START_ATTEMPTS = 3

RAY = Path(sys.executable).with_name("ray")


def wait_for(condition: Callable[[], T], what: str, timeout_s: float = 600.0) -> T:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
        time.sleep(0.1)
    return answer


class Cluster:
    """Processes that end with :meth:`stop`.

    :param token: in the file of its home where Ray looks for it; None switches authentication off.
    """

    def __init__(self, *, token: str | None, port: int | None = None) -> None:
        self.token = token
        self.port = port or _free_ports(1)[0]
        self.address = f"http://127.0.0.1:{self.port}"
        self._temp = tempfile.mkdtemp(prefix="rr-", dir="/tmp")  # Ray's sockets need a short path
        self._log = Path(self._temp, "start.log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        for attempt in range(1, _START_ATTEMPTS + 1):
            self._spawn()
            try:
                wait_for(self._is_up, "the start of the cluster")
                return
            except RuntimeError:  # Ray gives itself 30 s, too little on a busy machine
                if attempt == _START_ATTEMPTS:
                    raise
                self._end_processes()

    def _spawn(self) -> None:
        gcs, client, agent, grpc, metrics = _free_ports(5)
        command = [str(RAY), "start", "--head", "--block", "--disable-usage-stats"]
        command += [f"--port={gcs}", f"--ray-client-server-port={client}"]
        command += [f"--dashboard-port={self.port}", "--dashboard-host=127.0.0.1"]
        command += [f"--dashboard-agent-listen-port={agent}"]
        command += [f"--dashboard-agent-grpc-port={grpc}", f"--metrics-export-port={metrics}"]
        command += ["--num-cpus=4", f"--object-store-memory={300 * 1024 * 1024}"]
        command += [f"--temp-dir={self._temp}", "--node-ip-address=127.0.0.1"]
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW", "PYTHONPATH", "RAY_WORKFLOW", "RAY_AUTH"))
        }
        # `python` is looked up on the cluster.
        environment["PATH"] = f"{RAY.parent}{os.pathsep}{environment['PATH']}"
        environment["HOME"] = self._temp
        if self.token is None:
            environment["RAY_AUTH_MODE"] = "disabled"
        else:
            file = Path(self._temp, ".ray", "auth_token")
            file.parent.mkdir(exist_ok=True)
            file.write_text(self.token)
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                command,
                env=environment,
                cwd=self._temp,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _is_up(self) -> bool:
        assert self._process is not None
        log = self._log.read_text()
        if self._process.poll() is not None:
            raise RuntimeError(log)
        # Ray's dashboard answers already while the rest may still time out.
        return "Ray runtime started" in log and self.answers()

    def answers(self) -> bool:
        """True once jobs can be submitted."""
        request = urllib.request.Request(f"{self.address}/api/jobs/")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                return response.status == 200 and isinstance(json.load(response), list)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """Lose the cluster at once: the manager can't write down what happens to its workers."""
        assert self._process is not None
        for pid in sorted(_descendants(self._process.pid), key=_is_no_manager):
            processes.send(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End the processes of this cluster, and no others."""
        self._end_processes()
        shutil.rmtree(self._temp, ignore_errors=True)

    def _end_processes(self) -> None:
        if self._process is not None:
            for sent in (signal.SIGTERM, signal.SIGKILL):
                for pid in _session(self._process.pid):
                    processes.send(pid, sent)
                try:
                    self._process.wait(15)
                except subprocess.TimeoutExpired:
                    continue
            for pid in _of_cluster(self._temp):
                processes.send(pid, signal.SIGKILL)


def _descendants(parent: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, stat in _stats():
        children.setdefault(int(stat[1]), []).append(pid)
    found = [parent]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def _is_no_manager(pid: int) -> bool:
    try:
        return b"WorkflowManagementActor" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


def _session(leader: int) -> list[int]:
    return [pid for pid, stat in _stats() if int(stat[3]) == leader]


def _of_cluster(temp: str) -> list[int]:
    """What has left the session: its command line names the cluster's folder."""
    found = []
    for pid, _ in _stats():
        try:
            if temp.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def _stats() -> list[tuple[int, list[str]]]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found.append((int(folder.name), fields))
    return found


def _free_ports(count: int) -> list[int]:
    with_sockets = [socket.socket() for _ in range(count)]
    try:
        for each in with_sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in with_sockets]
    finally:
        for each in with_sockets:
            each.close()
