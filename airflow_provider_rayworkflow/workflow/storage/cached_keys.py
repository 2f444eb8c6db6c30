"""Where the results of the cache lie.

.. code-block:: text

    v1/cache/<key>/<made at>-<expires at>-<random>.entry    a result, with what it is of
    v1/cache/<key>/<made at>-<expires at>-<random>.value    the same result's large value
    v1/cache/<key>/<number>.claim                           a manager computes it; the greatest counts

The key is the SHA-256 of what a result is made of (:mod:`.scheduling.cache_key`). Times are in whole seconds since
the epoch, so that a listing alone tells what is old; 0 for what does not expire.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from airflow_provider_rayworkflow.workflow.storage.keys import FORMAT

CACHE = f"{FORMAT}/cache"

CachedKind = Literal["entry", "value"]
_KINDS: dict[str, CachedKind] = {"entry": "entry", "value": "value"}


@dataclass(frozen=True, slots=True, order=True)
class CachedFile:
    """What the name of an object of an entry says; entries sort from the oldest to the latest.

    :ivar key: of the result.
    :ivar size: in bytes, as the listing says.
    """

    made_at: int
    expires_at: int
    token: str
    kind: CachedKind
    key: str
    size: int = 0

    @property
    def path(self) -> str:
        """The key of the object."""
        return f"{self._stem}.{self.kind}"

    @property
    def value_path(self) -> str:
        """The key of the large value of the same entry."""
        return f"{self._stem}.value"

    @property
    def _stem(self) -> str:
        name = f"{self.made_at:012d}-{self.expires_at:012d}-{self.token}"
        return f"{cache_folder(self.key)}/{name}"


def cache_folder(key: str) -> str:
    """The folder of the entries and claims of one key."""
    return f"{CACHE}/{key}"


def cache_claim_key(key: str, number: int) -> str:
    """The claim of a manager that computes a result.

    :param number: from 1; one more than that of a manager that died meanwhile.
    """
    return f"{cache_folder(key)}/{number:08d}.claim"


def parse_cached_file(path: str, size: int) -> CachedFile | None:
    """Read the name of an object of an entry; None for a claim and for a foreign file.

    :param size: as the listing says.
    """
    *folders, key, name = path.split("/")
    stem, _, ending = name.rpartition(".")
    parts, kind = stem.split("-"), _KINDS.get(ending)
    if "/".join(folders) != CACHE or kind is None or len(parts) != 3 or not parts[2]:
        return None
    if not all(part.isascii() and part.isdigit() for part in parts[:2]):
        return None
    return CachedFile(int(parts[0]), int(parts[1]), parts[2], kind, key, size)


def parse_cache_claim(path: str) -> int:
    """The number of a claim, 0 for anything else."""
    stem, _, ending = path.rpartition("/")[2].rpartition(".")
    is_ours = ending == "claim" and stem.isascii() and stem.isdigit()
    return int(stem) if is_ours else 0
