"""``rayworkflow cache``: list the results that are kept across workflows, or drop them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from airflow_provider_rayworkflow.workflow.cli.stored import UnavailableError, open_stored
from airflow_provider_rayworkflow.workflow.cli.text import table
from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands, Json, duration_s
from airflow_provider_rayworkflow.workflow.model.cache_options import shown_age
from airflow_provider_rayworkflow.workflow.offline.cache import (
    CachedResult,
    drop_results,
    list_results,
)

_TITLES = ("TASK", "AGE", "BYTES", "WORKFLOW")


def add_to(commands: Commands) -> None:
    parser = commands.add(
        "cache", _cache, "List the results of the cache, or drop them; needs no cluster."
    )
    parser.add_argument(
        "action",
        nargs="?",
        choices=("list", "drop"),
        default="list",
        help="drop: delete them; workflows that have taken them keep what they took",
    )
    parser.add_argument(
        "--task",
        metavar="NAME",
        default="",
        help="only those of this task: its function's name, with or without the module, or its id",
    )
    parser.add_argument(
        "--older-than",
        metavar="TIME",
        type=duration_s,
        default=0.0,
        help="only those made longer ago: 90s, 15m, 12h, 30d",
    )
    parser.add_argument("--all", action="store_true", help="with drop: all results")
    parser.add_argument("--dry-run", action="store_true", help="with drop: only say which ones")


def _cache(options: Any) -> Answer:
    is_drop = options.action == "drop"
    if is_drop and not (options.all or options.task or options.older_than):
        raise UnavailableError("Say which results to drop: --task, --older-than or --all.")
    store, now = open_stored(options), time.time()
    problems: list[str] = []
    found = list_results(
        store,
        now=now,
        task=options.task,
        older_than_s=options.older_than,
        report=lambda problem: problems.append(str(problem)),
    )
    if is_drop and not options.dry_run:
        drop_results(store, found)
        if not options.task:
            problems.clear()  # what can't be read is gone, too
    count, size = len(found), sum(one.size for one in found)
    verb = ("would be dropped" if options.dry_run else "are dropped") if is_drop else "are kept"
    end = f"{count} results with {size} bytes {verb}."
    return Answer(
        value=[_json(one) for one in found],
        text=f"{table(_TITLES, _rows(found, now))}\n{end}" if found else end,
        problems=tuple(problems),
    )


def _rows(found: Sequence[CachedResult], now: float) -> list[tuple[Any, ...]]:
    return [
        (
            one.entry.function if one.entry else "?",
            shown_age(now - one.file.made_at),
            one.size,
            one.entry.source.workflow_id if one.entry else "?",
        )
        for one in found
    ]


def _json(one: CachedResult) -> Json:
    source = one.entry.source.to_json() if one.entry else {"made_at": one.file.made_at}
    return {
        "key": one.file.key,
        "function": one.entry.function if one.entry else None,
        "bytes": one.size,
        "expires_at": one.file.expires_at or None,
        **source,
    }
