"""Names and numbers of the copies that a scatter makes of a node; imports no engine."""

from __future__ import annotations

import re


def copy_name(name: str, iid: object) -> str:
    """The name of one copy of a node: ``preprocess/4`` for the fourth, the node's own name where there is but one.

    A slash, because names become MLflow tag keys, which allow no brackets.
    """
    return "/".join((name, *map(str, copy_numbers(iid))))


def copy_numbers(iid: object) -> tuple[int, ...]:
    """The number of a copy in each scatter around it, outermost first, counted from 1 as people count batches; empty outside.

    `iid` is the engine's instance id: ``0`` outside scatters, ``0-3`` for the fourth copy, ``0-3-1`` in a scatter within one.
    """
    _, *indices = str(iid).split("$")[0].split("-")
    return tuple(int(index) + 1 for index in indices)


def copy_numbers_in(oid: str) -> tuple[int, ...]:
    """`copy_numbers` of a drop that is known by its object id only: the translator ends it in ``_`` and the instance id."""
    ending = re.search(r"_(\d+(-\d+)*)$", oid)
    return copy_numbers(ending[1]) if ending else ()
