"""Airflow's simple access control, and users who have rights on some DAGs only."""

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

#: The DAGs of users who have no more than these.
ONLY = {"trips": {"ui_trips"}}


class DagRights(SimpleAuthManager):
    """Others have the rights of their role."""

    def is_authorized_dag(self, *, method, user, access_entity=None, details=None) -> bool:
        mine = ONLY.get(user.username)
        if mine is not None and (details is None or details.id not in mine):
            return False
        return super().is_authorized_dag(
            method=method, user=user, access_entity=access_entity, details=details
        )

    def is_authorized_connection(self, *, method, user, details=None) -> bool:
        return user.username not in ONLY and super().is_authorized_connection(
            method=method, user=user, details=details
        )
