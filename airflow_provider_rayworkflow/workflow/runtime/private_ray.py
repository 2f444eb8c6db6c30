"""Every part of Ray that is not public and that we use; nothing else of ours imports such.

Ray may change these in any release. ``tests/workflow/ray/test_private_ray.py`` says for each what
breaks then. What is read of ``.bind()`` graphs is in :mod:`.dag`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import ray
from ray._common import ray_option_utils
from ray._private.ray_constants import LOG_PREFIX_TASK_NAME
from ray.remote_function import RemoteFunction

__all__ = [
    "LOG_PREFIX_TASK_NAME",
    "accept_option",
    "is_client_handle",
    "listen_to_logs",
    "set_default_options",
    "when_completed",
]


def accept_option(name: str) -> None:
    """Have ``.options()`` and ``@ray.remote()`` of this process take an option of ours."""
    for table in (ray_option_utils.task_options, ray_option_utils.valid_options):
        table.setdefault(name, ray_option_utils.Option())


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


def listen_to_logs(handle: Callable[[dict[str, Any]], None]) -> bool:
    """Have ``handle`` called with what the processes of all jobs print, in place of Ray's printing.

    Ray Serve and Ray Client do the same.

    :returns: False if this version of Ray has no such thing.
    """
    try:
        from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher
        from ray._private.worker import global_worker

        dispatcher.remove_handler("ray_print_logs")
        dispatcher.add_handler("workflow", handle)
        global_worker._filter_logs_by_job = False
    except (ImportError, AttributeError):
        return False
    return True
