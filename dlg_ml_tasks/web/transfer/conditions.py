"""Conditional and range requests (RFC 9110, sections 13 and 14): what of a representation is to be sent. Knows nothing of files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import format_datetime, parsedate_to_datetime
from typing import Literal

_RANGE = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE)
_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_DIGITS = 18  # of a position; more would be beyond any file, and long numbers cost time to read

Verdict = Literal[200, 206, 304, 412, 416]


@dataclass(frozen=True)
class Validators:
    """What names the bytes of a representation: a strong entity tag without its quotes, and since when they are so, if known."""

    tag: str
    modified: datetime | None = None

    @property
    def etag(self) -> str:
        return f'"{self.tag}"'

    def headers(self) -> dict[str, str]:
        """As header fields."""
        found = {"ETag": self.etag}
        if self.modified is not None:
            found["Last-Modified"] = format_datetime(_whole_second(self.modified), usegmt=True)
        return found


@dataclass(frozen=True)
class Answer:
    """The status of the answer, and the bytes from `start` to `end` (exclusive) that it brings."""

    status: Verdict
    start: int
    end: int


def answer(headers: Mapping[str, str], validators: Validators, size: int) -> Answer:
    """What a GET or HEAD with these header fields is to get of `size` bytes.

    Fields that cannot be understood count as absent, as RFC 9110 asks. Of several ranges the whole is sent, which a server may do.
    """
    if not _may_go_on(headers, validators):
        return Answer(412, 0, 0)
    if has_it(headers, validators):
        return Answer(304, 0, 0)
    wanted = headers.get("range", "")
    if not wanted or not _still_the_same(headers.get("if-range", ""), validators):
        return Answer(200, 0, size)
    return _range(wanted, size)


def has_it(headers: Mapping[str, str], validators: Validators) -> bool:
    """Whether the client says that it has this representation."""
    if "if-none-match" in headers:
        return _among(validators.tag, headers["if-none-match"], strong=False)
    since = _date(headers.get("if-modified-since", ""))
    return since is not None and validators.modified is not None and _whole_second(validators.modified) <= since


def _may_go_on(headers: Mapping[str, str], validators: Validators) -> bool:
    if "if-match" in headers:
        return _among(validators.tag, headers["if-match"], strong=True)
    since = _date(headers.get("if-unmodified-since", ""))
    return since is None or validators.modified is None or _whole_second(validators.modified) <= since


def _still_the_same(condition: str, validators: Validators) -> bool:
    """Whether If-Range allows a part: it needs the very same tag, or the very same date."""
    if not condition:
        return True
    if '"' in condition:
        return condition.strip() == validators.etag
    date = _date(condition)
    return date is not None and validators.modified is not None and _whole_second(validators.modified) == date


def _among(tag: str, listed: str, *, strong: bool) -> bool:
    if listed.strip() == "*":
        return True
    return any(each[2] == tag and not (strong and each[1]) for each in _TAG.finditer(listed))


def _range(text: str, size: int) -> Answer:
    match = _RANGE.fullmatch(text)
    if match is None or match[1] == match[2] == "":
        return Answer(200, 0, size)
    first, last = match[1], match[2]
    if not first:
        start, end = max(0, size - _position(last)), size
    else:
        start, end = _position(first), min(size, _position(last) + 1) if last else size
        if last and _position(last) < start:
            return Answer(200, 0, size)
    return Answer(206, start, end) if start < size and start < end else Answer(416, 0, 0)


def _position(digits: str) -> int:
    digits = digits.lstrip("0") or "0"
    return int(digits[:_DIGITS]) if len(digits) <= _DIGITS else 10**_DIGITS


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)


def _whole_second(moment: datetime) -> datetime:
    """HTTP's dates have whole seconds."""
    return moment.astimezone(timezone.utc).replace(microsecond=0)
