"""Which losses are the manager's own death, as Ray's processes are told of it."""

import threading

import pytest
import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

from airflow_provider_rayworkflow.workflow.runtime.service.runner import says_that_node_is_dead

OWN, OTHER = "a" * 56, "b" * 56
#: As Ray 2.60 words it.
LOST = (
    "Task failed because the node it was running on is dead or unavailable. Node IP: 192.0.2.2, "
    "node ID: {}. This can happen if the node or raylet crashes."
)


def test_the_death_of_its_own_node_is_told_from_that_of_another_one():
    assert says_that_node_is_dead(NodeDiedError(LOST.format(OWN)), lambda: OWN)
    assert not says_that_node_is_dead(NodeDiedError(LOST.format(OTHER)), lambda: OWN)


@pytest.mark.parametrize(
    "value",
    [WorkerCrashedError(), OutOfMemoryError(LOST.format(OWN)), ValueError(OWN), b"result"],
    ids=lambda value: type(value).__name__,
)
def test_the_end_of_a_task_alone_is_no_end_of_a_node(value):
    assert not says_that_node_is_dead(value, lambda: pytest.fail("no need to ask for it"))


def test_a_killed_node_is_named_in_what_ray_says():
    """Ray has the id in its message only: this is what tells of another wording."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=0, include_dashboard=False)
        lost = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address)

        @ray.remote(num_cpus=1, max_retries=0)
        def wait(signal):
            ray.get(signal.set.remote())
            ray.get(signal.never.remote())

        @ray.remote(num_cpus=0, max_concurrency=3)
        class Signal:
            def __init__(self):
                self._event = threading.Event()

            def set(self):
                self._event.set()

            def wait(self):
                self._event.wait()

            def never(self):
                threading.Event().wait()

        signal = Signal.remote()
        waiting = wait.remote(signal)
        ray.get(signal.wait.remote())
        cluster.remove_node(lost, allow_graceful=False)
        with pytest.raises(NodeDiedError) as caught:
            ray.get(waiting)
        assert says_that_node_is_dead(caught.value, lambda: lost.node_id)
    finally:
        ray.shutdown()
        cluster.shutdown()
