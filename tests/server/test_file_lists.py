"""STATUS?file_list: the archive in pages."""

from __future__ import annotations

import gzip
import sqlite3
from xml.etree import ElementTree

import pytest

from dlg_ml_tasks.archive.server import EmbeddedNgas, file_lists, listings


def page(wire, **parameters):
    """The list's id, how many rows remain, and the rows of a page."""
    answer = wire.get("STATUS", **{"file_list": 1, **parameters}).response
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/x-gxml"
    assert answer.headers["Content-Disposition"].startswith("attachment; filename=")
    listing = ElementTree.fromstring(gzip.decompress(answer.content)).find("FileList")
    word, _, remaining = listing.get("Status").partition(": ")
    assert word == "REMAINING_DATA_OBJECTS"
    return listing.get("Id"), int(remaining), [dict(row.attrib) for row in listing.findall("FileStatus")]


def ids(rows):
    return [(row["FileId"], int(row["FileVersion"])) for row in rows]


@pytest.fixture
def stored(wire):
    names = ["b.bin", 'a&<>"é.bin', "a.bin", "a.bin", "c.bin"]
    for number, name in enumerate(names):
        wire.push(b"x" * (number + 1), filename="x.bin", file_id=name)
    return sorted([('a&<>"é.bin', 1), ("a.bin", 1), ("a.bin", 2), ("b.bin", 1), ("c.bin", 1)])


def test_without_a_limit_everything_comes_at_once(wire, stored):
    _, remaining, rows = page(wire)
    assert remaining == 0
    assert ids(rows) == stored
    assert {row["DiskId"] for row in rows} == {wire.disk_id}
    assert [row["FileSize"] for row in rows if row["FileId"] == "c.bin"] == ["5"]


def test_the_pages_together_are_the_archive_and_every_row_comes_once(wire, stored):
    list_id, remaining, rows = page(wire, max_elements=2)
    assert remaining == 3
    while remaining:
        again, remaining, more = page(wire, file_list_id=list_id, max_elements=2)
        assert again == list_id
        rows += more
    assert ids(rows) == stored


def test_a_list_that_is_finished_or_was_never_begun_is_refused(wire, stored):
    list_id, _, _ = page(wire)
    for unknown in (list_id, "nonsense"):
        refused = wire.get("STATUS", file_list=1, file_list_id=unknown)
        assert (refused.code, refused.failed) == (400, True)
        assert refused.message.startswith(f"Referenced File List ID: {unknown} in connection with STATUS/file_list")


def test_files_archived_and_discarded_between_pages_break_nothing(wire, stored):
    list_id, _, rows = page(wire, max_elements=2)
    wire.get("DISCARD", file_id="b.bin", file_version=1, disk_id=wire.disk_id, execute=1)
    wire.push(b"x", filename="aa.bin")
    wire.push(b"x", filename="A.bin")
    remaining = 1
    while remaining:
        _, remaining, more = page(wire, file_list_id=list_id, max_elements=1)
        rows += more
    found = ids(rows)
    assert len(found) == len(set(found))
    assert {("a.bin", 2), ("c.bin", 1)} <= set(found)


def test_only_files_from_a_date_on(wire, stored):
    date = wire.get("STATUS", file_id="c.bin").file["IngestionDate"]
    assert ("c.bin", 1) in ids(page(wire, from_ingestion_date=date)[2])
    assert page(wire, from_ingestion_date="2999-01-01")[1:] == (0, [])
    assert ids(page(wire, from_ingestion_date="2000-01-01T00:00:00.000")[2]) == stored
    assert "is no date" in wire.get("STATUS", file_list=1, from_ingestion_date="soon").message


def test_unique_lists_a_version_once_whatever_the_number_of_its_copies(root, connect):
    with EmbeddedNgas(root, volumes=2) as server:
        wire = connect(server.url)
        for name in ("a.bin", "b.bin"):
            wire.push(b"x", filename=name)
            wire.get("CLONE", file_id=name)
        assert ids(page(wire)[2]) == [("a.bin", 1), ("a.bin", 1), ("b.bin", 1), ("b.bin", 1)]
        list_id, remaining, rows = page(wire, unique=1, max_elements=1)
        assert remaining == 1
        assert ids(rows + page(wire, file_list_id=list_id, max_elements=1)[2]) == [("a.bin", 1), ("b.bin", 1)]


def test_the_number_of_lists_has_a_limit_and_the_one_not_used_for_longest_goes(wire, stored, monkeypatch):
    monkeypatch.setattr(listings, "_MOST_LISTS", 2)
    first, second = (page(wire, max_elements=1)[0] for _ in range(2))
    page(wire, file_list_id=first, max_elements=1)
    page(wire, max_elements=1)
    page(wire, file_list_id=first, max_elements=1)
    assert wire.get("STATUS", file_list=1, file_list_id=second).code == 400


def test_a_list_grows_too_old(wire, stored, monkeypatch):
    list_id, _, _ = page(wire, max_elements=1)
    monkeypatch.setattr(listings, "_LONGEST_PAUSE_SECONDS", -1.0)
    assert "is not (or no longer) known" in wire.get("STATUS", file_list=1, file_list_id=list_id).message


@pytest.mark.parametrize("parameters", [{"max_elements": -1}, {"max_elements": "many"}])
def test_a_page_has_a_sensible_size(idle_wire, parameters):
    assert idle_wire.get("STATUS", file_list=1, **parameters).code == 400


def test_an_empty_archive_has_an_empty_list(idle_wire):
    assert page(idle_wire)[1:] == (0, [])


def test_a_page_is_read_from_the_index_where_the_last_ended(server, wire, stored):
    with sqlite3.connect(server.root / "catalogue.sqlite") as database:
        query = f"EXPLAIN QUERY PLAN SELECT * FROM files {file_lists._NEXT}"
        plan = [row[3] for row in database.execute(query, ("a", 1, "d", "", 10))]
    database.close()
    assert plan == ["SEARCH files USING PRIMARY KEY ((file_id,file_version,disk_id)>(?,?,?))"]
