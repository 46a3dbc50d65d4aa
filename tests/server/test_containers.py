"""Containers: making, filling, listing, retrieving, sending and destroying them."""

from __future__ import annotations

import email.parser
import email.policy
import io
import os
import socket
import sqlite3
import tarfile
import zlib
from xml.etree import ElementTree

import pytest
import requests

from dlg_ml_tasks.archive.server import EmbeddedNgas, Limits

NGAS_CONTAINER = {"Content-Type": "ngas/container"}
XML = {"Content-Type": "text/xml"}


def create(wire, name, **parameters):
    answer = wire.get("CCREATE", container_name=name, **parameters)
    assert (answer.code, answer.message) == (200, "Successfully created container(s)")
    return ElementTree.fromstring(answer.response.content).find("Container").get("id")


def post(wire, command, body, headers=XML, **parameters):
    return wire.push(body, command, headers, **parameters)


def listed(wire, **parameters):
    """A container as (name, size, [file ids], [children])."""
    answer = wire.get("CLIST", **parameters)
    assert (answer.code, answer.message) == (200, "Successfully retrieved containers list")

    def described(element):
        return (
            element.get("name"),
            int(element.get("size")),
            [file.get("FileId") for file in element.findall("FileStatus")],
            [described(child) for child in element.findall("Container")],
        )

    return described(ElementTree.fromstring(answer.response.content).find("Container"))


@pytest.fixture
def filled(wire):
    """Two files in c1, one in its child c2; gives the ids of the containers."""
    first = create(wire, "c1")
    second = create(wire, "c2", parent_container_id=first)
    for name, data in (("a.bin", b"aa"), ("b.bin", b"bbb"), ("c.bin", bytes(100_000))):
        wire.push(data, filename=name)
    for container_id, name in ((first, "a.bin"), (first, "b.bin"), (second, "c.bin")):
        assert wire.get("CAPPEND", container_id=container_id, file_id=name).message == "Successfully handled request"
    return first, second


def test_a_container_lists_its_files_and_those_below_it(wire, filled):
    expected = ("c1", 5, ["a.bin", "b.bin"], [("c2", 100_000, ["c.bin"], [])])
    assert listed(wire, container_id=filled[0]) == expected
    assert listed(wire, container_name="c1") == expected


def test_a_hierarchy_is_made_whole_and_below_the_parent_that_its_document_names(wire):
    top = create(wire, "top")
    tree = f'<Container name="r" parentContainerId="{top}"><Container name="x"><Container name="y"/></Container></Container>'
    assert post(wire, "CCREATE", tree.encode()).code == 200
    assert listed(wire, container_id=top) == ("top", 0, [], [("r", 0, [], [("x", 0, [], [("y", 0, [], [])])])])


def test_names_at_the_top_need_not_be_unique_but_then_the_id_must_be_given(wire):
    ids = {create(wire, "twin"), create(wire, "twin")}
    assert len(ids) == 2
    refused = wire.get("CLIST", container_name="twin")
    assert refused.code == 400
    assert refused.message == "More than one container with name twin found, cannot proceed with unique fetching"
    assert listed(wire, container_id=ids.pop())[0] == "twin"


def test_siblings_have_distinct_names_and_a_hierarchy_with_two_alike_leaves_nothing(wire):
    top = create(wire, "top")
    create(wire, "child", parent_container_id=top)
    assert (
        "already exists as subcontainer" in wire.get("CCREATE", container_name="child", parent_container_id=top).message
    )
    tree = b'<Container name="r"><Container name="x"/><Container name="x"/></Container>'
    assert "already exists as subcontainer" in post(wire, "CCREATE", tree).message
    assert wire.get("CLIST", container_name="r").message == "No container found with name r"


@pytest.mark.parametrize(
    ("command", "parameters", "message"),
    [
        ("CLIST", {}, "Invalid parameter: container_id or container_name needed"),
        ("CAPPEND", {"file_id": "a.bin"}, "Invalid parameter: container_id or container_name needed"),
        ("CLIST", {"container_id": "x"}, "Invalid parameter: No container with id 'x'"),
        ("CDESTROY", {"container_name": "x"}, "No container found with name x"),
        ("CCREATE", {}, "No container_name parameter given, cannot create a nameless container"),
        ("CCREATE", {"container_name": " "}, "No container_name parameter given, cannot create a nameless container"),
        (
            "CCREATE",
            {"container_name": "a", "parent_container_id": "x"},
            "No container with id 'x' exists, cannot use it as parent_container_id",
        ),
        ("CAPPEND", {"container_id": "x"}, "No file_id given in GET request, one needs to be specified"),
        ("CRETRIEVE", {"container_id": "x", "processing": "p"}, "CRETRIEVE command does not allow processing (yet)"),
        ("CARCHIVE", {}, "Only POST allowed for CARCHIVE"),
    ],
)
def test_what_is_missing_or_unknown_is_said_in_the_words_of_ngas(idle_wire, command, parameters, message):
    refused = idle_wire.get(command, **parameters)
    assert (refused.code, refused.failed, refused.message) == (400, True, message)


@pytest.mark.parametrize(
    "body",
    [
        b"<Container",
        b"<Other name='x'/>",
        b"<Container name='x'><Container/></Container>",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]><Container name='&b;'/>",
        b"<Container name='x'>" * 40 + b"</Container>" * 40,
        b"\xff\xfe",
    ],
)
def test_a_bad_hierarchy_is_refused(idle_wire, body):
    assert post(idle_wire, "CCREATE", body).code == 400


def test_a_file_is_in_one_container_at_most_unless_it_is_forced_into_another(wire, filled):
    first, second = filled
    refused = wire.get("CAPPEND", container_id=second, file_id="a.bin")
    assert (refused.code, refused.message) == (
        400,
        f"File 'a.bin' is already associated to container '{first}'. To override the 'force' parameter must be given",
    )
    assert wire.get("CAPPEND", container_id=second, file_id="a.bin", force=1).code == 200
    assert listed(wire, container_id=first) == ("c1", 3, ["b.bin"], [("c2", 100_002, ["a.bin", "c.bin"], [])])
    assert wire.get("CAPPEND", container_id=second, file_id="a.bin").code == 200


def test_a_list_of_files_is_appended_and_removed_all_or_none(wire, filled):
    third = create(wire, "c3")
    wire.push(b"d", filename="d.bin")
    both = b'<FileList><File FileId="d.bin"/><File FileId="none"/></FileList>'
    refused = post(wire, "CAPPEND", both, container_id=third)
    assert (refused.code, refused.message) == (400, "No file with fileId 'none' found, cannot append it to container")
    assert listed(wire, container_id=third) == ("c3", 0, [], [])
    two = b'<FileList><File FileId="d.bin"/><File FileId="a.bin"/></FileList>'
    assert post(wire, "CAPPEND", two, container_id=third, force=1, close_container=1).code == 200
    assert listed(wire, container_id=third) == ("c3", 3, ["a.bin", "d.bin"], [])
    assert "ingestionDate" in wire.get("CLIST", container_id=third).response.text
    assert post(wire, "CREMOVE", two, container_id=third).code == 200
    assert listed(wire, container_id=third) == ("c3", 0, [], [])
    assert post(wire, "CREMOVE", two, container_id=third).code == 200  # one that is in none stays so


def test_a_file_is_not_taken_out_of_another_container(wire, filled):
    first, second = filled
    refused = wire.get("CREMOVE", container_id=second, file_id="a.bin")
    assert (refused.code, refused.message) == (
        400,
        f"File with fileId 'a.bin' is associated with a different container: {first}",
    )
    assert "cannot remove it from container" in wire.get("CREMOVE", container_id=second, file_id="none").message


def test_membership_shows_in_status_and_query_and_stays_with_new_versions(wire, filled):
    first, _ = filled
    assert wire.get("STATUS", file_id="a.bin").file["ContainerId"] == first
    assert wire.push(b"a new one", filename="a.bin").file["ContainerId"] == first
    assert wire.push(b"instead", filename="a.bin", versioning=0).file["ContainerId"] == first
    assert [row["container_id"] for row in wire.rows("a.bin")] == [first, first]
    assert listed(wire, container_id=first)[1:3] == (10, ["a.bin", "b.bin"])  # of a.bin the latest version
    assert wire.push(b"x", filename="d.bin").file["ContainerId"] == "None"


def test_a_destroyed_container_leaves_its_files(wire, filled):
    first, _ = filled
    refused = wire.get("CDESTROY", container_id=first)
    assert (refused.code, refused.message) == (
        400,
        f"Container with id '{first}' has sub-containers, use the recursive option to remove them",
    )
    assert wire.get("CDESTROY", container_id=first, recursive=1).message == "Successfully handled request"
    for gone in filled:
        assert wire.get("CLIST", container_id=gone).message == f"Invalid parameter: No container with id '{gone}'"
    assert {row["container_id"] for row in wire.rows()} == {None}
    assert wire.get("RETRIEVE", file_id="a.bin").response.content == b"aa"


def test_a_container_survives_a_restart(root, connect):
    with EmbeddedNgas(root) as server:
        wire = connect(server.url)
        wire.push(b"x", filename="a.bin")
        container_id = create(wire, "c")
        wire.get("CAPPEND", container_id=container_id, file_id="a.bin")
    with EmbeddedNgas(root) as server:
        assert listed(connect(server.url), container_id=container_id) == ("c", 1, ["a.bin"], [])


def members(wire, **parameters):
    answer = wire.get("CRETRIEVE", format="application/x-tar", **parameters).response
    assert answer.headers["Content-Type"] == "application/x-tar"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        return {
            member.name: archive.extractfile(member).read() if member.isfile() else None
            for member in archive.getmembers()
        }


def test_a_container_is_retrieved_as_tar(wire, filled):
    assert members(wire, container_name="c1") == {
        "c1": None,
        "c1/a.bin": b"aa",
        "c1/b.bin": b"bbb",
        "c1/c2": None,
        "c1/c2/c.bin": bytes(100_000),
    }


def test_no_name_in_the_tar_leads_out_of_its_directory_and_no_two_are_alike(wire):
    outer = create(wire, "../../etc")
    create(wire, "..", parent_container_id=outer)
    create(wire, "/abs", parent_container_id=outer)
    for number in range(3):
        wire.push(b"%d" % number, filename="col.bin", file_id=f"run{number}")
        wire.get("CAPPEND", container_id=outer, file_id=f"run{number}")
    assert members(wire, container_id=outer) == {
        ".._.._etc": None,
        ".._.._etc/col.bin": b"0",
        ".._.._etc/2-col.bin": b"1",
        ".._.._etc/3-col.bin": b"2",
        ".._.._etc/__": None,
        ".._.._etc/_abs": None,
    }


def test_long_and_foreign_names_survive_in_the_tar(wire):
    name = "日本" * 30 + ".bin"
    container_id = create(wire, "ü" * 100)
    wire.push(b"x", filename=name, file_id="id")
    wire.get("CAPPEND", container_id=container_id, file_id="id")
    assert members(wire, container_id=container_id)[f"{'ü' * 100}/{name}"] == b"x"


def parts(content):
    """A multipart message as (container name, {file name: bytes or nested}), by the parser of the standard library."""
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(content)

    def described(container):
        return container.get_param("container_name"), {
            part.get_filename() or part.get_param("container_name"): described(part)
            if part.is_multipart()
            else part.get_payload(decode=True)
            for part in container.get_payload()
        }

    return described(message)


def test_a_container_is_retrieved_as_multipart(wire, filled):
    answer = wire.get("CRETRIEVE", container_name="c1").response
    assert answer.headers["Content-Type"] == "ngas/container"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert parts(answer.content) == (
        "c1",
        {"a.bin": b"aa", "b.bin": b"bbb", "c2": ("c2", {"c.bin": bytes(100_000)})},
    )


@pytest.mark.parametrize("parameters", [{}, {"format": "application/x-tar"}])
def test_a_container_with_a_lost_file_never_looks_whole(server, wire, filled, parameters):
    (lost,) = server.root.rglob("objects/*/*")
    lost.unlink()
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        wire.get("CRETRIEVE", container_name="c1", **parameters)


def test_a_client_that_takes_nothing_of_a_container_is_given_up(root, connect, eventually):
    with EmbeddedNgas(root, limits=Limits(stall_seconds=0.3)) as server:
        wire = connect(server.url)
        container_id = create(wire, "c")
        for number in range(40):
            wire.push(bytes(2**20), filename=f"{number}.bin")
            wire.get("CAPPEND", container_id=container_id, file_id=f"{number}.bin")
        with socket.create_connection((server.host, server.port), timeout=30) as connection:
            request = f"GET /CRETRIEVE?container_id={container_id} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            connection.sendall(request.encode())
            assert connection.recv(12) == b"HTTP/1.1 200"
            eventually(lambda: wire.get("STATUS").status["SubState"] == "IDLE")


def test_retrieving_a_container_needs_the_server_online(wire, filled):
    wire.get("OFFLINE")
    assert "NGAMS_ER_IMPROPER_STATE:4015" in wire.get("CRETRIEVE", container_name="c1").message
    assert listed(wire, container_name="c1")[0] == "c1"


def message(name, files, children=(), boundary="B"):
    """A message as the protocol reference gives it."""
    head = f'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; container_name="{name}"; boundary="{boundary}"\r\n\r\n'
    body = head.encode()
    for file, data in files.items():
        body += (
            f"\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n"
            f'Content-Disposition: attachment; filename="{file}"\r\n\r\n'
        ).encode() + data
    for child in children:
        body += f"\r\n--{boundary}\r\n".encode() + child
    return body + f"\r\n--{boundary}--".encode()


def test_a_container_is_archived_whole_and_comes_back_the_same(wire):
    large = os.urandom(300_000)
    inner = message("inner", {"three.json": b"{}", "large": large}, boundary="B2")
    answer = post(wire, "CARCHIVE", message("cdir", {"two.bin": b"22", "empty.bin": b""}, [inner]), NGAS_CONTAINER)
    assert (answer.code, answer.message) == (
        200,
        "Successfully handled Archive Pull Request for data file with URI: ",
    )
    assert listed(wire, container_name="cdir") == (
        "cdir",
        2,
        ["empty.bin", "two.bin"],
        [("inner", 300_002, ["large", "three.json"], [])],
    )
    file = wire.get("STATUS", file_id="large").file
    assert (file["ChecksumPlugIn"], file["Checksum"]) == ("StreamCrc32", str(zlib.crc32(large)))
    for file_id in ("large", "two.bin", "empty.bin"):
        assert wire.get("CHECKFILE", file_id=file_id).message.startswith("NGAMS_INFO_FILE_OK:4056")
    again = wire.get("CRETRIEVE", container_name="cdir").response.content
    assert parts(again)[1]["inner"] == ("inner", {"three.json": b"{}", "large": large})
    assert post(wire, "CARCHIVE", again, NGAS_CONTAINER).code == 200
    assert wire.get("STATUS", file_id="large").file["FileVersion"] == "2"


def remains(server):
    """The objects on disk, and the rows of the catalogue."""
    objects = [
        path for path in server.root.rglob("*") if path.is_file() and path.parent.parent.name in ("objects", "volume1")
    ]
    with sqlite3.connect(server.root / "catalogue.sqlite") as database:
        counts = [
            database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("files", "containers", "bodies")
        ]
    database.close()
    return [path.name for path in objects if path.name != "disk_id"], counts


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (message("c", {"a.bin": bytes(200_000)})[:-3], "breaks off before its final boundary"),
        (message("c", {"a.bin": bytes(200_000), "d/a.bin": b"x"}), "Two files of the message are named 'a.bin'"),
        (
            message("c", {"a.bin": bytes(200_000)}, [message("d", {}, boundary="D")] * 2),
            "already exists as subcontainer",
        ),
        (message("c", {"a.bin": bytes(200_000), "x/": b""}), "must have between 1 and 240 bytes"),
        (b"not a message at all", "breaks off"),
    ],
)
def test_a_container_that_cannot_be_stored_whole_leaves_nothing(server, wire, body, fault):
    refused = post(wire, "CARCHIVE", body, NGAS_CONTAINER)
    assert refused.code == 400
    assert fault in refused.message
    assert remains(server) == ([], [0, 0, 0])


def test_a_container_that_does_not_fit_is_refused(root, connect):
    with EmbeddedNgas(root, limits=Limits(capacity_bytes=100_000)) as server:
        wire = connect(server.url)
        refused = post(wire, "CARCHIVE", message("c", {"a.bin": bytes(200_000)}), NGAS_CONTAINER)
        assert (refused.code, refused.message) == (
            400,
            "No disk volumes are available for ingesting any files.",
        )
        assert post(wire, "CARCHIVE", message("c", {"a.bin": bytes(50_000)}), NGAS_CONTAINER).code == 200


def test_more_small_files_than_fit_into_memory_become_objects(server, wire, monkeypatch):
    monkeypatch.setattr("dlg_ml_tasks.archive.server.containers.archiving._MOST_HELD", 25_000)
    files = {f"{number}.bin": bytes([number]) * 10_000 for number in range(6)}
    assert post(wire, "CARCHIVE", message("c", files), NGAS_CONTAINER).code == 200
    assert len(remains(server)[0]) == 4
    assert {name: wire.get("RETRIEVE", file_id=name).response.content for name in files} == files


def test_too_many_large_files_are_refused(server, wire, monkeypatch):
    monkeypatch.setattr("dlg_ml_tasks.archive.server.containers.archiving._MOST_OBJECTS", 2)
    files = {f"{number}.bin": bytes(100_000) for number in range(3)}
    assert "send the container in parts" in post(wire, "CARCHIVE", message("c", files), NGAS_CONTAINER).message
    assert remains(server) == ([], [0, 0, 0])


def test_a_client_that_goes_away_leaves_nothing_of_its_container(server, wire, eventually):
    body = message("c", {"a.bin": bytes(500_000)})
    head = (
        "POST /CARCHIVE HTTP/1.1\r\nHost: localhost\r\nContent-Type: ngas/container\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((server.host, server.port), timeout=30) as connection:
        connection.sendall(head.encode() + body[:-1000])
        eventually(lambda: remains(server)[0])
    eventually(lambda: remains(server) == ([], [0, 0, 0]))
