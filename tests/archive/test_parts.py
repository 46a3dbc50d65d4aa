"""Downloads that grow in a part beside their destination, and go on where an earlier process stopped."""

from __future__ import annotations

import fcntl
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dlg_ml_tasks.archive import ArchiveUnreachable, ChecksumMismatch, FileStatus, NgasClient
from dlg_ml_tasks.archive.parts import part_for

CONTENT = random.Random(42).randbytes(5 << 20)
CUT = 3_000_000


class Archived:
    """A file in the archive, behind a wire, and a place to download it to."""

    def __init__(self, direct: NgasClient, wire: Any, file_id: str, folder: Path) -> None:
        self.wire = wire
        self.direct = direct
        self.status = direct.archive(CONTENT, file_id, f"{file_id}.bin")
        self.folder = folder
        self.target = folder / "back"

    def client(self) -> NgasClient:
        return NgasClient(self.wire.host, self.wire.port, timeout=5, patience=0)

    def interrupt(self, status: FileStatus | None = None) -> Path:
        """A download that breaks after about `CUT` bytes and is given up; what it leaves."""
        fault = type(self.wire.always)
        self.wire.faults, self.wire.always = [fault(cut_down=CUT, gently=True)], fault(cut_up=0)
        with pytest.raises(ArchiveUnreachable):
            self.client().retrieve(self.status.file_id, self.target, known=status or self.status)
        self.wire.always = fault()
        (part,) = self.folder.glob("back.*.part")
        return part

    def received(self) -> int:
        """Bytes of the file that come over the wire while it is downloaded to the end."""
        before = self.wire.carried_down
        self.client().retrieve(self.status.file_id, self.target, known=self.status)
        received: int = self.wire.carried_down - before
        return received


@pytest.fixture
def archived(client: NgasClient, wire: Any, file_id: str, tmp_path: Path) -> Iterator[Archived]:
    archived = Archived(client, wire, file_id, tmp_path)
    yield archived
    client.delete(file_id)


@pytest.mark.integration
def test_a_download_goes_on_where_another_process_was_interrupted(archived: Archived) -> None:
    part = archived.interrupt()
    there = part.stat().st_size
    assert 1 << 20 <= there <= CUT
    assert not archived.target.exists()
    assert archived.received() < len(CONTENT) - there + 2000
    assert archived.target.read_bytes() == CONTENT
    assert list(archived.folder.iterdir()) == [archived.target]


@pytest.mark.integration
def test_a_part_that_is_whole_is_only_verified(archived: Archived) -> None:
    part = archived.interrupt()
    part.write_bytes(CONTENT)
    assert archived.received() == 0
    assert archived.target.read_bytes() == CONTENT


@pytest.mark.integration
@pytest.mark.parametrize("there", [b"damaged" * 100_000, CONTENT + b"x"])
def test_a_damaged_part_is_thrown_away(archived: Archived, there: bytes) -> None:
    archived.interrupt().write_bytes(there)
    archived.received()
    assert archived.target.read_bytes() == CONTENT
    assert list(archived.folder.iterdir()) == [archived.target]


@pytest.mark.integration
def test_a_part_of_an_older_version_is_thrown_away(archived: Archived) -> None:
    archived.interrupt()
    newer = CONTENT[::-1]
    archived.status = archived.direct.archive(newer, archived.status.file_id, archived.status.filename)
    archived.received()
    assert archived.target.read_bytes() == newer
    assert list(archived.folder.iterdir()) == [archived.target]


@pytest.mark.integration
def test_a_download_whose_bytes_are_wrong_leaves_no_part(archived: Archived) -> None:
    archived.wire.always = type(archived.wire.always)(flip_down=CUT)
    with pytest.raises(ChecksumMismatch):
        archived.client().retrieve(archived.status.file_id, archived.target, known=archived.status)
    assert list(archived.folder.iterdir()) == []


@pytest.mark.integration
def test_a_file_that_is_really_called_part_is_left_alone(archived: Archived) -> None:
    mine = archived.folder / "back.part"
    mine.write_text("mine")
    archived.interrupt()
    archived.received()
    assert mine.read_text() == "mine"


@pytest.mark.integration
def test_a_long_name_can_be_downloaded_in_parts(archived: Archived) -> None:
    target = archived.folder / ("ü" * 127)
    archived.client().retrieve(archived.status.file_id, target)
    assert list(archived.folder.iterdir()) == [target]


@pytest.mark.integration
def test_many_downloads_to_one_place_end_in_one_whole_file(archived: Archived) -> None:
    with ThreadPoolExecutor(6) as pool:
        for done in [
            pool.submit(archived.client().retrieve, archived.status.file_id, archived.target) for _ in range(6)
        ]:
            done.result()
    assert archived.target.read_bytes() == CONTENT
    assert list(archived.folder.iterdir()) == [archived.target]


KEPT = (ArchiveUnreachable,)


def abandon(destination: Path, identity: str, content: bytes, error: BaseException) -> None:
    with pytest.raises(type(error)), part_for(destination, identity, kept_after=KEPT) as part:
        part.file.write(content)
        raise error


@pytest.mark.parametrize(
    ("error", "left"), [(ArchiveUnreachable("broken"), 1), (ValueError(), 0), (KeyboardInterrupt(), 0)]
)
def test_a_part_stays_only_after_what_can_be_gone_on_from(tmp_path: Path, error: BaseException, left: int) -> None:
    abandon(tmp_path / "x", "identity", b"content", error)
    assert len(list(tmp_path.iterdir())) == left


def test_an_empty_part_does_not_stay(tmp_path: Path) -> None:
    abandon(tmp_path / "x", "identity", b"", ArchiveUnreachable("broken"))
    assert list(tmp_path.iterdir()) == []


def test_a_second_writer_gets_a_part_of_its_own(tmp_path: Path) -> None:
    with (
        part_for(tmp_path / "x", "identity", kept_after=KEPT) as first,
        part_for(tmp_path / "x", "identity", kept_after=KEPT) as second,
    ):
        assert first.path != second.path
        second.file.write(b"second")
        second.publish()
        first.file.write(b"first")
        first.publish()
    assert (tmp_path / "x").read_bytes() == b"first"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_part_that_another_one_is_writing_is_not_removed(tmp_path: Path) -> None:
    with part_for(tmp_path / "x", "older", kept_after=KEPT) as older:
        with part_for(tmp_path / "x", "newer", kept_after=KEPT) as newer:
            newer.publish()
        older.file.write(b"still here")
        older.publish()
    assert (tmp_path / "x").read_bytes() == b"still here"


def test_a_file_system_without_locks_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    abandon(tmp_path / "x", "identity", b"content", ArchiveUnreachable("broken"))
    with part_for(tmp_path / "x", "identity", kept_after=KEPT) as part:
        part.file.write(b"content")
        part.publish()
    assert (tmp_path / "x").read_bytes() == b"content"


def test_parts_that_are_published_at_the_same_time_are_whole(tmp_path: Path) -> None:
    start = threading.Barrier(4)

    def download(number: int) -> None:
        start.wait()
        for _ in range(50):
            with part_for(tmp_path / "x", "identity", kept_after=KEPT) as part:
                part.clear()
                part.file.write(b"%d" % number * 1000)
                part.publish()
            assert len(set((tmp_path / "x").read_bytes())) == 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(download, range(4)))
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
