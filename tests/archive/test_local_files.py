from __future__ import annotations

from pathlib import Path

import pytest

from dlg_ml_tasks.archive.local_files import place


@pytest.mark.parametrize("before", [None, b"old content"])
def test_a_file_appears_or_is_replaced(tmp_path: Path, before: bytes | None) -> None:
    target = tmp_path / "file"
    if before is not None:
        target.write_bytes(before)
    place(b"content", target)
    assert target.read_bytes() == b"content"
    assert list(tmp_path.iterdir()) == [target]


def test_a_relative_path_is_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place(b"content", Path("file"))
    assert (tmp_path / "file").read_bytes() == b"content"


def test_nothing_is_left_of_a_file_that_could_not_be_put_in_place(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError):
        place(b"content", tmp_path / "directory")
    assert list(tmp_path.iterdir()) == [tmp_path / "directory"]
