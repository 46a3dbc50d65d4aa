from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlg_ml_tasks.archive import naming
from dlg_ml_tasks.archive.naming import Kind, PackLabel, RemovalLabel

HARD_NAMES = [
    "plain.txt",
    "with space",
    " leading and trailing ",
    ".hidden",
    "...",
    "trailing.",
    "a#b?c%d&e+f=g;h",
    "%41",
    "=41",
    "x.bin",
    "x.bin.bin",
    "MLmodel",
    "back\\slash",
    "quote'\"`",
    "<&>",
    "new\nline",
    "tilde~",
    "star*[x]?",
    unicodedata.normalize("NFC", "é.dat"),
    unicodedata.normalize("NFD", "é.dat"),
    "日本語",
    "🛰️ telescope",
    "x.abcdefghijklmnopqrstuvwxyz.bin",
    "x.abcdefghijklmnopqrstuvwxyz.dir.bin",
    "n" * 255,
    "日" * 85,
    "=" * 255,
    "a" * 159 + "=" + "b" * 40,
]


@dataclass(frozen=True)
class Stored:
    """Stands for an object in the archive."""

    file_id: str
    filename: str


def stored(path: str, kind: Kind = Kind.FILE) -> list[Stored]:
    return [Stored(*name) for name in [naming.object_name(path, kind), *naming.continuations(path)]]


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("name", HARD_NAMES)
def test_a_listing_gives_back_every_name_and_what_it_is(name: str, kind: Kind) -> None:
    path = f"/run/{name}"
    objects = stored(path, kind)
    found = [listed for listed, _ in naming.listed("/run", reversed(objects))]
    assert [(one.name, one.kind) for one in found] == [(name, kind)]
    assert found[0].file_id == naming.file_id(path)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("name", HARD_NAMES)
def test_ids_and_filenames_keep_to_what_the_server_bears(name: str, kind: Kind) -> None:
    for one in stored(f"/run/{name}", kind):
        assert len(one.file_id) <= 64
        assert len(one.filename) <= 200
        assert re.fullmatch(r"[a-z2-7.0-9]+", one.file_id)
        assert re.fullmatch(r"[A-Za-z0-9._=-]+", one.filename)
        assert one.filename.endswith(".bin")
        assert not one.filename.endswith(".bin.bin")
        assert one.file_id.startswith(naming.listing_prefix("/run"))


def test_all_hard_names_in_one_directory_come_back_from_one_listing() -> None:
    objects = [one for name in HARD_NAMES for one in stored(f"/run/{name}")]
    assert len({one.file_id for one in objects}) == len(objects)
    assert len({one.filename for one in objects}) == len(objects)
    assert sorted(listed.name for listed, _ in naming.listed("/run", objects)) == sorted(HARD_NAMES)


def test_the_same_base_name_in_two_directories_has_two_filenames() -> None:
    # NGAS would let the later overwrite the earlier.
    one, other = (naming.object_name(f"/{directory}/col.bin", Kind.FILE) for directory in ("a", "b"))
    assert one.filename != other.filename


def test_a_file_and_a_directory_of_one_path_have_one_id() -> None:
    assert naming.object_name("/a/b", Kind.FILE).file_id == naming.object_name("/a/b", Kind.DIRECTORY).file_id


def test_the_scheme_is_fixed_because_archives_outlive_programs() -> None:
    assert naming.object_name("/run/Größe 1.txt", Kind.FILE) == (
        "xhk7wewtugsn4qz6r42tbebgje.ij7usyqiehas4flat6g5jjxwve",
        "Gr=C3=B6=C3=9Fe=201.txt.ij7usyqiehas4flat6g5jjxwve.bin",
    )


@pytest.mark.parametrize(
    "filename",
    [
        "foreign.bin",
        "..aaaaaaaaaaaaaaaaaaaaaaaaaa.bin",
        "a=2Fb.aaaaaaaaaaaaaaaaaaaaaaaaaa.bin",
        "=FF.aaaaaaaaaaaaaaaaaaaaaaaaaa.bin",
        ".aaaaaaaaaaaaaaaaaaaaaaaaaa.bin",
    ],
)
def test_a_listing_leaves_out_what_this_scheme_did_not_make(filename: str) -> None:
    forged = Stored(f"{naming.key('/run')}.aaaaaaaaaaaaaaaaaaaaaaaaaa", filename)
    good = stored("/run/good")
    assert [listed.name for listed, _ in naming.listed("/run", [forged, *good])] == ["good"]


def test_a_name_with_a_slash_in_it_cannot_be_smuggled_into_a_listing() -> None:
    forged = Stored(naming.file_id("/run/a/b"), f"a=2Fb.{naming.key('/run/a/b')}.bin")
    assert list(naming.listed("/run", [forged])) == []


def test_a_long_name_with_a_piece_missing_is_left_out_and_not_listed_wrongly() -> None:
    objects = stored(f"/run/{'n' * 255}")
    assert len(objects) == 2
    assert list(naming.listed("/run", objects[:1])) == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [("", "/"), ("/", "/"), ("a", "/a"), ("//a//b/", "/a/b"), ("/a/./b", "/a/b"), (" a/ b", "/ a/ b")],
)
def test_a_path_has_one_spelling(path: str, expected: str) -> None:
    assert naming.canonical(path) == expected


@pytest.mark.parametrize("path", ["/a/../b", "..", "/a\0b", "/\ud800", f"/{'n' * 256}", f"/{'日' * 86}"])
def test_a_path_that_no_local_file_system_could_hold_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="name"):
        naming.canonical(path)


def test_the_kind_of_a_foreign_filename_is_refused() -> None:
    with pytest.raises(ValueError, match="not a filename made from a path"):
        naming.kind_of("foreign.bin")


# --- properties that hold for every name ---

# Anything that a local file may be called, and more of what is hard than chance would give.
NAMES = (
    st.one_of(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40),
        st.text("%=.~*?[]#+& \\\n日🛰é", min_size=1, max_size=40),
        st.text("an=日", min_size=80, max_size=255),
    )
    .map(lambda name: name.encode()[: naming.MAX_BASE_NAME_BYTES].decode(errors="ignore"))
    .filter(lambda name: name not in ("", ".", ".."))
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@settings(max_examples=40, deadline=None)
@given(NAMES, NAMES, st.sampled_from(Kind))
def test_every_name_keeps_to_what_the_server_bears_and_comes_back(directory: str, name: str, kind: Kind) -> None:
    path = f"/{directory}/{name}"
    objects = stored(path, kind)
    for one in objects:
        assert len(one.file_id) <= 64
        assert len(one.filename) <= 200
        assert re.fullmatch(r"[a-z2-7.0-9]+", one.file_id)
        assert re.fullmatch(r"[A-Za-z0-9._=-]+(?<!\.bin)\.bin", one.filename)
        assert one.file_id.startswith(naming.listing_prefix(f"/{directory}"))
    assert naming.kind_of(objects[0].filename) is kind
    assert [(listed.name, listed.kind) for listed, _ in naming.listed(f"/{directory}", objects)] == [(name, kind)]


@settings(max_examples=40, deadline=None)
@given(st.sets(NAMES, min_size=2, max_size=6))
def test_different_names_never_share_an_object(names: set[str]) -> None:
    objects = [one for name in names for one in stored(f"/run/{name}")]
    assert len({one.file_id for one in objects}) == len({one.filename for one in objects}) == len(objects)
    assert {listed.name for listed, _ in naming.listed("/run", objects)} == names


@settings(max_examples=40, deadline=None)
@given(PATHS)
def test_a_path_is_put_together_from_its_parent_and_its_name(path: str) -> None:
    assert naming.canonical(path) == naming.canonical(f"{path}/") == naming.canonical(f"/.{path}//") == path
    assert naming.join(naming.parent(path), naming.base_name(path)) == path
    assert naming.file_id(path).startswith(naming.listing_prefix(naming.parent(path)))


# --- packs ---


@settings(max_examples=20, deadline=None)
@given(PATHS, st.integers(0, 10**9), st.integers(0, 2**40), st.integers(0, 2**32 - 1))
def test_the_filename_of_a_pack_says_what_was_put_there(directory: str, sequence: int, offset: int, crc32: int) -> None:
    label = PackLabel(sequence, offset, crc32)
    name, again = naming.pack_name(directory, label), naming.pack_name(directory, label)
    assert naming.label_of(name.filename) == label
    assert len(name.file_id) <= 64
    assert len(name.filename) <= 200
    assert name.file_id.startswith(naming.pack_prefix(directory))
    assert naming.pack_prefix(directory).startswith(naming.listing_prefix(directory))
    assert name.file_id != again.file_id
    assert name.filename != again.filename


def test_packs_and_removal_records_are_no_entries_of_a_directory() -> None:
    objects = [naming.pack_name("/run", PackLabel(1, 512, 7)), naming.removal_name("/run", RemovalLabel(3))]
    assert naming.label_of(objects[1].filename) == RemovalLabel(3)
    assert [
        listed.name for listed, _ in naming.listed("/run", [*(Stored(*one) for one in objects), *stored("/run/a")])
    ] == ["a"]


@pytest.mark.parametrize("filename", ["foreign.bin", "pack-abc.1.2.00000000.bin", "a.aaaaaaaaaaaaaaaaaaaaaaaaaa.bin"])
def test_the_label_of_a_foreign_filename_is_refused(filename: str) -> None:
    with pytest.raises(ValueError, match="neither the filename of a pack nor of a removal record"):
        naming.label_of(filename)
