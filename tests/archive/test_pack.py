from __future__ import annotations

import io
import json
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlg_ml_tasks.archive import naming, pack
from dlg_ml_tasks.archive.naming import PackLabel
from dlg_ml_tasks.archive.pack import Cutter, Damaged, Member, PackWriter

DIRECTORY = "/run/images"


def names() -> st.SearchStrategy[str]:
    """What a file may be called."""
    return (
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=30)
        .filter(lambda name: name not in (".", ".."))
        .filter(lambda name: len(name.encode()) <= naming.MAX_BASE_NAME_BYTES)
    )


def packed(files: dict[str, bytes], sequence: int = 1) -> tuple[bytes, PackLabel]:
    sink = io.BytesIO()
    writer = PackWriter(DIRECTORY, sink)
    for name, content in files.items():
        writer.add(name, content)
    label = writer.finish(sequence)
    return sink.getvalue(), label


def members(body: bytes, label: PackLabel) -> dict[str, Member]:
    return pack.read_index(body[label.index_offset :], DIRECTORY, label)


def with_index(text: object) -> tuple[bytes, PackLabel]:
    """The end of a pack whose index holds this, which is otherwise in order."""
    index = text if isinstance(text, bytes) else json.dumps(text).encode()
    return index + bytes(1024), PackLabel(1, 10_000, zlib.crc32(index))


@settings(max_examples=15, deadline=None)
@given(st.dictionaries(names(), st.binary(max_size=1500), min_size=1, max_size=8), st.integers(1, 4000))
def test_what_goes_into_a_pack_comes_out_whatever_the_names_and_the_blocks(files: dict[str, bytes], block: int) -> None:
    body, label = packed(files)
    index = members(body, label)
    assert {name: body[one.offset : one.end] for name, one in index.items()} == files
    assert {name: one.crc32 for name, one in index.items()} == {name: zlib.crc32(files[name]) for name in files}
    (together,) = pack.stretches(index.values(), gap=len(body))
    got: dict[str, bytes] = {}
    cutter = Cutter(together, lambda member, content: got.update({member.name: content}))
    for start in range(together[0].offset, together[-1].end, block):
        cutter.write(body[start : min(start + block, together[-1].end)])
    cutter.finish()
    assert got == files


@settings(max_examples=10, deadline=None)
@given(st.dictionaries(names(), st.binary(max_size=700), min_size=1, max_size=6), st.data())
def test_a_flipped_bit_in_an_index_is_seen(files: dict[str, bytes], data: st.DataObject) -> None:
    body, label = packed(files)
    tail = bytearray(body[label.index_offset :].rstrip(b"\0"))
    tail[data.draw(st.integers(0, len(tail) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Damaged, match="the filename says"):
        pack.read_index(bytes(tail), DIRECTORY, label)


def test_any_tar_reads_a_pack(tmp_path: Path) -> None:
    files = {
        "plain.txt": b"text",
        "empty": b"",
        "日本語 🛰️": b"unicode",
        "n" * 255: b"long",
        "-rf": b"dash",
        "big": b"x" * 70_000,
    }
    body, _ = packed(files)
    (tmp_path / "pack.tar").write_bytes(body)
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        ["tar", "xf", tmp_path / "pack.tar", "-C", tmp_path / "out"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    out = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    index = json.loads(out.pop(pack.INDEX_NAME))
    assert out == files
    assert (index["format"], index["directory"]) == (1, DIRECTORY)
    assert [file["name"] for file in index["files"]] == list(files)


def test_the_format_is_fixed_because_archives_outlive_programs() -> None:
    body, label = packed({"a": b"content"}, sequence=7)
    assert label == PackLabel(7, 1536, 0x963CAFC7)
    assert body[1536:].rstrip(b"\0") == (
        b'{"format":1,"directory":"/run/images","files":[{"name":"a","offset":512,"size":7,"crc32":4274335913}]}'
    )
    assert (len(body), zlib.crc32(body)) == (3072, 0x39B27D9D)
    assert pack.write_removals(DIRECTORY, {"q": {"b", "a"}, "p": {"c"}}) == (
        b'{"format":1,"directory":"/run/images","removed":{"p":["c"],"q":["a","b"]}}'
    )


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        (b"no json", "Expecting value"),
        ([], "not of format 1"),
        ({"format": 2, "directory": DIRECTORY, "files": []}, "not of format 1"),
        ({"format": 1, "directory": "/other", "files": []}, "'/other'"),
        ({"format": 1, "directory": DIRECTORY}, "no 'files'"),
        ({"format": 1, "directory": DIRECTORY, "files": {}}, "no 'files'"),
        ({"format": 1, "directory": DIRECTORY, "files": ["a"]}, "does not describe a file"),
        ({"format": 1, "directory": DIRECTORY, "files": [{"name": "a", "offset": 0, "size": 1}]}, "does not describe"),
        (
            {"format": 1, "directory": DIRECTORY, "files": [{"name": "a", "offset": 9_990, "size": 11, "crc32": 0}]},
            "before the index",
        ),
        (
            {"format": 1, "directory": DIRECTORY, "files": [{"name": "a", "offset": -1, "size": 1, "crc32": 0}]},
            "before the index",
        ),
        *(
            (
                {"format": 1, "directory": DIRECTORY, "files": [{"name": name, "offset": 0, "size": 1, "crc32": 0}]},
                "cannot be the name",
            )
            for name in ("../../etc/passwd", "..", "a/b", "", "a\0b")
        ),
    ],
)
def test_an_index_from_a_stranger_is_refused_with_the_reason(index: object, problem: str) -> None:
    tail, label = with_index(index)
    with pytest.raises(ValueError, match=problem):
        pack.read_index(tail, DIRECTORY, label)


@settings(max_examples=15, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.sets(names(), min_size=1, max_size=5), max_size=4))
def test_a_removal_record_says_what_was_written(removed: dict[str, set[str]]) -> None:
    body = pack.write_removals(DIRECTORY, removed)
    assert pack.read_removals(body, DIRECTORY) == {pack_id: frozenset(some) for pack_id, some in removed.items()}


@pytest.mark.parametrize("removed", [{"p": "abc"}, {"p": [1]}, {"p": {"a": 1}}, ["a"]])
def test_a_removal_record_from_a_stranger_is_refused(removed: object) -> None:
    body = json.dumps({"format": 1, "directory": DIRECTORY, "removed": removed}).encode()
    with pytest.raises(ValueError, match=r"list of names|no 'removed'"):
        pack.read_removals(body, DIRECTORY)


def test_members_far_apart_are_fetched_apart() -> None:
    near = [Member("a", 0, 10, 0), Member("b", 20, 10, 0)]
    far = [Member("c", 131, 5, 0)]
    assert pack.stretches([*far, *reversed(near)], gap=100) == [near, far]
    assert pack.stretches([], gap=100) == []


def test_a_cutter_skips_what_is_not_wanted() -> None:
    files = {f"file {number}": bytes([number]) * 600 for number in range(6)}
    body, label = packed(files)
    index = members(body, label)
    wanted = [index["file 1"], index["file 4"]]
    got: dict[str, bytes] = {}
    cutter = Cutter(wanted, lambda member, content: got.update({member.name: content}))
    for start in range(wanted[0].offset, len(body), 100):
        cutter.write(body[start : start + 100])
    assert got == {name: files[name] for name in ("file 1", "file 4")}
