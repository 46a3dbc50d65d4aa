"""Which files a batch takes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dlg_ml_tasks.tasks.shares import share


def shares(names: list[str], of: int, raw_glob: str = "*.uvh5") -> list[list[str]]:
    return [share(names, raw_glob, number, of) for number in range(1, of + 1)]


@given(st.sets(st.from_regex(r"[ab]/?[0-9a-c]{1,4}\.uvh5", fullmatch=True)), st.integers(1, 9))
def test_each_raw_file_is_in_one_share_and_shares_are_of_equal_size(names: set[str], of: int) -> None:
    parts = shares(list(names), of)
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_order_in_which_files_are_listed_does_not_matter() -> None:
    assert shares(["b.uvh5", "a.uvh5", "c.uvh5"], 2) == shares(["c.uvh5", "b.uvh5", "a.uvh5"], 2)


def test_a_newer_file_changes_one_share_only() -> None:
    nights = [f"zen.{night:04}.uvh5" for night in range(100)]
    before, after = shares(nights, 8), shares([*nights, "zen.0100.uvh5"], 8)
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1


def test_companions_go_with_their_raw_file() -> None:
    names = [
        f"{folder}/zen.{n}.{kind}"
        for folder in "AB"
        for n in (1, 10, 2)
        for kind in ("uvh5", "truth.npz", "weights.npz")
    ]
    for part in shares(names, 4):
        stems = [name.rsplit(".", 1)[0].removesuffix(".truth").removesuffix(".weights") for name in part]
        assert sorted(stems) == sorted(3 * list({*stems}))


def test_a_companion_of_no_file_in_particular_goes_with_each_share_that_has_files() -> None:
    names = ["antennas.txt", "zen.1.uvh5", "zen.2.uvh5", "zen.txt"]
    assert shares(names, 3) == [
        ["antennas.txt", "zen.1.uvh5", "zen.txt"],
        ["antennas.txt", "zen.2.uvh5", "zen.txt"],
        [],
    ]


def test_a_file_that_has_lost_its_raw_file_is_in_some_share() -> None:
    names = ["zen.1.uvh5", "zen.2.truth.npz", "zen.3.uvh5"]
    assert any("zen.2.truth.npz" in part for part in shares(names, 2))
