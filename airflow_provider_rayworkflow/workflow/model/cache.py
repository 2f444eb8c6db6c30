"""``workflow.Cache``: results that are kept across workflows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, get_args

from airflow_provider_rayworkflow.workflow.format.documents import MAX_TIME
from airflow_provider_rayworkflow.workflow.import_path import is_function
from airflow_provider_rayworkflow.workflow.model.cache_options import CacheOptions, CacheScope
from airflow_provider_rayworkflow.workflow.model.retry import seconds

_MAX_KEY = 10_000


@dataclass(frozen=True, kw_only=True)
class Cache:
    """For ``@workflow.task(cache=…)``: take the result of the same code on the same inputs from any workflow.

    Inputs are the arguments and the results that the task takes, compared by content. A result is put
    into the cache after its checkpoint is committed; an exception never is.

    :param max_age: how old a result may be that is taken; seconds or a timedelta. None: of any age, until
        the cache's limit evicts it.
    :param version: stands for the task's code: results of the same version are taken, whatever has changed
        in the code. A string or a whole number.
    :param key: called with the task's arguments when the graph is made; the text that it returns stands for
        the arguments. For calls that take no results of other tasks.
    :param scope: ``"storage"``: the results of all workflows of the storage; ``"dag"``: of workflows
        that the same Airflow DAG has started.
    :raises ValueError: for values that make no sense.
    """

    max_age: float | timedelta | None = None
    version: str | int | None = None
    key: Callable[..., str] | None = None
    scope: CacheScope = "storage"

    def __post_init__(self) -> None:
        if self.max_age is not None and not 0 < seconds("max_age", self.max_age) < MAX_TIME:
            raise ValueError(f"max_age must be more than 0, and have an end, not {self.max_age!r}.")
        if isinstance(self.version, bool) or not isinstance(self.version, (str, int, type(None))):
            raise ValueError(f"version must be a string or a whole number, not {self.version!r}.")
        if self.key is not None and not is_function(self.key):
            raise ValueError(
                f"key must be a function of the task's arguments, not {self.key!r:.100}: "
                "key=lambda day, **_: day."
            )
        if self.scope not in get_args(CacheScope):
            raise ValueError(f"scope must be one of {get_args(CacheScope)}, not {self.scope!r}.")

    def to_options(self, function: str, key: str | None = None) -> CacheOptions:
        """The part that the scheduler needs.

        :param function: module and name of the task's function.
        :param key: what the function ``key`` has returned.
        """
        return CacheOptions(
            function=function,
            max_age_s=None if self.max_age is None else seconds("max_age", self.max_age),
            version=None if self.version is None else str(self.version),
            key=key,
            scope=self.scope,
        )

    def key_of(self, task: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
        """The text that stands for the arguments of a call; None where their fingerprint does.

        :param task: for errors.
        :raises ValueError: when it is no text, or a very long one.
        :raises TypeError: when the function can't be called with these arguments.
        """
        if self.key is None:
            return None
        _check_takes(self.key, task, args, kwargs)
        try:
            text = self.key(*args, **kwargs)
        except Exception as exc:
            exc.add_note(f"That was the function of the cache key of task {task}.")
            raise
        if not isinstance(text, str) or len(text) > _MAX_KEY:
            raise ValueError(
                f"The cache key of task {task} must be a string of at most {_MAX_KEY} characters, not "
                f"{text!r:.100}."
            )
        return text


def _check_takes(
    key: Callable[..., str], task: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    try:
        signature = inspect.signature(key)
    except ValueError:  # one of C may have none
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as exc:
        raise TypeError(
            f"The function of the cache key of task {task} is called with the task's arguments, as they "
            f"were given, and can't take them: {exc}. Give it parameters of the same names as the task's, and "
            "**_ for those that do not matter: key=lambda day, **_: day."
        ) from None


def check_cache(options: Mapping[str, Any]) -> None:
    """Return if a task's result may be kept in the cache, by all its options.

    :raises ValueError: otherwise.
    """
    if options.get("cache") is None:
        return
    if options.get("checkpoint") is False:
        raise ValueError("cache is for a task that keeps a checkpoint: leave checkpoint=False out.")
    if options.get("when") not in (None, "all_success"):
        raise ValueError(
            f"cache is for a task that runs when all that it takes has a value, not when={options['when']!r}."
        )
