"""Dates that clients send."""

from __future__ import annotations

from datetime import datetime, timezone

from .records import timestamp
from .refusals import Refusal


def read_date(text: str, parameter: str) -> str:
    """A date in ISO 8601 as the catalogue keeps dates: UTC, milliseconds. One without a zone is in UTC."""
    try:
        moment = datetime.fromisoformat(text.strip().removesuffix("Z"))
    except ValueError:
        raise Refusal(f"{parameter}={text!r} is no date; write it as 2026-11-21T04:34:08.241 (UTC)") from None
    return timestamp(moment.astimezone(timezone.utc) if moment.tzinfo else moment)
