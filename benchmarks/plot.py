"""The ratios as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10
from pathlib import Path
from typing import Any

_LINE, _LABELS, _BARS = 22, 740, 380


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw a bar for each row, on a logarithmic scale: 1 is the peer."""
    shown = [row for row in rows if row["unit"] in ("tasks/s", "MB/s", "s")]
    top = max((row["ratio"] for row in shown), default=1.0)
    low, high = -1.0, max(1.0, log10(top)) + 0.1
    at = lambda ratio: _LABELS + _BARS * (log10(max(ratio, 0.1)) - low) / (high - low)  # noqa: E731
    height = _LINE * (len(shown) + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LABELS + _BARS + 70}" '
        f'height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="100%" height="{height}" fill="white"/>',
    ]
    for power in range(int(low), int(high) + 1):
        x = at(10.0**power)
        colour = "#444" if power == 0 else "#ddd"
        parts += [
            f'<line x1="{x:.0f}" x2="{x:.0f}" y1="20" y2="{height - 14}" stroke="{colour}"/>',
            f'<text x="{x:.0f}" y="14" text-anchor="middle">{10.0**power:g} x</text>',
        ]
    for number, row in enumerate(shown):
        y = _LINE * (number + 1) + 6
        begin, end = sorted((at(1.0), at(row["ratio"])))
        colour = "#2a7f62" if row["ratio"] >= 1 else "#c0603c"
        label = escape(f"{row['work']} / {row['peer']}")
        parts += [
            f'<text x="{_LABELS - 8}" y="{y + 10}" text-anchor="end">{label}</text>',
            f'<rect x="{begin:.0f}" y="{y}" width="{max(end - begin, 1):.0f}" height="14" '
            f'fill="{colour}"/>',
            f'<text x="{end + 4:.0f}" y="{y + 11}">{row["ratio"]:g}</text>',
        ]
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")
