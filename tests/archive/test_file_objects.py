from __future__ import annotations

import gc
import io
import random
import zipfile
from typing import Any

import pytest

from dlg_ml_tasks.archive import ChecksumMismatch, FileNotInArchive, NgasFileSystem

pytestmark = pytest.mark.integration


@pytest.fixture
def content() -> bytes:
    return random.Random(7).randbytes(100_000)


def test_a_reader_seeks_like_a_local_file(fs: NgasFileSystem, home: str, content: bytes) -> None:
    fs.pipe_file(f"{home}/file", content)
    local = io.BytesIO(content)
    steps = random.Random(3)
    with fs.open(f"{home}/file", block_size=1000) as file:
        for _ in range(50):
            position, length = steps.randrange(len(content)), steps.randrange(5000)
            local.seek(position)
            assert file.seek(position) == position
            assert file.read(length) == local.read(length)
        assert file.seek(-10, io.SEEK_END) == len(content) - 10
        assert file.read() == content[-10:]
        assert file.read() == b""


@pytest.mark.parametrize(
    ("start", "end"), [(None, None), (0, 10), (10, None), (-10, None), (None, -10), (-20, -10), (50, 50), (60, 40)]
)
def test_parts_are_cut_like_slices(
    fs: NgasFileSystem, home: str, content: bytes, start: int | None, end: int | None
) -> None:
    fs.pipe_file(f"{home}/file", content)
    assert fs.cat_file(f"{home}/file", start, end) == content[start:end]


def test_a_reader_holds_no_connection_between_reads(
    proxied_fs: NgasFileSystem, proxy: Any, home: str, content: bytes
) -> None:
    proxied_fs.pipe_file(f"{home}/file", content)
    proxy.requests.clear()
    with proxied_fs.open(f"{home}/file", block_size=1000) as file:
        file.seek(50_000)
        file.read(10)
        # The proxy notes a request when it begins and the reader leaves it before the reply's end.
        assert proxy.commands == ["STATUS", "RETRIEVE"]
        file.read(10)
        assert proxy.commands == ["STATUS", "RETRIEVE"]


def test_reading_to_the_end_verifies_the_checksum(
    proxied_fs: NgasFileSystem, proxy: Any, home: str, content: bytes
) -> None:
    proxied_fs.pipe_file(f"{home}/file", content)
    needle = content[50_000:50_008]
    proxy.answer = lambda request, forward: forward().replace(needle, bytes(8))
    with (
        proxied_fs.open(f"{home}/file", block_size=9000) as file,
        pytest.raises(ChecksumMismatch, match=f"{home}/file"),
    ):
        while file.read(9000):
            pass


def test_a_file_replaced_while_it_is_read_is_not_mixed_with_the_new_one(
    fs: NgasFileSystem, home: str, content: bytes
) -> None:
    fs.pipe_file(f"{home}/file", content)
    with fs.open(f"{home}/file", block_size=1000) as file:
        assert file.read(10) == content[:10]
        fs.pipe_file(f"{home}/file", content[::-1])
        file.seek(50_000)
        with pytest.raises(FileNotInArchive):
            file.read(10)


def test_a_written_file_appears_when_it_is_closed(fs: NgasFileSystem, home: str) -> None:
    with fs.open(f"{home}/file", "wb") as file:
        file.write(b"con")
        file.write(b"tent")
        assert file.tell() == 7
        assert not fs.exists(f"{home}/file")
    assert fs.cat_file(f"{home}/file") == b"content"
    assert file.closed
    with pytest.raises(ValueError, match="closed"):
        file.write(b"more")


def test_a_large_file_is_written_by_way_of_the_disk(
    fs: NgasFileSystem, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlg_ml_tasks.archive.files.SPOOL_BYTES", 1000)
    with fs.open(f"{home}/file", "wb") as file:
        for _ in range(100):
            file.write(b"0123456789" * 10)
    assert fs.cat_file(f"{home}/file") == b"0123456789" * 1000


@pytest.mark.parametrize("mode", ["wb", "w", "xb", "x"])
def test_nothing_appears_if_the_block_raised(fs: NgasFileSystem, home: str, mode: str) -> None:
    with pytest.raises(RuntimeError), fs.open(f"{home}/file", mode) as file:
        file.write(b"half" if "b" in mode else "half")
        raise RuntimeError
    assert not fs.exists(f"{home}/file")
    assert file.closed


def test_an_old_file_stays_if_the_block_that_overwrites_it_raised(fs: NgasFileSystem, home: str) -> None:
    fs.pipe_file(f"{home}/file", b"old")
    with pytest.raises(RuntimeError), fs.open(f"{home}/file", "wb") as file:
        file.write(b"half")
        raise RuntimeError
    assert fs.cat_file(f"{home}/file") == b"old"


def test_a_discarded_file_never_appears(fs: NgasFileSystem, home: str) -> None:
    file = fs.open(f"{home}/file", "wb")
    file.write(b"half")
    file.discard()
    file.close()
    assert not fs.exists(f"{home}/file")


def test_a_file_that_nobody_closed_never_appears(fs: NgasFileSystem, home: str) -> None:
    file = fs.open(f"{home}/file", "wb")
    file.write(b"half")
    del file
    gc.collect()
    assert not fs.exists(f"{home}/file")


def test_files_of_a_transaction_appear_together_or_not_at_all(fs: NgasFileSystem, home: str) -> None:
    def write_two() -> None:
        for name in ("one", "two"):
            with fs.open(f"{home}/{name}", "wb") as file:
                file.write(name.encode())
            assert not fs.exists(f"{home}/{name}")

    with pytest.raises(RuntimeError), fs.transaction:
        write_two()
        raise RuntimeError
    assert not fs.exists(home)
    with fs.transaction:
        write_two()
    assert fs.cat([f"{home}/one", f"{home}/two"]) == {f"{home}/one": b"one", f"{home}/two": b"two"}


def test_text_is_written_and_read_with_its_encoding(fs: NgasFileSystem, home: str) -> None:
    with fs.open(f"{home}/file", "w", encoding="latin-1") as file:
        file.write("Größe\n")
    assert fs.cat_file(f"{home}/file") == "Größe\n".encode("latin-1")
    with fs.open(f"{home}/file", "r", encoding="latin-1") as file:
        assert file.read() == "Größe\n"


def test_formats_that_seek_back_while_writing_can_be_written(fs: NgasFileSystem, home: str) -> None:
    with fs.open(f"{home}/file.zip", "wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inside.txt", "content")
    with fs.open(f"{home}/file.zip") as file, zipfile.ZipFile(file) as archive:
        assert archive.read("inside.txt") == b"content"


def test_a_file_can_be_cut_before_it_is_closed(fs: NgasFileSystem, home: str) -> None:
    with fs.open(f"{home}/file", "wb") as file:
        file.write(b"content")
        assert file.truncate(3) == 3
    assert fs.cat_file(f"{home}/file") == b"con"


@pytest.mark.parametrize("mode", ["ab", "r+b", "a"])
def test_modes_that_change_what_is_archived_are_refused(fs: NgasFileSystem, home: str, mode: str) -> None:
    fs.pipe_file(f"{home}/file", b"content")
    with pytest.raises(ValueError, match="written whole"):
        fs.open(f"{home}/file", mode)


def test_compression_that_would_lose_the_file_is_refused(fs: NgasFileSystem, home: str) -> None:
    with pytest.raises(NotImplementedError, match=r"fsspec\.open"):
        fs.open(f"{home}/file.gz", "wb", compression="gzip")
