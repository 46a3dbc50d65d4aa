"""Shares: which of many raw files one batch takes, so that tasks side by side load disjoint parts of the same sources."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import takewhile


def share(names: Iterable[str], raw_glob: str, number: int, of: int) -> list[str]:
    """The sorted names that batch `number` (1 to `of`) takes: every `of`-th raw file, each with its companions.

    Raw files are those whose base name matches `raw_glob`, in the order of their names. Shares differ by one raw file at most, and
    are empty where there are more batches than raw files. A file that sorts last, as the newest one does in most archives, changes
    one share only; slices of neighbouring files would all move.
    """
    every = sorted(names)
    raw = [name for name in every if fnmatchcase(_base(name), raw_glob)]
    mine = set(raw[number - 1 :: of])
    if not mine:
        return []
    if len(raw) == len(every):
        return sorted(mine)
    by_folder: dict[str, list[str]] = defaultdict(list)
    for name in raw:
        by_folder[_folder(name)].append(name)
    owners = {name: _raw_file_of(name, by_folder) for name in set(every) - set(raw)}
    return sorted(mine | {name for name, owner in owners.items() if owner is None or owner in mine})


def _raw_file_of(companion: str, by_folder: Mapping[str, Sequence[str]]) -> str | None:
    """The raw file in the same folder whose name begins most like the companion's: ``x.0.truth.npz`` goes with ``x.0.uvh5``.

    None if there is no such file, or if two are equally alike: the companion then describes all of them. In sorted names the most
    alike is one of the two before or the two after.
    """
    raw = by_folder.get(_folder(companion), ())
    at = bisect_left(raw, companion)
    near = raw[max(at - 2, 0) : at + 2]
    alike = [_common_beginning(_base(name), _base(companion)) for name in near]
    best = max(alike, default=0)
    return near[alike.index(best)] if best and alike.count(best) == 1 else None


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _common_beginning(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
