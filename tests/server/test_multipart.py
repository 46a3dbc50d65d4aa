"""Reading the MIME multipart messages of containers."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlg_ml_tasks.archive.server.containers.multipart import (
    ContainerBegins,
    ContainerEnds,
    FileBegins,
    FileEnds,
    read_multipart,
)
from dlg_ml_tasks.archive.server.refusals import Refusal

# As the protocol reference gives it.
MESSAGE = (
    b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; container_name="cdir"; boundary="B"\r\n\r\n\r\n--B\r\n'
    b'Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename="two.bin"\r\n\r\n'
    b"two\r\n-\r\n--\r\n--b\r\n--B\r\n"
    b'Content-Type: multipart/mixed; container_name="inner"; boundary="B-2"\r\n\r\n\r\n--B-2\r\n'
    b'Content-Disposition: attachment; filename="three.fits"\r\n\r\n\r\n--B-2--\r\n--B--'
)
EVENTS = [
    ContainerBegins("cdir"),
    FileBegins("two.bin", "application/octet-stream"),
    b"two\r\n-\r\n--\r\n--b",
    FileEnds(),
    ContainerBegins("inner"),
    FileBegins("three.fits", None),
    FileEnds(),
    ContainerEnds(),
    ContainerEnds(),
]


async def in_pieces(message, size):
    for start in range(0, len(message), size):
        yield message[start : start + size]


def read(message, size=10**9):
    async def events():
        return [event async for event in read_multipart(in_pieces(message, size))]

    joined = []
    for event in asyncio.run(events()):
        if isinstance(event, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += event
        else:
            joined.append(event)
    return joined


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_a_message_reads_the_same_in_pieces_of_any_size(size):
    assert read(MESSAGE, size) == EVENTS


def test_text_around_the_parts_is_ignored():
    assert read(MESSAGE.replace(b"\r\n\r\n\r\n--B\r\n", b"\r\n\r\npreamble\r\n--B \t\r\n") + b"\r\nepilogue") == EVENTS


def test_a_delimiter_may_follow_the_head_at_once():
    assert read(MESSAGE.replace(b"\r\n\r\n\r\n--B\r\n", b"\r\n\r\n--B\r\n")) == EVENTS


def message_of(data, boundary=b"0123456789"):
    return (
        b'Content-Type: multipart/mixed; container_name="c"; boundary="%b"\r\n\r\n\r\n--%b\r\n'
        b'Content-Disposition: attachment; filename="f"\r\n\r\n%b\r\n--%b--'
    ) % (boundary, boundary, data, boundary)


@given(
    data=st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"01234", b"\r\n--012345678", b"x", b"\0"])).map(
        b"".join
    ),
    size=st.integers(1, 50),
)
def test_any_data_comes_back_unchanged(data, size):
    events = read(message_of(data, b"0123456789a"), size)
    assert [event for event in events if isinstance(event, bytes)] == ([data] if data else [])


def test_names_may_be_quoted_or_in_another_script():
    name = 'a "b" \\ c'
    message = MESSAGE.replace(b'"two.bin"', b'"a \\"b\\" \\\\ c"').replace(
        b'container_name="inner"', b"container_name*=UTF-8''%E6%97%A5"
    )
    assert [event.name for event in read(message) if isinstance(event, (ContainerBegins, FileBegins))] == [
        "cdir",
        name,
        "日",
        "three.fits",
    ]


@pytest.mark.parametrize("end", range(0, len(MESSAGE), 7))
def test_a_message_that_breaks_off_anywhere_is_refused(end):
    with pytest.raises(Refusal, match=r"breaks off before its final boundary"):
        read(MESSAGE[:end])


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (MESSAGE.replace(b' boundary="B"', b""), "'boundary' or 'container_name' are not specified"),
        (MESSAGE.replace(b' container_name="cdir";', b""), "'boundary' or 'container_name' are not specified"),
        (MESSAGE.replace(b'; filename="two.bin"', b""), "No filename found in internal multipart part header"),
        (b"Content-Disposition: attachment; filename=x\r\n\r\n", "must be a MIME message of type multipart/mixed"),
        (message_of(b"", b"x" * 71), "is no MIME boundary"),
        (b"X: " + b"y" * 200_000, "longer than 65536 bytes"),
        (MESSAGE.replace(b'"cdir"', b'"c\tdir"'), "contains the character"),
    ],
)
def test_a_message_of_another_form_is_refused_with_what_is_wrong(message, fault):
    with pytest.raises(Refusal, match=fault):
        read(message)


def test_nesting_has_a_limit():
    level = b'Content-Type: multipart/mixed; container_name="c"; boundary="B%d"\r\n\r\n\r\n--B%d\r\n'
    with pytest.raises(Refusal, match="nested deeper than 32"):
        read(b"".join(level % (depth, depth) for depth in range(1000)))


def test_a_large_file_is_never_held_as_a_whole():
    async def largest():
        block = bytes(2**16)

        async def pieces():
            yield message_of(b"").partition(b"\r\n\r\n\r\n--0123456789--")[0] + b"\r\n\r\n"
            for _ in range(256):
                yield block
            yield b"\r\n--0123456789--"

        return [len(event) async for event in read_multipart(pieces()) if isinstance(event, bytes)]

    sizes = asyncio.run(largest())
    assert sum(sizes) == 256 * 2**16
    assert max(sizes) <= 2 * 2**16
