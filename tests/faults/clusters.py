"""Ray clusters in processes of their own, which can be told what to do, and killed."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import processes

HERE = Path(__file__).parent
#: For processes of a run: modules of the suite, and the package of its own tree.
PATHS = [str(HERE), str(HERE.parents[1])]

#: Beginning a cluster and answering a command may take this long on a busy machine.
PATIENCE_S = 600.0

# The loss of a node is noticed within a few seconds instead of fifteen.
_ENVIRONMENT = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
    "PYTHONPATH": os.pathsep.join([*PATHS, str(HERE / "clock")]),
}


class ClusterIsGone(RuntimeError):
    """It was killed before it had answered."""


class RayCluster:
    """A cluster that :mod:`agent` has started.

    :param storage: as for ``workflow.init``.
    """

    def __init__(self, storage: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("agent*")))
        self.log = folder / f"agent{number}.log"
        self._clock = folder / f"clock{number}"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-u", str(HERE / "agent.py"), storage],
                env=os.environ | _ENVIRONMENT | {"FAULTS_CLOCK": str(self._clock)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
            )
        self._answers: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._raylet: int | None = None
        self._is_ready = False
        self.address = ""

    def ready(self) -> RayCluster:
        """Wait until it is up."""
        if not self._is_ready:
            self.address, self._is_ready = self.receive(), True
        return self

    def ask(self, what: str, **arguments: Any) -> Any:
        self.send(what, **arguments)
        return self.receive()

    def send(self, what: str, **arguments: Any) -> None:
        """Ask without waiting; :meth:`receive` gives the answer, and has to be called."""
        self.ready()
        if self._process.stdin is None:
            raise RuntimeError("it has no standard input")
        with suppress(BrokenPipeError, ValueError):  # it was killed
            print(json.dumps({"do": what} | arguments), file=self._process.stdin, flush=True)

    def receive(self) -> Any:
        """The next answer.

        :raises ClusterIsGone: when it will never come.
        """
        answer = self._answers.get(timeout=PATIENCE_S)
        if not answer:
            self._answers.put("")
            raise ClusterIsGone(self.log.read_text()[-3000:])
        return json.loads(answer)

    def set_clock(self, ahead_s: float) -> None:
        """Set the wall clock of its Python processes, managers and workers among them.

        :param ahead_s: seconds ahead of the real time; negative for behind.
        """
        new = self._clock.with_suffix(".new")
        new.write_text(str(ahead_s))
        new.replace(self._clock)  # never read half written

    def second_raylet(self) -> int:
        """The process of the second node's raylet; there is always one when this returns."""
        if self._raylet is None:
            self._raylet = self.ask("add_node")
        return self._raylet

    def kill_second_raylet(self, *, with_workers: bool) -> None:
        """Lose the second node, if there is one.

        :param with_workers: at once, as with the machine; else they end when they miss the raylet.
        """
        if self._raylet is None:
            return
        raylet_and_workers, self._raylet = processes.tree(self._raylet), None
        processes.kill(raylet_and_workers if with_workers else raylet_and_workers[:1])

    def kill(self) -> None:
        """End all its processes at once, as the loss of its machines does."""
        processes.kill(processes.tree(self._process.pid))
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _read(self) -> None:
        if self._process.stdout is not None:
            for line in self._process.stdout:
                self._answers.put(line)
        self._answers.put("")


class Driver:
    """A driver of a cluster, in a process of its own.

    :param plans: what it submits, as JSON.
    """

    def __init__(self, address: str, plans: list[dict[str, Any]], ledger: Path) -> None:
        arguments = [address, json.dumps(plans), str(ledger)]
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "driver.py"), *arguments],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(PATHS)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> set[str]:
        """Kill it; gives the ids of the workflows that it knew to be submitted."""
        self._process.kill()
        output, _ = self._process.communicate()
        return set(output.split())
