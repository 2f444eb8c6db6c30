"""Tries that die, are killed or lose their cluster; here without Airflow around them."""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, wait_for

import airflow_provider_rayworkflow
from airflow_provider_rayworkflow import __version__
from airflow_provider_rayworkflow.clusters import remote
from airflow_provider_rayworkflow.clusters.engine import RayEngine
from airflow_provider_rayworkflow.exceptions import RayWorkflowUnreachableError
from airflow_provider_rayworkflow.hooks import RayWorkflowHook, StoredWorkflow
from airflow_provider_rayworkflow.tries.backoff import Backoff
from airflow_provider_rayworkflow.tries.decision import Action
from airflow_provider_rayworkflow.tries.definition import WorkflowDefinition
from airflow_provider_rayworkflow.tries.run_spec import RunSpec
from airflow_provider_rayworkflow.tries.workflow_log import WorkflowLog
from airflow_provider_rayworkflow.tries.workflow_try import WorkflowTry
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

SHIPPED = Path(__file__).parent / "shipped"

pytestmark = [
    pytest.mark.timeout(1_200),
    # Ray's client of the Jobs API calls aiohttp in an older way, and leaves connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@dataclass
class Try:
    """One try at a workflow, in a thread."""

    run: WorkflowTry
    action: Action
    ended: list[StoredWorkflow] = field(default_factory=list)
    failed: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self.ended.append(self.run.wait(self.run.start(self.action, before=None)))
        except BaseException as exc:
            self.failed.append(exc)
        finally:
            self.run.close()

    def wait(self) -> StoredWorkflow:
        """How the workflow stood in the end."""
        self._thread.join(600)
        assert not self._thread.is_alive()
        if self.failed:
            raise self.failed[0]
        return self.ended[0]


Begin = Callable[..., Try]


@pytest.fixture
def begin(connection, monkeypatch: pytest.MonkeyPatch, caplog) -> Begin:
    """Begins a try."""
    caplog.set_level("INFO")

    def begin(
        action: Action,
        *,
        token: str,
        workflow_id: str,
        function: str,
        arguments: dict[str, Any],
        unreachable_timeout_s: float = 60,
        package_version: str = __version__,
        own_modules: Sequence[str] = remote.OWN_MODULES,
        **connection_changes: object,
    ) -> Try:
        monkeypatch.setenv("AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT", connection(**connection_changes))
        hook = RayWorkflowHook()
        cluster = hook.settings.cluster
        assert cluster is not None
        spec = RunSpec(
            workflow_id=workflow_id,
            definition=WorkflowDefinition.load(f"pipeline:{function}", arguments, is_remote=True),
            runtime_env={"working_dir": str(SHIPPED)},
        )
        engine = RayEngine(
            hook,
            spec,
            remote.RemoteCluster(
                hook, cluster, own_modules=own_modules, package_version=package_version
            ),
            token=token,
            package_version=package_version,
            backoff=Backoff(unreachable_timeout_s),
        )
        run = WorkflowTry(
            hook=hook,
            engine=engine,
            spec=spec,
            poll_interval_s=0.2,
            backoff=Backoff(unreachable_timeout_s),
            log=WorkflowLog(spec.workflow_id),
        )
        run.prepare(action)
        return Try(run, action)

    return begin


def ran(folder: Path) -> Counter[str]:
    return Counter((folder / "ran").read_text().split()) if (folder / "ran").exists() else Counter()


def test_only_the_latest_try_may_stop_the_workflow(begin: Begin, tmp_path: Path):
    what = {"workflow_id": "gated", "function": "gated", "arguments": {"folder": str(tmp_path)}}
    first = begin(Action.RUN, token="first", **what)
    hook = first.run._hook
    wait_for(lambda: ran(tmp_path)["gate"] == 1, "the start of the workflow")
    assert hook.find("gated").status is WorkflowStatus.RUNNING

    second = begin(Action.ATTACH, token="second", **what)
    wait_for(lambda: hook.mailbox.read_owner("gated").token == "second", "the attaching")
    first.run.stop("cancel")
    wait_for(lambda: not list(hook.mailbox.list_requests()), "the dropping of the old request")
    assert hook.find("gated").status is WorkflowStatus.RUNNING

    second.run.stop("suspend")
    stopped = second.wait()
    assert (stopped.status, stopped.record.stopped_by) == (WorkflowStatus.RESUMABLE, "second")
    assert first.wait().status is WorkflowStatus.RESUMABLE
    assert ran(tmp_path) == {"a": 1, "gate": 1}

    (tmp_path / "open").touch()
    third = begin(Action.RESUME, token="third", **what).wait()
    assert third.status is WorkflowStatus.SUCCESSFUL
    assert third.record.output.value == ["a", "after"]
    assert ran(tmp_path) == {"a": 1, "gate": 2, "after": 1}


def test_a_try_that_is_stopped_before_its_workflow_begins_never_starts_it(
    begin: Begin, tmp_path: Path
):
    arguments = {"folder": str(tmp_path)}
    what = {"workflow_id": "early", "function": "built_late", "arguments": arguments}
    attempt = begin(Action.RUN, token="early", **what)
    wait_for((tmp_path / "builds").exists, "the manager that takes the submission")
    attempt.run.stop("suspend")
    (tmp_path / "build").touch()
    with pytest.raises(Exception, match="its owner has asked to suspend it"):
        attempt.wait()
    assert attempt.run._hook.find("early") is None
    assert not ran(tmp_path)


def test_a_lost_cluster_leaves_the_workflow_resumable_on_another_one(begin: Begin, tmp_path: Path):
    what = {"workflow_id": "moved", "function": "gated", "arguments": {"folder": str(tmp_path)}}
    # The token of the tests' environment: the connection needs no password.
    lost = Cluster(token=Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text())
    try:
        lost.start()
        first = begin(
            Action.RUN,
            token="first",
            host=lost.address,
            password=None,
            unreachable_timeout_s=2,
            **what,
        )
        wait_for(lambda: ran(tmp_path)["gate"] == 1, "the start of the workflow")
        lost.kill()
    finally:
        lost.stop()
    with pytest.raises(RayWorkflowUnreachableError, match="'moved' is RESUMABLE: the next try"):
        first.wait()
    found = first.run._hook.find("moved")
    assert (found.status, found.has_lost_owner) == (WorkflowStatus.RESUMABLE, True)

    (tmp_path / "open").touch()
    second = begin(Action.RESUME, token="second", **what).wait()
    assert second.status is WorkflowStatus.SUCCESSFUL
    assert ran(tmp_path) == {"a": 1, "gate": 2, "after": 1}


def test_an_idle_manager_of_another_version_is_replaced(begin: Begin, tmp_path: Path):
    (tmp_path / "open").touch()
    what = {"function": "gated", "arguments": {"folder": str(tmp_path)}}
    older = tmp_path / "airflow_provider_rayworkflow"
    shutil.copytree(
        Path(airflow_provider_rayworkflow.__file__).parent,
        older,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    source = (older / "__init__.py").read_text()
    (older / "__init__.py").write_text(source.replace(f'"{__version__}"', '"0.0.1"'))
    package = {"package_version": "0.0.1", "own_modules": (str(older), *remote.OWN_MODULES[1:])}
    before = begin(Action.RUN, token="older", workflow_id="older", **what, **package)
    record = before.wait().record
    hook = before.run._hook
    assert hook.store.leases.read(record.manager_id).package_version == "0.0.1"

    after = begin(Action.RUN, token="newer", workflow_id="newer", **what).wait()
    assert after.status is WorkflowStatus.SUCCESSFUL
    assert hook.store.leases.read(after.record.manager_id).package_version == __version__
    assert hook.store.leases.read(record.manager_id) is None
