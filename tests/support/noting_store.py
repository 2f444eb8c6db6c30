"""A store that notes what is asked of it: for tests of what something costs, and of its order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Data, Entry


class NotingStore(MemoryStore):
    """A store in memory.

    :ivar calls: the name of each call with its key, or with the folder that is listed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []

    def count(self, call: str, part: str = "") -> int:
        """How many of these calls there were, of keys that have this part."""
        return sum(one == call and part in key for one, key in self.calls)

    def list(self, folder: str) -> Iterator[Entry]:
        self.calls.append(("list", folder))
        return super().list(folder)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self.calls.append(("get", key))
        return super().get(key, start, length)

    def put(self, key: str, data: Data) -> None:
        self.calls.append(("put", key))
        super().put(key, data)

    def put_if_absent(self, key: str, data: Data) -> bool:
        self.calls.append(("put_if_absent", key))
        return super().put_if_absent(key, data)

    def delete(self, keys: Iterable[str]) -> None:
        wanted = [*keys]
        self.calls += [("delete", key) for key in wanted]
        super().delete(wanted)
