"""What the tasks of one run take from the cache, and what they give to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from airflow_provider_rayworkflow.workflow.execution.attempt_table import AttemptTable
from airflow_provider_rayworkflow.workflow.execution.cache_requests import Cached, CacheRequest
from airflow_provider_rayworkflow.workflow.execution.result_cache import ResultCache
from airflow_provider_rayworkflow.workflow.model.cache_options import CacheOptions
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.records import ORIGIN_KEY, Encoding, Form, Result
from airflow_provider_rayworkflow.workflow.scheduling.cache_key import cache_key
from airflow_provider_rayworkflow.workflow.scheduling.node import TaskNode


class CachedTasks:
    """Asks once for each task of a run that has ``cache=``, when it has all that it takes.

    :param cache: None for a manager without one.
    :param claim: of the run.
    :param table: has the tasks that wait.
    :param on_found: told a task with its result.
    :param on_missed: told a task that runs.
    :param on_waits: told a task that waits, and what computes its result.
    """

    def __init__(
        self,
        cache: ResultCache | None,
        claim: Claim,
        *,
        table: AttemptTable,
        on_found: Callable[[TaskNode, Cached], None],
        on_missed: Callable[[TaskNode], None],
        on_waits: Callable[[TaskNode, str], None],
    ) -> None:
        self._cache = cache
        self._claim = claim
        origin = claim.user_metadata.get(ORIGIN_KEY)
        dag_id = origin.get("dag_id") if isinstance(origin, dict) else None
        self._dag_id = dag_id if isinstance(dag_id, str) else ""
        # A graph of an earlier run names its code; its workers may import that of now.
        self._is_code_known = claim.graph_epoch == claim.epoch
        self._table = table
        self._on_found = on_found
        self._on_missed = on_missed
        self._on_waits = on_waits
        self._requests: dict[str, CacheRequest] = {}
        self._told: set[str] = set()

    def asks_for(self, node: TaskNode) -> bool:
        """True if a task that is ready waits for the word of the cache; it is told then, unless it is stopped."""
        options, cache = node.task.options.cache, self._cache
        if options is None or cache is None or not cache.is_used:
            return False
        task_id = node.task_id
        key = cache_key(node, dag_id=self._dag_id, is_code_known=self._is_code_known)
        known = self._requests.get(task_id)
        if known is not None and known.key != key:  # what it takes was lost, and made anew
            self.ended(node)
        if not key or (known is not None and known.key == key):
            return False
        request = self._requests[task_id] = self._request(node, key, options)
        # A person who has restarted from a task wants it to run. What the cache gave may have been damaged.
        if node.decision.is_by_restart(node.saved_since) or task_id in self._told:
            return False
        self._table.wait_for(node, _Held(partial(self.ended, node)))
        cache.ask(request)
        return True

    def _request(self, node: TaskNode, key: str, options: CacheOptions) -> CacheRequest:
        return CacheRequest(
            key=key,
            options=options,
            workflow_id=self._claim.workflow_id,
            epoch=self._claim.epoch,
            task_id=node.task_id,
            wants_json=node.is_output,
            tell=lambda cached: self._table.enqueue(partial(self._tell, node, cached)),
            wait=partial(self._on_waits, node),
        )

    def _tell(self, node: TaskNode, cached: Cached | None) -> None:
        if not self._table.has_waited(node):
            return  # it was stopped meanwhile
        self._told.add(node.task_id)
        if cached is None:
            self._on_missed(node)
        else:
            del self._requests[node.task_id]
            self._on_found(node, cached)

    def committed(self, node: TaskNode, result: Result) -> None:
        """A task has returned a value, which is committed.

        :param result: as the worker returned it.
        """
        request = self._requests.pop(node.task_id, None)
        if request is None or self._cache is None:
            return
        is_stored = result.inline is not None or result.blob is not None
        # The result of a map refers to values of its own workflow.
        is_whole = result.encoding is not Encoding.MAP
        if result.form is Form.VALUE and is_stored and is_whole:
            self._cache.keep(request, result._replace(ref=None))
        else:
            self._cache.release(request)

    def ended(self, node: TaskNode) -> None:
        """A task has ended without a value of its own: it is not tried again, or has returned a graph."""
        request = self._requests.pop(node.task_id, None)
        if request is not None and self._cache is not None:
            self._cache.release(request)

    def close(self) -> None:
        """The run has ended."""
        for request in self._requests.values():
            if self._cache is not None:
                self._cache.release(request)
        self._requests.clear()


class _Held:
    """A task that waits for the word of the cache, among those that wait for a time."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self.cancel = stop

    def when(self) -> float:
        return 0.0
