"""Workflows in tests: in this process, without a Ray cluster, in milliseconds.

.. code-block:: python

    from airflow_provider_rayworkflow.workflow import testing

    def test_the_report_has_all_carriers():
        with testing.in_process() as workflows:
            report = workflows.run(daily_report("2013-01-01"), workflow_id="report")
            assert set(report) == {"AA", "UA"}
            assert workflows.get_status("report") == "SUCCESSFUL"

The manager, its scheduling, retries, checkpoints and errors are the real ones; only Ray is not.
Tasks run in threads of this process, and everything between them is pickled, as on Ray. Functions
have to be picklable, but the very same function is called: a test sees what it did to a list of
calls outside of it.

- Inside of the block, the whole workflow API of this process works so, also where the code under
  test calls it. ``init(storage=…)`` keeps the block's storage.
- ``ray.put``, ``ray.get`` and ``ray.wait`` know the block's references: of ``run_async``, and of
  results that a task gets inside a list or dict. Call them as attributes of ``ray``.
- Ray options such as ``num_cpus`` and ``runtime_env`` have no effect. A task that calls
  ``.remote()`` itself needs a Ray cluster.
- A thread can't be killed: a task that is canceled, suspended or over its time limit goes on in
  the background, and what it returns is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_rayworkflow.workflow import api
from airflow_provider_rayworkflow.workflow.storage import ByteStore, open_store
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore

__all__ = ["InProcessWorkflows", "MemoryStore", "in_process"]


class InProcessWorkflows:
    """The workflow API inside of :func:`in_process`.

    :ivar store: where its workflows are kept.
    """

    run = staticmethod(api.run)
    run_async = staticmethod(api.run_async)
    resume = staticmethod(api.resume)
    resume_async = staticmethod(api.resume_async)
    plan = staticmethod(api.plan)
    fork = staticmethod(api.fork)
    resume_all = staticmethod(api.resume_all)
    list_all = staticmethod(api.list_all)
    iter_all = staticmethod(api.iter_all)
    get_output = staticmethod(api.get_output)
    get_output_async = staticmethod(api.get_output_async)
    get_status = staticmethod(api.get_status)
    get_metadata = staticmethod(api.get_metadata)
    cancel = staticmethod(api.cancel)
    suspend = staticmethod(api.suspend)
    delete = staticmethod(api.delete)
    prune = staticmethod(api.prune)
    init = staticmethod(api.init)

    def __init__(self, store: ByteStore) -> None:
        from airflow_provider_rayworkflow.workflow.runtime.testing.in_process import (
            InProcessManager,
        )

        self.store = store
        self._manager = InProcessManager(store)

    def crash(self) -> None:
        """End the manager as if its process had been killed; nothing is written any more.

        What was committed stays in ``store``; go on in another block::

            with testing.in_process(store) as workflows:
                workflows.resume("report")

        Calls that are waiting raise Ray's ``RayActorError``. A task that is running goes on in
        the background, as a thread can't be killed, and what it returns is dropped.
        """
        self._manager.crash()


@contextmanager
def in_process(storage: ByteStore | str | None = None) -> Iterator[InProcessWorkflows]:
    """Run workflows in this process for a while. At the end, what is running is suspended.

    :param storage: an absolute path or URI, or a store: :class:`MemoryStore`, which is the
        default, or one of your own. Give the same store to several blocks, one after the other,
        to test what happens between them.
    :raises DataSaveError: when the storage can't be written.
    """
    store = open_store(storage) if isinstance(storage, str) else storage
    workflows = InProcessWorkflows(store if store is not None else MemoryStore())
    with workflows._manager.running():
        yield workflows
