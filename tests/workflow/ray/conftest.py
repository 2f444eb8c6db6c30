"""One Ray cluster for the whole session, with one manager; tests keep apart by their ids.

A test that needs an empty storage, or other limits, asks for ``fresh_manager``.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from managers import kill_manager
from witness import Crash, Gate, Ledger

from airflow_provider_rayworkflow import workflow

HERE = Path(__file__).parent
_numbers = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.ray)
            # Ray's own: sockets and processes that it leaves to the garbage collector, and what
            # it says about its DAG API, which the old library's programs use.
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))
            item.add_marker(
                pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
            )


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    ray.init(
        "local",  # not one that happens to run on this machine
        num_cpus=4,
        num_gpus=1,
        resources={"special": 2},
        object_store_memory=300 * 1024 * 1024,
        include_dashboard=False,
        log_to_driver=False,
        _system_config={"metrics_report_interval_ms": 2000},  # by default 10 s
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture
def manager(ray_cluster: None, shared_root: Path) -> None:
    """A manager with the storage that tests share, and no limits."""
    workflow.init(storage=str(shared_root))


@pytest.fixture
def fresh_manager(ray_cluster: None, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Makes a manager with an empty storage and with the limits that it is called with."""
    roots = (tmp_path / f"storage{number}" for number in itertools.count())

    def start(*, storage: Path | None = None, **limits: int) -> Path:
        kill_manager()
        root = storage or next(roots)
        workflow.init(storage=str(root), **limits)
        return root

    yield start
    kill_manager()


@pytest.fixture
def new_id(request: pytest.FixtureRequest) -> str:
    """A workflow id of the test's own."""
    return f"{request.node.name}-{next(_numbers)}"[-200:]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "gate")
    yield gate
    if tmp_path.exists():
        gate.open()  # nothing waits for ever behind a failed test


@pytest.fixture
def crash(tmp_path: Path) -> Crash:
    return Crash(tmp_path / "crash")
