"""The documents of a state folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from airflow_provider_rayworkflow.workflow.format.documents import well_typed
from airflow_provider_rayworkflow.workflow.local_ray.cluster import Size
from airflow_provider_rayworkflow.workflow.storage.leases import Process

Json = dict[str, Any]

#: A keeper that is ``ending`` takes no requests; it may find that it has work, and run again.
Phase = Literal["starting", "running", "ending"]


@dataclass(frozen=True, kw_only=True, slots=True)
class KeeperState:
    """What a keeper says of itself. It holds as long as the keeper's lock does.

    :ivar keeper_id: unique for each start.
    :ivar process: the keeper's, with the boot of its machine.
    :ivar since: when it began, in seconds since the epoch, for people.
    :ivar prefix: of the Python environment, and the versions there.
    :ivar size: as asked for while Ray starts, then what Ray has.
    :ivar cluster_id: what submissions for its managers carry, ``""`` while Ray starts.
    :ivar address: of Ray, ``""`` while it starts.
    :ivar token_file: the file with Ray's token.
    """

    keeper_id: str
    process: Process
    phase: Phase
    since: float
    prefix: str
    package_version: str
    ray_version: str
    size: Size
    cluster_id: str
    address: str
    token_file: str

    @classmethod
    def of(cls, *, process: Json, size: Json, **others: Any) -> KeeperState:
        """The state of a document's body."""
        return cls(process=well_typed(Process(**process)), size=well_typed(Size(**size)), **others)


@dataclass(frozen=True, kw_only=True, slots=True)
class ManagerRequest:
    """What a caller asks of the keeper: a manager for a storage. Deleted when it is answered.

    :ivar storage: and ``location``: as for :meth:`.LocalCluster.start_manager`.
    """

    storage: str
    location: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ManagerReport:
    """How the keeper's manager of a storage stands.

    :ivar number: of the report, counted by the keeper over all storages.
    :ivar problem: why there is no manager, ``""`` if it is up.
    :ivar is_transient: with a problem: there may be one a moment later.
    """

    keeper_id: str
    number: int
    storage: str
    problem: str = ""
    is_transient: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class StartFailure:
    """Why a keeper could not start Ray."""

    keeper_id: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Presence:
    """What a process says that uses the local Ray. It holds as long as that locks the file.

    :ivar since: seconds since the epoch; the wish of the latest one counts.
    :ivar idle_s: how long Ray shall stay when nothing is left to do.
    """

    pid: int
    since: float
    idle_s: float
