"""Ranges, conditions and names of downloads by themselves, against RFC 9110 and RFC 6266."""

from __future__ import annotations

from datetime import datetime, timezone
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlg_ml_tasks.web.transfer.conditions import Answer, Validators, answer
from dlg_ml_tasks.web.transfer.content import content_headers, disposition

KNOWN = Validators("crc32c:7", datetime(2026, 3, 1, 12, 0, 0, 700_000, timezone.utc))
DATE, EARLIER, LATER = (f"Sun, 01 Mar 2026 1{hour}:00:00 GMT" for hour in "213")


def of(size: int = 100, **fields: str) -> Answer:
    return answer({name.replace("_", "-"): value for name, value in fields.items()}, KNOWN, size)


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=90-", 90, 100),
        ("bytes=-5", 95, 100),
        ("bytes=-500", 0, 100),
    ],
)
def test_a_range_is_answered_with_that_part(asked: str, start: int, end: int) -> None:
    assert of(range=asked) == Answer(206, start, end)


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=-0", "bytes=200-300", f"bytes={'9' * 5000}-"])
def test_a_range_beyond_the_file_cannot_be_satisfied(asked: str) -> None:
    assert of(range=asked).status == 416


@pytest.mark.parametrize("asked", ["bytes=-", "bytes=5-2", "lines=1-2", "bytes=1-2,5-6", "bytes=a-b", "bytes=--1", ""])
def test_what_is_no_single_range_gets_the_whole(asked: str) -> None:
    assert of(range=asked) == Answer(200, 0, 100)


@given(size=st.integers(0, 300), first=st.none() | st.integers(0, 400), last=st.none() | st.integers(0, 400))
def test_every_range_lies_within_the_file(size: int, first: int | None, last: int | None) -> None:
    asked = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    found = answer({"range": asked}, KNOWN, size)
    assert 0 <= found.start <= found.end <= size
    assert found.status == 416 or (found.end - found.start > 0) == (size > 0)


@pytest.mark.parametrize("tags", ['"crc32c:7"', 'W/"crc32c:7"', '"x", "crc32c:7"', "*"])
def test_a_client_that_has_the_file_gets_nothing(tags: str) -> None:
    assert of(if_none_match=tags).status == of(if_none_match=tags, range="bytes=0-1").status == 304


def test_a_tag_goes_before_a_date() -> None:
    assert of(if_none_match='"other"', if_modified_since=LATER).status == 200
    assert of(if_none_match='"crc32c:77", crc32c:7, "x').status == 200


def test_a_date_has_whole_seconds() -> None:
    assert KNOWN.headers()["Last-Modified"] == DATE
    assert [of(if_modified_since=each).status for each in (EARLIER, DATE, LATER, "soon")] == [200, 304, 304, 200]


def test_a_part_of_another_file_is_not_sent() -> None:
    part = {"range": "bytes=5-"}
    assert [of(if_range=each, **part).status for each in ('"crc32c:7"', 'W/"crc32c:7"', '"x"')] == [206, 200, 200]
    assert [of(if_range=each, **part).status for each in (DATE, EARLIER, LATER, "?")] == [206, 200, 200, 200]


def test_a_client_that_wants_another_one_is_told() -> None:
    assert of(if_match='"x"').status == of(if_match='W/"crc32c:7"').status == 412
    assert of(if_unmodified_since=EARLIER).status == 412
    assert of(if_match='"crc32c:7"').status == of(if_match="*").status == of(if_unmodified_since=DATE).status == 200


@given(st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_name_survives_and_none_breaks_the_header(name: str) -> None:
    header = disposition("attachment", name)
    assert header.isascii()
    assert header.isprintable()
    plain = header.split('"')
    assert len(plain) == 3
    exact = header.partition("filename*=UTF-8''")[2]
    assert (unquote(exact) if exact else plain[1]) == name


@pytest.mark.parametrize(
    "name", ["a.html", "a.svg", "a.xml", "a.xhtml", "a.js", "a.pdf", "a.htm.", "html", "A.HTML", "a.png.svg"]
)
def test_nothing_that_can_carry_a_script_is_shown_by_a_browser(name: str) -> None:
    headers = content_headers(name)
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"].startswith("attachment")
    assert "sandbox" in headers["Content-Security-Policy"]
