"""QUERY."""

from __future__ import annotations

import ast
import sqlite3

import pytest

KEYS = [
    "disk_id",
    "file_name",
    "file_id",
    "file_version",
    "format",
    "file_size",
    "uncompressed_file_size",
    "compression",
    "ingestion_date",
    "file_ignore",
    "checksum",
    "checksum_plugin",
    "file_status",
    "creation_date",
    "io_time",
    "ingestion_rate",
    "container_id",
]


def test_a_json_row_has_the_columns_of_ngas(wire):
    file = wire.push(b"hello", filename="a.bin").file
    (row,) = wire.rows()
    assert list(row) == KEYS
    assert (row["file_id"], row["file_version"], row["file_size"]) == ("a.bin", 1, 5)
    assert row["file_name"] == file["FileName"]
    assert row["checksum"] == file["Checksum"]
    assert row["disk_id"] == wire.disk_id
    assert row["container_id"] is None


def test_the_base_name_of_a_file_survives_in_a_listing(wire):
    name = "a=20b=C3=A9.abcdefghijklmnopqrstuvwxyz.bin"
    wire.push(b"x", filename=name, file_id="k1.k2")
    assert wire.rows("k1.%")[0]["file_name"].rpartition("/")[2] == name


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("abc%", ["abc", "abc.1", "abcd"]),
        ("abc.%", ["abc.1"]),
        ("ab_", ["abc"]),
        ("%1", ["abc.1"]),
        ("abc", ["abc"]),
        ("ABC%", []),
        ("x*%", ["x*y"]),
        ("x[%", ["x[y]"]),
        ("x?%", []),
        ("é%", ["é日本"]),
        ("", ["abc", "abc.1", "abcd", "x*y", "x[y]", "é日本"]),
    ],
)
def test_files_like_knows_percent_and_underscore_and_nothing_else(wire, pattern, matching):
    for file_id in ("abc", "abcd", "abc.1", "x*y", "x[y]", "é日本"):
        wire.push(b"x", filename="a.bin", file_id=file_id)
    assert [row["file_id"] for row in wire.rows(pattern)] == matching


def test_a_listing_has_every_version(wire):
    for _ in range(3):
        wire.push(b"x", filename="a.bin")
    assert [row["file_version"] for row in wire.rows("a%")] == [1, 2, 3]


def test_a_prefix_is_looked_up_in_the_index(server, wire):
    wire.push(b"x", filename="a.bin")
    with sqlite3.connect(server.root / "catalogue.sqlite") as database:
        plan = database.execute("EXPLAIN QUERY PLAN SELECT * FROM files WHERE file_id GLOB ?", ("abc*",)).fetchall()
    database.close()
    assert plan[0][3] == "SEARCH files USING PRIMARY KEY (file_id>? AND file_id<?)"


def test_the_text_format_is_a_table_with_a_header_between_rules(wire):
    wire.push(b"x", filename="a.bin")
    for wanted in ("list", "text"):
        answer = wire.get("QUERY", query="files_list", format=wanted).response
        assert answer.headers["Content-Type"].startswith("text/plain")
        rule, header, second_rule, row = answer.text.split("\n")
        assert rule == second_rule
        assert set(rule) == {"-", " "}
        assert header.split() == KEYS
        assert row[header.index("file_id ") :].split()[0] == "a.bin"
        assert len(rule) == len(header) == len(row)


def test_without_a_format_the_answer_is_a_python_list(wire):
    wire.push(b"x", filename="a.bin")
    answer = wire.get("QUERY", query="FILES_LIST").response
    assert answer.headers["Content-Type"] == "application/python-list"
    assert ast.literal_eval(answer.text)[0][2] == "a.bin"


def test_the_statistics_count_files_and_megabytes_also_after_a_discard(wire):
    def stats():
        return wire.get("QUERY", query="files_stats", format="json").response.json()

    assert stats() == [{"Number of files": 0, "Total volume [MB]": None}]
    wire.push(bytes(2**20), filename="a.bin")
    wire.push(bytes(2**19), filename="b.bin")
    wire.push(bytes(2**18), filename="a.bin", versioning=0)
    assert stats() == [{"Number of files": 2, "Total volume [MB]": 0.75}]
    wire.get("DISCARD", file_id="a.bin", file_version=1, disk_id=wire.disk_id, execute=1)
    assert stats() == [{"Number of files": 1, "Total volume [MB]": 0.5}]


def test_files_can_be_asked_for_by_date_and_newest_first(wire):
    dates = [wire.push(b"x", filename=f"{name}.bin").file["IngestionDate"] for name in "ab"]
    recent = wire.get("QUERY", query="files_list_recent", format="json").response.json()
    assert {row["file_id"] for row in recent} == {"a.bin", "b.bin"}
    assert list(recent[0]) == ["file_id", "file_name", "file_size", "ingestion_date"]
    between = wire.get("QUERY", query="files_between", start=dates[0], end=dates[1], format="json").response.json()
    assert len(between) == 2
    assert wire.get("QUERY", query="files_between", start="2000", end="2001", format="json").response.json() == []
    assert wire.get("QUERY", query="files_between", start="2000").code == 400


def test_the_host_and_the_disk_are_listed(idle_server, idle_wire):
    (host,) = idle_wire.get("QUERY", query="hosts_list", format="json").response.json()
    (disk,) = idle_wire.get("QUERY", query="disks_list", format="json").response.json()
    assert host["srv_port"] == idle_server.port
    assert disk["host_id"] == host["host_id"] == idle_wire.get("STATUS").status["HostId"]
    assert disk["mount_point"] == str(idle_server.root / "volume1")


@pytest.mark.parametrize("query", [None, "", "files_dropped; DROP TABLE files"])
def test_an_unknown_query_is_refused_with_the_known_ones(idle_wire, query):
    refused = idle_wire.get("QUERY", query=query)
    assert refused.code == 400
    assert "files_like" in refused.message


def test_a_pickle_is_refused(idle_wire):
    assert "format=json" in idle_wire.get("QUERY", query="files_list", format="pickle").message
