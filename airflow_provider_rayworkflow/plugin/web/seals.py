"""Text that a page gives to a browser and gets back, and that its user can't read or make.

The begin of a list's next page may be the id of a workflow that the user may not see.
"""

from __future__ import annotations

import base64
import functools
import hashlib

from airflow.configuration import conf
from cryptography.fernet import Fernet, InvalidToken

from airflow_provider_rayworkflow.workflow.storage.listing import UnknownPageError


def seal(text: str) -> str:
    """Hide a text, for a URL; ``""`` stays as it is. All API servers with one secret key open it."""
    return _fernet().encrypt(text.encode()).decode() if text else ""


def unseal(sealed: str) -> str:
    """The text that was sealed.

    :raises UnknownPageError: for any other text.
    """
    try:
        return _fernet().decrypt(sealed.encode()).decode() if sealed else ""
    except (InvalidToken, ValueError) as exc:
        raise UnknownPageError("This page is not known; begin with the first page.") from exc


@functools.cache
def _fernet() -> Fernet:
    secret = conf.get_mandatory_value("api", "secret_key")
    key = hashlib.sha256(f"rayworkflow pages {secret}".encode()).digest()
    return Fernet(base64.urlsafe_b64encode(key))
