"""Makes the graphs of submissions: in short-lived Ray workers, each in the author's runtime environment.

The manager itself imports nothing of an author. The tasks of a graph run in the environment in which it was
built.
"""

from __future__ import annotations

import asyncio
import traceback
from typing import Any, Literal

import ray
from ray.exceptions import RayError, RuntimeEnvSetupError

from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.import_path import check_call, load_function
from airflow_provider_rayworkflow.workflow.manager.submission_reader import BuildError, RefusedError
from airflow_provider_rayworkflow.workflow.model.code_variables import (
    ARCHIVES_VARIABLE,
    without_base,
)
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import encode_graph
from airflow_provider_rayworkflow.workflow.runtime.graphs.environments import (
    base_of_workers,
    current_environment,
    with_environment,
)
from airflow_provider_rayworkflow.workflow.runtime.graphs.nodes import check_graph
from airflow_provider_rayworkflow.workflow.runtime.locations import store_at
from airflow_provider_rayworkflow.workflow.runtime.logs import log_to_stderr
from airflow_provider_rayworkflow.workflow.runtime.service.unpack import (
    enter_archives,
    ray_environment,
)
from airflow_provider_rayworkflow.workflow.storage.archives import ArchiveError
from airflow_provider_rayworkflow.workflow.storage.mailbox import Submission, python_version

Json = dict[str, Any]

_Built = tuple[Literal["built", "failed", "refused"], bytes | str]

# The node of the first worker may have been lost.
_MAX_RETRIES = 1


class RayBuilder:
    """A :class:`.Builder` on a cluster.

    :param location: of the storage, for :func:`store_at`.
    """

    def __init__(self, location: str) -> None:
        self._location = location

    async def build(self, submission: Submission) -> bytes | None:
        """See :meth:`.Builder.build`."""
        if submission.graph is None and not submission.workflow:
            return None
        environment = _with_own_modules(ray_environment(submission.runtime_env))
        if submission.graph is not None and is_at_once(environment):
            return await asyncio.to_thread(build_graph, submission, environment)
        try:
            worker = _build_on_worker.options(
                runtime_env=without_base(environment, base_of_workers()) or None,
                name=f"build {submission.workflow or 'a graph'}",
            )
            ref = worker.remote(self._location, submission, environment)
        except (TypeError, ValueError) as exc:  # Ray checks the environment in this call
            raise RefusedError(f"The runtime_env can't be used: {exc}") from exc
        outcome, content = await _value(ref, submission)
        if outcome == "refused":
            raise RefusedError(str(content))
        if outcome == "failed":
            raise BuildError(str(content))
        return content if isinstance(content, bytes) else None


def is_at_once(environment: Json) -> bool:
    """True for an environment of variables only: nothing of it can fail, so no worker has to try it first."""
    variables = environment.get("env_vars") or {}
    return set(environment) <= {"env_vars"} and ARCHIVES_VARIABLE not in variables


def _with_own_modules(environment: Json) -> Json:
    """An environment that may name modules: those of the manager, with this package, would not be in it."""
    own = current_environment().get("py_modules")
    if own and environment.get("py_modules"):
        return environment | {"py_modules": [*own, *environment["py_modules"]]}
    return environment


async def _value(ref: Any, submission: Submission) -> _Built:
    try:
        value: _Built = await ref
    except asyncio.CancelledError:
        # To cancel a task that has ended can end this process.
        if not ray.wait([ref], timeout=0, fetch_local=False)[0]:
            ray.cancel(ref, force=True)
        raise
    except RuntimeEnvSetupError as exc:
        raise BuildError(f"The runtime_env can't be set up on the cluster: {exc}") from exc
    except RayError as exc:
        raise BuildError(
            f"The worker that was to build {submission.workflow or 'the graph'!r} was lost: {exc}"
        ) from exc
    return value


# No worker that has imported an author's modules is used again: the next one sees the code as it is then.
@ray.remote(num_cpus=0, max_calls=1, max_retries=_MAX_RETRIES)
def _build_on_worker(location: str, submission: Submission, environment: Json) -> _Built:
    """Runs on a worker of the author's environment. Errors are data: Ray would wrap them."""
    log_to_stderr()
    try:
        enter_archives(store_at(location))
        return "built", build_graph(submission, environment) or b""
    except RefusedError as exc:
        return "refused", str(exc)
    except BuildError as exc:
        return "failed", str(exc)
    except (StorageError, ArchiveError) as exc:
        return "failed", f"The code of the workflow can't be had on the cluster: {exc}"


def build_graph(submission: Submission, environment: Json) -> bytes | None:
    """The graph to run; None for the stored one.

    :param environment: the runtime environment of its tasks.
    :raises BuildError: when it can't be made; its message has the author's traceback.
    :raises RefusedError: when the function gives something else than a graph.
    """
    if submission.graph is not None:
        here = python_version()
        if submission.python != here:
            raise BuildError(
                f"The workflow is a function of the DAG file, pickled by Python "
                f"{submission.python}, and the cluster has Python {here}. Use the same Python on "
                "both sides, or give the workflow as an import path."
            )
        graph = Graph.from_bytes(submission.graph)
        return with_environment(graph, environment).to_bytes()
    if not submission.workflow:
        return None
    try:
        function = load_function(submission.workflow)
        check_call(submission.workflow, function, submission.arguments)
    except ValueError as exc:
        raise BuildError(
            f"{exc} It is looked up on the cluster: ship it with the task's runtime_env "
            "(working_dir or py_modules), or install it there."
        ) from exc
    except Exception as exc:
        raise BuildError(
            f"The workflow {submission.workflow!r} can't be imported on the cluster:\n"
            f"{traceback.format_exc()}"
        ) from exc
    try:
        dag = function(**submission.arguments)
    except Exception as exc:
        raise BuildError(
            f"The workflow {submission.workflow!r} gave no graph:\n{traceback.format_exc()}"
        ) from exc
    try:
        check_graph(dag)
        return encode_graph(dag, environment=environment).to_bytes()
    except (TypeError, ValueError) as exc:  # the next try would give the same
        raise RefusedError(f"{submission.workflow!r} gave no graph: {exc}") from exc
