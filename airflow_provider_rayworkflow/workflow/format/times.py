"""Times and durations as people read them, in a terminal and on a page."""

from __future__ import annotations

from datetime import UTC, datetime


def duration(seconds: float | None) -> str:
    """``1 h 02 min``, ``3 min 04 s``, ``5.0 s``; ``-`` where it is not known."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{max(0.0, seconds):.1f} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {left:02} s"


def utc_time(timestamp: float | None) -> str:
    """``2026-11-29 16:03:37 UTC`` for seconds since the epoch; ``-`` where it is not known."""
    if timestamp is None:
        return "-"
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
