"""Texts that others write and that we store, log and show: cut where they are too long."""

from __future__ import annotations

#: How much is kept of a message or a traceback, in bytes of UTF-8.
MAX_TEXT_BYTES = 64 * 1024
#: How much is kept of a name, that of an exception's type for one.
MAX_NAME_BYTES = 1024
#: How much of a name stands in a line or a table that has others beside it, in characters.
SHOWN_NAME = 40


def shorten(text: str, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """The text, or its beginning and its end with a word of how much is missing in between.

    The result is a little longer than ``max_bytes``, and with a name in front of it is not cut again.
    """
    if len(text) <= max_bytes // 4:  # no character has more than four bytes
        return text
    data = text.encode(errors="surrogatepass")
    if len(data) <= max_bytes + _MORE_BYTES:
        return text
    half = max_bytes // 2
    head = data[:half].decode(errors="ignore")
    tail = data[-half:].decode(errors="ignore")
    left_out = len(text) - len(head) - len(tail)
    return f"{head}\n[{left_out} characters are left out]\n{tail}"


def right_end(name: str, width: int = SHOWN_NAME) -> str:
    """A name such as ``etl.locals.extract_3`` by its end, which tells it from others; whole if it is short.

    :param width: in characters, of the result at most.
    """
    if len(name) <= width:
        return name
    kept = name[1 - width :]
    _, _, whole_parts = kept.partition(".")
    return f"…{whole_parts if len(whole_parts) >= width // 2 else kept}"


_MORE_BYTES = 2048  # the note, and an exception's name in front of its message
