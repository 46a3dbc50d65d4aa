"""Files as they are: whole, in part and on condition, from a real archive; and clients that are slow, or gone, or many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from starlette.exceptions import HTTPException

from dlg_ml_tasks.web.sources.errors import SourceDown
from dlg_ml_tasks.web.transfer.streaming import Pace, StreamedFile, Streams


@pytest.fixture
def large(hidden: Any) -> tuple[str, bytes, str]:
    """The address of a file of 24 MiB, what is in it, and its checksum."""
    [name] = [name for name in hidden.checksums if name.endswith("large.bin")]
    return f"/files/{hidden.runs['infer']}/{quote(name)}", hidden.large, hidden.checksums[name]


def test_a_file_comes_whole_with_its_length_and_the_archives_checksum(open_site: Any, large: Any) -> None:
    address, content, checksum = large
    found = open_site.get(address)
    assert (found.status, found.body) == (200, content)
    assert found.headers["content-length"] == str(len(content))
    assert found.headers["etag"] == f'"{checksum}"'
    assert found.headers["accept-ranges"] == "bytes"
    assert found.headers["x-content-type-options"] == "nosniff"


def test_head_says_the_same_without_the_bytes(open_site: Any, large: Any) -> None:
    whole, head = open_site.get(large[0]), open_site.get(large[0], method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert {**head.headers, "date": "", "connection": "close"} == {**whole.headers, "date": ""}


@pytest.mark.parametrize(
    ("asked", "part"),
    [("bytes=5000000-5000009", slice(5_000_000, 5_000_010)), ("bytes=-3000000", slice(-3_000_000, None))],
)
def test_a_part_is_that_part(open_site: Any, large: Any, asked: str, part: slice) -> None:
    address, content, _ = large
    found = open_site.get(address, {"Range": asked})
    assert (found.status, found.body) == (206, content[part])
    start, end, _ = part.indices(len(content))
    assert found.headers["content-range"] == f"bytes {start}-{end - 1}/{len(content)}"


def test_a_download_that_broke_off_is_resumed_only_if_it_is_still_the_same(open_site: Any, large: Any) -> None:
    address, content, checksum = large
    rest = open_site.get(address, {"Range": "bytes=20000000-", "If-Range": f'"{checksum}"'})
    assert (rest.status, rest.body) == (206, content[20_000_000:])
    assert open_site.get(address, {"Range": "bytes=20000000-", "If-Range": '"crc32c:1"'}).status == 200


def test_what_cannot_be_or_need_not_be_sent(open_site: Any, large: Any) -> None:
    address, content, checksum = large
    beyond = open_site.get(address, {"Range": "bytes=99999999-"})
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{len(content)}")
    had = open_site.get(address, {"If-None-Match": f'"{checksum}"'})
    assert (had.status, had.body, had.headers["etag"]) == (304, b"", f'"{checksum}"')
    modified = open_site.get(address, method="HEAD").headers["last-modified"]
    assert open_site.get(address, {"If-Modified-Since": modified}).status == 304
    assert open_site.get(address, {"If-Match": '"other"'}).status == 412


def test_small_files_in_packs_and_empty_ones_come_whole_too(open_site: Any, site: Any, story: Any, hidden: Any) -> None:
    picture = site.get(f"/results/{story.runs['infer']}/items.json/digits.B.4.heldback.npz").json["files"][0]
    found = site.get(f"/files/{story.runs['infer']}/{picture}")
    assert found.status == 200
    assert len(found.body) == int(found.headers["content-length"]) > 0
    part = site.get(f"/files/{story.runs['infer']}/{picture}", {"Range": "bytes=3-9"})
    assert (part.status, part.body) == (206, found.body[3:10])
    [empty] = [name for name in hidden.checksums if name.endswith("empty.txt")]
    found = open_site.get(f"/files/{hidden.runs['infer']}/{empty}")
    assert (found.status, found.body, found.headers["content-length"]) == (200, b"", "0")
    assert open_site.get(f"/files/{hidden.runs['infer']}/{empty}", {"Range": "bytes=0-"}).status == 416


def test_many_at_once_and_slow_ones_leave_room_for_pages(open_site: Any, large: Any, hidden: Any) -> None:
    address, content, _ = large
    host, port = urlsplit(open_site.url).hostname, urlsplit(open_site.url).port
    slow = [HTTPConnection(host, port, timeout=60) for _ in range(12)]
    try:
        for each in slow:
            each.request("GET", address)
        starts = [each.getresponse() for each in slow]
        assert all(each.read(10) == content[:10] for each in starts)
        # Twelve clients that take nothing more hold none of the few connections to the archive.
        assert open_site.get(f"/runs/{hidden.runs['infer']}/files").status == 200
        with ThreadPoolExecutor(8) as pool:
            assert all(found.body == content for found in pool.map(lambda _: open_site.get(address), range(16)))
        assert starts[0].read() == content[10:]
    finally:
        for each in slow:
            each.close()


# --- how it is sent, by itself ---


class Wire:
    """The server's side of a connection: takes down what is sent, as fast as it is told to."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.left = asyncio.Event()

    async def send(self, message: Any) -> None:
        await self.takes.wait()
        self.sent.append(message)

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    @property
    def body(self) -> bytes:
        return b"".join(each.get("body", b"") for each in self.sent)


class Copying:
    """An archive's file of a hundred blocks of ten bytes; notes where reading began and how far it came."""

    def __init__(self) -> None:
        self.content = bytes(range(100)) * 10
        self.began: list[int] = []
        self.came = 0
        self.fails_at: int | None = None

    def __call__(self, start: int, end: int, write: Callable[[bytes], object], move: Any) -> None:
        self.began.append(start)
        for at in range(start, end, 10):
            if at == self.fails_at:
                raise SourceDown("the archive", "cut")
            write(self.content[at : at + 10])
            self.came = at + 10


SCOPE = {"type": "http", "method": "GET", "client": ("10.0.0.1", 5)}


def streamed(streams: Streams, copying: Copying) -> StreamedFile:
    return StreamedFile(streams, copying, 0, 1000, status_code=200, headers={})


def test_a_client_that_stops_taking_gives_up_its_turn_and_goes_on_where_it_was() -> None:
    async def scene() -> None:
        streams, copying, wire = Streams(turns=1, pace=Pace(behind_s=0.05)), Copying(), Wire()
        wire.takes.clear()
        sending = asyncio.create_task(streamed(streams, copying)(SCOPE, wire.receive, wire.send))
        while not copying.began or streams.turns.borrowed_tokens:
            await asyncio.sleep(0.01)
        other, taken = Copying(), Wire()
        await streamed(streams, other)(SCOPE, taken.receive, taken.send)
        assert taken.body == other.content
        wire.takes.set()
        await sending
        assert wire.body == copying.content
        assert len(copying.began) == 2

    asyncio.run(scene())


def test_of_a_client_that_has_gone_no_more_is_read() -> None:
    async def scene() -> None:
        streams, copying, wire = Streams(pace=Pace(behind_s=5)), Copying(), Wire()
        send = wire.send

        async def leaving(message: Any) -> None:
            await send(message)
            if len(wire.sent) == 5:
                wire.left.set()
                await asyncio.sleep(0.05)

        await streamed(streams, copying)(SCOPE, wire.receive, leaving)
        assert copying.came < 200

    asyncio.run(scene())


def test_a_client_that_takes_nothing_for_long_is_given_up() -> None:
    async def scene() -> None:
        streams, copying, wire = Streams(pace=Pace(behind_s=0.01, gone_s=0.05)), Copying(), Wire()
        wire.takes.clear()
        await streamed(streams, copying)(SCOPE, wire.receive, wire.send)
        assert wire.sent == []
        assert copying.came <= 20

    asyncio.run(scene())


def test_a_turn_ends_after_its_share_when_others_wait() -> None:
    async def scene() -> None:
        streams, first, second = Streams(turns=1, pace=Pace(behind_s=5, share=100)), Copying(), Copying()
        wires = Wire(), Wire()
        downloads = zip((first, second), wires, strict=True)
        await asyncio.gather(
            *(streamed(streams, copying)(SCOPE, wire.receive, wire.send) for copying, wire in downloads)
        )
        assert [wire.body for wire in wires] == [first.content, second.content]
        assert len(first.began) > 2

    asyncio.run(scene())


def test_an_archive_that_fails_before_the_first_byte_is_an_error_and_after_it_a_broken_connection() -> None:
    async def scene() -> None:
        copying, wire = Copying(), Wire()
        copying.fails_at = 0
        with pytest.raises(SourceDown):
            await streamed(Streams(), copying)(SCOPE, wire.receive, wire.send)
        assert wire.sent == []
        copying.fails_at = 500
        await streamed(Streams(), copying)(SCOPE, wire.receive, wire.send)
        assert wire.body == copying.content[:500]
        assert wire.sent[-1]["more_body"]

    asyncio.run(scene())


def test_one_client_and_all_together_have_only_so_many_downloads() -> None:
    streams = Streams(most=3, most_of_one=2)
    with streams.place("a"), streams.place("a"):
        with pytest.raises(HTTPException) as refused, streams.place("a"):
            pytest.fail("a third download of one client")
        assert (refused.value.status_code, refused.value.headers) == (429, {"Retry-After": "10"})
        with streams.place("b"), pytest.raises(HTTPException) as refused, streams.place("c"):
            pytest.fail("a fourth download")
        assert refused.value.status_code == 503
    with streams.place("c"):
        pass
