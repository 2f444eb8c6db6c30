"""What the keeper needs of Ray."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much of the machine a Ray may use; None for what Ray takes by itself.

    :ivar num_cpus: and ``num_gpus``: counts.
    :ivar object_store_memory_mb: shared memory for values, in MiB.
    """

    num_cpus: int | None = None
    num_gpus: int | None = None
    object_store_memory_mb: int | None = None

    def differences(self, asked: Size) -> list[str]:
        """What is not as another size asks for: ``["num_cpus=4 (2 was asked for)"]``.

        What either does not say is no difference.
        """
        found = []
        for name in (field.name for field in fields(self)):
            mine, other = getattr(self, name), getattr(asked, name)
            if None not in (mine, other) and mine != other:
                found.append(f"{name}={mine} ({other} was asked for)")
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class StartedCluster:
    """What has come of a start.

    :ivar cluster_id: what the leases of its managers carry, and submissions to them.
    :ivar address: of its control service, ``host:port``, for drivers.
    :ivar size: what it really has.
    """

    cluster_id: str
    address: str
    size: Size


class LocalCluster(Protocol):
    """A Ray whose processes end with this one, however that ends.

    Made and started by the main thread; the calls about managers come from other threads, one for
    each storage, at the same time. The class is named to the keeper by its import path, and takes no
    arguments.
    """

    def start(self, size: Size, *, token_file: str) -> StartedCluster:
        """Start Ray. Called once, in the main thread.

        :param token_file: the file with the token by which its processes and drivers authenticate.
        :raises Exception: of any kind, when Ray does not start.
        """

    def has_ended(self) -> bool:
        """True if it does not work any more, and never will. Must not block."""

    def start_manager(self, storage: str, location: str) -> None:
        """Return when the manager of a storage is up. Does nothing if it is up already.

        :param storage: its URI, by which the manager is named.
        :param location: what opens it in Ray's processes; may have credentials in it.
        :raises Exception: of any kind, when the storage can't be used.
        """

    def held(self, storage: str) -> int:
        """How many workflows the manager of a storage runs or has in its queue.

        What began before the call counts, or has ended. A submission that has not begun need not
        count: its submitter is present until then.

        :raises Exception: of any kind, when the manager does not say.
        """

    def stop(self) -> None:
        """Suspend what runs, give the leases back, and end Ray. Called once, in the main thread."""
