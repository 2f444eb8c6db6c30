"""Which users may see and do what. The only module that knows Airflow's access control.

A user who is not logged in gets nothing. A workflow that a task instance started belongs to that
task's Airflow DAG: who may see the DAG's task instances sees it, and who may clear or mark them may act on
it. Any other workflow belongs to its connection.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal, NoReturn

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import (
    ConnectionDetails,
    DagAccessEntity,
    DagDetails,
)
from airflow.api_fastapi.core_api.security import GetUserDep, get_user
from airflow.models import Connection
from airflow.models.dag import DagModel
from airflow.utils.session import create_session
from fastapi import Depends, HTTPException
from sqlalchemy import select

from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.tries.identity import Origin

__all__ = ["Access", "AccessDep", "get_user", "login_url"]

#: One answer for what is not there, what is not theirs, and what can't be read.
NOT_SHOWN = (
    "There is no such workflow, or you may not see it, or its storage can't be read at the moment."
)
#: For those who may see the connection.
UNREADABLE = (
    "The workflow or its storage can't be read now, or there is no such Ray workflow connection. The "
    "API server's log says more."
)

Method = Literal["GET", "PUT", "DELETE"]

# A user who may see a DAG that does not exist has no rights on some DAGs only.
_NO_DAG = "~ there is no such DAG"


class Access:
    """What one user may see and do."""

    def __init__(self, user: GetUserDep) -> None:
        self._user = user
        self._dags: dict[tuple[Method, str], bool] = {}
        self._connections: dict[tuple[Method, str], bool] = {}

    def check(self, method: Method, conn_id: str, origin: Origin | None) -> None:
        """Return if the user may do this with a workflow.

        :param method: see it, change how it stands, or delete it.
        :param conn_id: the connection whose storage has it.
        :param origin: the task instance that started it, None if none did.
        :raises HTTPException: 404 when the user may not even see it, else 403.
        """
        if not self.allows("GET", conn_id, origin):
            self.refuse()
        if not self.allows(method, conn_id, origin):
            raise HTTPException(403, "You may see this workflow, and not act on it.")

    def refuse(self) -> NoReturn:
        """Say the same of a workflow that is not there, of one that is not theirs, and of others.

        :raises HTTPException: 404.
        """
        raise HTTPException(404, NOT_SHOWN)

    def fail(self, conn_id: str) -> NoReturn:
        """Say that a connection, or a workflow of it, can't be read.

        An unknown connection is answered like one whose storage can't be read. Users who may not
        see the connection learn neither: they get the answer of a workflow that is not there.

        :raises HTTPException: 502, or 404.
        """
        if not self.allows_connection("GET", conn_id):
            self.refuse()
        raise HTTPException(502, UNREADABLE)

    def allows(self, method: Method, conn_id: str, origin: Origin | None) -> bool:
        """The same as an answer."""
        if origin is not None:
            return self._allows_dag(method, origin.key.dag_id)
        return self.allows_connection(method, conn_id)

    def allows_all(self, conn_id: str) -> bool:
        """True if the user may see all workflows of a connection, whatever started them."""
        return self.allows_connection("GET", conn_id) and self._allows_dag("GET", _NO_DAG)

    def check_dag(self, dag_id: str) -> None:
        """Return if the user may see the task instances of an Airflow DAG.

        :raises HTTPException: 403 if not.
        """
        if not self._allows_dag("GET", dag_id):
            raise HTTPException(403, "You may not see this task instance.")

    def allows_connection(self, method: Method, conn_id: str) -> bool:
        known = self._connections.get((method, conn_id))
        if known is None:
            team = Connection.get_team_name(conn_id)
            known = get_auth_manager().is_authorized_connection(
                method=method,
                details=ConnectionDetails(conn_id=conn_id, team_name=team),
                user=self._user,
            )
            self._connections[method, conn_id] = known
        return known

    @cached_property
    def connections(self) -> list[str]:
        """Ids of the connections whose names the user may see, and the default one."""
        with create_session() as session:
            of_type = select(Connection.conn_id).where(
                Connection.conn_type == RayWorkflowHook.conn_type
            )
            found = [conn_id for conn_id in session.scalars(of_type) if conn_id]
        seen = {conn_id for conn_id in found if self.allows_connection("GET", conn_id)}
        return sorted(seen | {RayWorkflowHook.default_conn_name})

    def _allows_dag(self, method: Method, dag_id: str) -> bool:
        known = self._dags.get((method, dag_id))
        if known is None:
            known = get_auth_manager().is_authorized_dag(
                method=method,
                access_entity=DagAccessEntity.TASK_INSTANCE,
                details=DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id)),
                user=self._user,
            )
            self._dags[method, dag_id] = known
        return known


async def _access(user: GetUserDep) -> Access:
    """As a coroutine: FastAPI makes no other in one of the threads that all routes share."""
    return Access(user)


AccessDep = Annotated[Access, Depends(_access)]


def login_url(next_url: str) -> str:
    """Where a person logs in, to come back afterwards."""
    return get_auth_manager().get_url_login(next_url=next_url)
