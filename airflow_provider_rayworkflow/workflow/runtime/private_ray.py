"""All private parts of Ray that we use; our other modules use its public parts only.

Ray may change these in any release. ``tests/workflow/ray/test_private_ray.py`` says for each what
breaks then. What is read of ``.bind()`` graphs is in :mod:`.dag`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray._common import ray_option_utils
from ray._private.ray_constants import LOG_PREFIX_TASK_NAME
from ray.remote_function import RemoteFunction

__all__ = [
    "LOG_PREFIX_TASK_NAME",
    "accept_option",
    "check_task_options",
    "has_local_node_ended",
    "is_client_handle",
    "is_node_drained",
    "may_autoscale",
    "print_logs_of_other_jobs",
    "scales",
    "set_default_options",
    "when_completed",
]


def accept_option(name: str) -> None:
    """Have ``.options()`` and ``@ray.remote()`` of this process take an option of ours."""
    for table in (ray_option_utils.task_options, ray_option_utils.valid_options):
        table.setdefault(name, ray_option_utils.Option())


def check_task_options(options: Mapping[str, Any]) -> None:
    """Return if Ray takes these options of a task.

    :raises TypeError: and ``ValueError``, if not.
    """
    ray_option_utils.validate_task_options(dict(options), in_options=False)


def set_default_options(function: RemoteFunction, options: dict[str, Any]) -> None:
    """Add options to a remote function, as if ``@ray.remote`` had been given them."""
    function._default_options.update(options)


def when_completed(ref: ray.ObjectRef[Any], handle: Callable[[Any], None]) -> None:
    """Have a thread of Ray call ``handle`` with the value of a reference, or with its error."""
    ref._on_completed(handle)


def is_client_handle(obj: Any) -> bool:
    """True for what Ray Client has in place of an actor handle; only the cluster can pickle it."""
    client = sys.modules.get("ray.util.client.common")
    return client is not None and isinstance(obj, client.ClientActorHandle)


def has_local_node_ended() -> bool:
    """True if the Ray that this process started does not work any more: its node is dead."""
    from ray._private import ray_constants, worker

    node = worker._global_node
    if node is None:
        return True
    needed = (ray_constants.PROCESS_TYPE_RAYLET, ray_constants.PROCESS_TYPE_GCS_SERVER)
    return any(kind in needed for kind, _ in node.dead_processes())


def print_logs_of_other_jobs(pick: Callable[[dict[str, Any]], list[str]]) -> None:
    """Have Ray print in this driver what ``pick`` takes of the lines of other jobs' processes, too.

    Nothing changes where nothing is printed: in workers, and with ``log_to_driver=False``. May be
    called again, with the same ``pick``. Ray Serve and Ray Client listen in the same way.
    """
    try:
        from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher
        from ray._private.worker import global_worker

        printing = dict(dispatcher.handlers).get("ray_print_logs")
        if printing is None or getattr(printing, "pick", None) is pick:
            return
        if not global_worker._filter_logs_by_job:
            return  # everything is printed already, as Ray Serve wants it
        dispatcher.remove_handler("ray_print_logs")
        dispatcher.add_handler("ray_print_logs", _PrintMore(printing, pick, global_worker))
        global_worker._filter_logs_by_job = _FILTERED_BY_US
    except (ImportError, AttributeError):
        return


#: False to Ray, so that it gives us the lines of all jobs; and told from Ray Serve's False.
_FILTERED_BY_US: Any = 0


class _PrintMore:
    def __init__(self, printing: Callable[[dict[str, Any]], None], pick: Any, worker: Any) -> None:
        self.pick = pick
        self._printing = printing
        self._worker = worker

    def __call__(self, data: dict[str, Any]) -> None:
        is_own = data["job"] in ("", None, self._worker.current_job_id.hex())
        if is_own or self._worker._filter_logs_by_job is not _FILTERED_BY_US:
            self._printing(data)
        elif lines := self.pick(data):
            self._printing({**data, "lines": lines})

    def __del__(self) -> None:
        # Ray has shut down, which drops its handlers. It filters by itself again.
        if self._worker._filter_logs_by_job is _FILTERED_BY_US:
            self._worker._filter_logs_by_job = True


def is_node_drained() -> bool:
    """True if Ray was told that this node will end soon, because it is preempted or not needed. Blocks.

    There is no public way to ask.
    """
    from ray._private.state import state

    return ray.get_runtime_context().get_node_id() in state.get_draining_nodes()


def may_autoscale() -> bool:
    """False if it is known that no autoscaler adds nodes to this cluster. Blocks.

    Every head runs a monitor, which calls the nodes of a cluster that it does not scale
    ``node_<id>``; a real autoscaler has types of nodes. There is no public way to ask.
    """
    try:
        from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
        from ray._raylet import GcsClient  # type: ignore[attr-defined]
        from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]

        gcs = GcsClient(address=ray.get_runtime_context().gcs_address)
        reply = GetClusterStatusReply()
        reply.ParseFromString(gcs.get_cluster_status(timeout_s=10))
        if reply.HasField("autoscaling_state"):  # of its second version
            nodes = reply.cluster_resource_state.node_states
            return any(node.ray_node_type_name for node in nodes)
        report = gcs.internal_kv_get(DEBUG_AUTOSCALING_STATUS.encode(), None, timeout=10)
        return report is not None and scales(report)
    except Exception:  # another Ray: then tasks wait, as they do without us
        return True


def scales(report: bytes) -> bool:
    """True unless the first version of the autoscaler reports that it only watches the nodes."""
    found = json.loads(report)["autoscaler_report"]
    types = {*(found["active_nodes"] or {}), *(found["idle_nodes"] or {})}
    pending = found["pending_nodes"] or found["pending_launches"]
    return bool(pending) or not types or not all(map(_WATCHED_NODE.fullmatch, types))


_WATCHED_NODE = re.compile("node_[0-9a-f]{56}")
