"""A storage with the clusters on it: what a run has to itself while it lasts."""

from __future__ import annotations

import queue
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from airflow_task import AirflowTask
from clusters import ClusterIsGone, RayCluster
from shapes import Plan

from airflow_provider_rayworkflow.workflow.local_ray.environment import FOLDER_VARIABLE
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.clients import store_on
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore

sys.path.append(str(Path(__file__).parents[1] / "support"))
from local_ray_parts import LocalRayParts
from own_local_ray import own_local_ray
from proxy import Proxy, pass_on
from servers import SeaweedFS, make_buckets, s3_address


class World:
    """Clusters on one storage; they are kept from run to run, unless a fault takes them.

    :param storage: what clusters are given.
    :param bytes_: the same storage for the checks; it fails at once.
    :param folder: for logs and ledgers.
    """

    def __init__(self, storage: str, bytes_: ByteStore, folder: Path) -> None:
        self.storage = storage
        self.bytes = bytes_
        self.folder = folder
        self._clusters: list[RayCluster] = []

    @property
    def cluster(self) -> RayCluster:
        return self._cluster(0)

    @property
    def other_cluster(self) -> RayCluster:
        return self._cluster(1)

    @property
    def third_cluster(self) -> RayCluster:
        return self._cluster(2)

    def store(self) -> WorkflowStore:
        """A reader with no memory of what it saw before."""
        return WorkflowStore(self.bytes)

    def replace_cluster(self) -> None:
        """Start another one instead of the one that was killed."""
        self._clusters[0].kill()
        self._clusters[0] = RayCluster(self.storage, self.folder)

    def close(self) -> None:
        for cluster in self._clusters:
            cluster.kill()

    def _cluster(self, number: int) -> RayCluster:
        while len(self._clusters) <= number:
            self._clusters.append(RayCluster(self.storage, self.folder))
        try:
            return self._clusters[number].ready()
        except (ClusterIsGone, queue.Empty):  # a busy machine: Ray may give up starting
            self._clusters[number].kill()
            self._clusters[number] = RayCluster(self.storage, self.folder)
            return self._clusters[number].ready()


class AirflowWorld(World):
    """A world whose workflows Airflow tasks run, on a local Ray of its own.

    :param local_ray: the environment of the tasks' processes, with the root of its state folders.
    """

    def __init__(
        self, storage: str, bytes_: ByteStore, folder: Path, local_ray: Mapping[str, str]
    ) -> None:
        super().__init__(storage, bytes_, folder)
        self._environment = local_ray
        self.local_ray = LocalRayParts(local_ray[FOLDER_VARIABLE])

    def task(self, plan: Plan, ledger: Path) -> AirflowTask:
        """The task instance that runs a workflow."""
        return AirflowTask(self.storage, plan, ledger, self.folder, self._environment)

    def close(self) -> None:
        self.local_ray.clear()
        super().close()


class S3World(World):
    """A world whose storage is an S3 server, with a proxy in front of it."""

    def __init__(self, server: SeaweedFS, proxy: Proxy, folder: Path) -> None:
        path = uuid.uuid4().hex
        filesystem_uri = s3_address(server.port, path=path)
        super().__init__(s3_address(proxy.port, path=path), _once(filesystem_uri), folder)
        self.server = server
        self.proxy = proxy

    def calm(self) -> None:
        """No interference any more."""
        self.proxy.intercept = pass_on


def _once(uri: str) -> ByteStore:
    """The storage at a URI, without the tries that :func:`open_store` puts around it."""
    from pyarrow.fs import FileSystem

    filesystem, root = FileSystem.from_uri(uri)
    return store_on(filesystem, root, location=uri)


@contextmanager
def local_world(folder: Path) -> Iterator[World]:
    root = folder / "storage"
    world = World(str(root), LocalStore(root), folder)
    try:
        yield world
    finally:
        world.close()
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def airflow_world(folder: Path) -> Iterator[AirflowWorld]:
    root = folder / "storage"
    with own_local_ray() as local_ray:
        world = AirflowWorld(str(root), LocalStore(root), folder, local_ray.environment)
        try:
            yield world
        finally:
            world.close()
            shutil.rmtree(root, ignore_errors=True)


@contextmanager
def s3_world(folder: Path) -> Iterator[S3World]:
    data = folder / "seaweedfs"
    data.mkdir(parents=True)
    server = SeaweedFS(data)
    try:
        server.start()
        make_buckets(server.port)
        with Proxy(server.port) as proxy:
            world = S3World(server, proxy, folder)
            try:
                yield world
            finally:
                world.close()
    finally:
        server.kill()
        shutil.rmtree(data, ignore_errors=True)
