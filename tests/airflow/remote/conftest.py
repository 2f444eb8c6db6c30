"""A Ray cluster for each file, reached as a remote one.

It ends with the file: one that waits for the end of the session would cost the other tests of the run CPU time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            for mark in (pytest.mark.airflow, pytest.mark.ray, pytest.mark.slow):
                item.add_marker(mark)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(token="a-token-for-tests-" + "0" * 32)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of the cluster's manager."""
    return tmp_path_factory.mktemp("remote") / "storage"


@pytest.fixture(scope="module")
def connection(cluster: Cluster, root: Path) -> Callable[..., str]:
    """A connection to the cluster, for an environment variable."""

    def define(**changes: object) -> str:
        fields = {"conn_type": "ray_workflow", "host": cluster.address, "password": cluster.token}
        return json.dumps(fields | {"extra": {"storage": str(root)}} | changes)

    return define
