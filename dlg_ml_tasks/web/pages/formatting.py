"""How values are written for people: times in UTC, durations, sizes, numbers."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from urllib.parse import quote

from markupsafe import Markup

_STATES = {
    "FINISHED": ("finished", "✓"),
    "FAILED": ("failed", "✕"),
    "KILLED": ("killed", "◼"),
    "RUNNING": ("running", "▶"),
    "SCHEDULED": ("scheduled", "◷"),
}


def utc(milliseconds: float) -> datetime:
    """Milliseconds since 1970 as a time."""
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)


def moment(milliseconds: float | None) -> Markup:
    """A time element: ``26 Nov 2026, 08:57`` with the machine's form beside it."""
    if not milliseconds:
        return Markup('<span class="none">—</span>')
    when = utc(milliseconds)
    return Markup(  # noqa: S704  digits and names of months
        f'<time datetime="{when:%Y-%m-%dT%H:%M:%SZ}">{when.day} {when:%b %Y, %H:%M}</time>'
    )


def day(milliseconds: float) -> str:
    """``26 Nov``."""
    when = utc(milliseconds)
    return f"{when.day} {when.strftime('%b')}"


def duration(milliseconds: float | None) -> str:
    """``840 ms``, ``12.3 s``, ``2 min 13 s``, ``1 h 05 min``, ``3 d 4 h``."""
    if milliseconds is None or milliseconds < 0:
        return "—"
    seconds = milliseconds / 1000
    if seconds < 1:
        return f"{milliseconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    if seconds < 86_400:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
    return f"{int(seconds // 86_400)} d {int(seconds % 86_400 // 3600)} h"


def size(count: float) -> str:
    """Bytes in powers of ten: ``512 B``, ``1.2 MB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"


def number(value: float) -> str:
    """Four significant digits; whole numbers as they are, thousands apart by a thin space."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u202f")
    if 1e-3 <= abs(value) < 1000:
        return f"{value:.4g}"
    return f"{value:,.1f}".replace(",", "\u202f") if 1000 <= abs(value) < 1e12 else f"{value:.3g}"


def signed(value: float) -> str:
    """A difference with its sign, three decimals; a real minus."""
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def plural(count: int, one: str, many: str = "") -> str:
    """``1 run``, ``12 runs``."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def state(status: str) -> Markup:
    """A run's state as a badge: a word and a sign, so that colour is not all there is."""
    word, sign = _STATES.get(status, (status.lower(), "•"))
    return Markup('<span class="state state-{}"><span aria-hidden="true">{}</span> {}</span>').format(
        word if status in _STATES else "other", sign, word
    )


def path(text: str) -> str:
    """A path's or name's characters as they stand in a URL."""
    return quote(text, safe="/")


def part(text: str) -> str:
    """One part of a path as it stands in a URL."""
    return quote(text, safe="")


def short(identifier: str) -> str:
    """The first eight characters of an id."""
    return identifier[:8]


FILTERS = {
    "moment": moment,
    "day": day,
    "duration": duration,
    "size": size,
    "number": number,
    "signed": signed,
    "state": state,
    "path": path,
    "part": part,
    "short": short,
}
