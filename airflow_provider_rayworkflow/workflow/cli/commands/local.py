"""``rayworkflow local``: show the local Rays of this user, or end them.

A local Ray is one that Airflow's tasks have started on this machine. Its state folder says all, so
neither Ray nor Airflow is imported.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from airflow_provider_rayworkflow.workflow.cli import text
from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands
from airflow_provider_rayworkflow.workflow.local_ray.environment import state_root
from airflow_provider_rayworkflow.workflow.local_ray.overview import (
    ShownLocalRay,
    end_local_ray,
    list_local_rays,
)
from airflow_provider_rayworkflow.workflow.storage import shown

Json = dict[str, Any]

_STOP_TIMEOUT_S = 90.0  # what the keeper gives Ray, and its own looks


def add_to(commands: Commands) -> None:
    parser = commands.add(
        "local",
        _local,
        "Show the Ray that Airflow's tasks without a cluster share on this machine, or end it.",
        has_storage=False,
    )
    parser.add_argument(
        "action",
        nargs="?",
        choices=("show", "stop"),
        default="show",
        help="stop: end it; workflows that run there are suspended, and can be resumed",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="with stop: those of this user's other Python environments, too",
    )


def _local(options: Any) -> Answer:
    found = list_local_rays(state_root())
    return _stop(found, of_all=options.all) if options.action == "stop" else _show(found)


def _show(found: list[ShownLocalRay]) -> Answer:
    if not found:
        return Answer(value=[], text="No local Ray runs for this user.")
    return Answer(
        value=[_json(one) for one in found],
        text="\n\n".join(text.fields(_fields(one)) for one in found),
    )


def _stop(found: list[ShownLocalRay], *, of_all: bool) -> Answer:
    own = os.path.realpath(sys.prefix)
    chosen = [one for one in found if of_all or one.state is None or one.state.prefix == own]
    problems, ended = [], []
    for one in chosen:
        if not end_local_ray(one, timeout_s=_STOP_TIMEOUT_S):
            problems.append(f"The local Ray in {one.folder.path!r} had to be killed.")
        ended.append(one.folder.path)
    others = f" {len(found) - len(chosen)} of other environments go on." if found != chosen else ""
    return Answer(
        value=ended, text=f"{len(ended)} local Rays are ended.{others}", problems=tuple(problems)
    )


def _fields(one: ShownLocalRay) -> list[tuple[str, Any]]:
    state = one.state
    if state is None:
        return [("folder", one.folder.path), ("phase", "unknown")]
    size = ", ".join(f"{name}={value}" for name, value in asdict(state.size).items())
    return [
        ("phase", state.phase),
        ("since", datetime.fromtimestamp(state.since, UTC).isoformat(" ", "seconds")),
        ("process", state.process.pid),
        ("python", state.prefix),
        ("versions", f"Ray {state.ray_version}, this package {state.package_version}"),
        ("size", size),
        ("address", state.address or "-"),
        ("token", state.token_file),
        ("log", one.folder.log_path),
        ("storages", ", ".join(shown(storage) for storage in one.storages) or "-"),
        ("used by", ", ".join(f"process {presence.pid}" for presence in one.present) or "-"),
    ]


def _json(one: ShownLocalRay) -> Json:
    return {
        "folder": one.folder.path,
        "log": one.folder.log_path,
        "keeper": asdict(one.state) if one.state else None,
        "storages": [shown(storage) for storage in one.storages],
        "used_by": [presence.pid for presence in one.present],
    }
