"""Signatures of stored documents: HMAC-SHA256 with secrets that writers and readers share."""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_provider_rayworkflow.workflow.exceptions import StorageError

#: The secrets of the processes that write and read workflows. With it, all documents are signed,
#: and what is not signed so is refused.
SIGNING_KEY_VARIABLE = "RAY_WORKFLOW_SIGNING_KEY"

_Buffer = bytes | bytearray | memoryview
_SEPARATOR = re.compile(rb"[,\s]+")


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The first key signs, each one verifies: so keys are replaced without a gap.

    :ivar keys: without any, nothing is signed or checked.
    """

    keys: Sequence[bytes] = ()

    @classmethod
    def from_text(cls, text: str) -> SigningKeys:
        """Read keys that are separated by commas or white space.

        :raises StorageError: when the text is not empty and has no key.
        """
        return _parse(text)

    @classmethod
    def of_environment(cls) -> SigningKeys:
        """The keys of :data:`SIGNING_KEY_VARIABLE`.

        :raises StorageError: when it is set and has no key.
        """
        return _parse(os.environ.get(SIGNING_KEY_VARIABLE, ""))

    def __bool__(self) -> bool:
        return bool(self.keys)

    def sign(self, names: Sequence[str], content: Iterable[_Buffer]) -> str:
        """The signature of a document.

        :param names: what tells the document from all others, its key for one: a signed document
            can't be put in the place of another.
        """
        return hmac.digest(self.keys[0], _digest(names, content), "sha256").hex()

    def verify(self, signature: object, names: Sequence[str], content: Iterable[_Buffer]) -> bool:
        """True if one of the keys made the signature."""
        if not isinstance(signature, str) or not signature.isascii():
            return False
        digest = _digest(names, content)
        made = [hmac.digest(key, digest, "sha256").hex() for key in self.keys]
        return any([hmac.compare_digest(signature, one) for one in made])


@functools.lru_cache(maxsize=64)
def _parse(text: str) -> SigningKeys:
    keys = tuple(key for key in _SEPARATOR.split(os.fsencode(text)) if key)
    if text and not keys:
        raise StorageError(
            f"The signing key ({SIGNING_KEY_VARIABLE}, or signing_secret of the connection) has only "
            "commas and white space. Give a secret, or leave it out to sign nothing."
        )
    return SigningKeys(keys)


def or_environment(signing: SigningKeys | None) -> SigningKeys:
    """The given keys, or those of the environment."""
    return SigningKeys.of_environment() if signing is None else signing


def _digest(names: Sequence[str], content: Iterable[_Buffer]) -> bytes:
    digest = hashlib.sha256()
    for name in names:
        part = name.encode(errors="surrogatepass")
        digest.update(b"%d:%b" % (len(part), part))
    for buffer in content:
        digest.update(buffer)
    return digest.digest()
