"""Values in HTTP and MIME header fields."""

from __future__ import annotations

from urllib.parse import quote


def header_parameter(name: str, value: str) -> str:
    """`name="value"`, or by RFC 2231 for what is not ASCII. `value` has no control characters."""
    if value.isascii():
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'{name}="{escaped}"'
    return f"{name}*=UTF-8''{quote(value)}"
