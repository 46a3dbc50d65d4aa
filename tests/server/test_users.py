"""Users, their passwords and what they may do."""

from __future__ import annotations

import base64
import json
import socket
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from dlg_ml_tasks.archive.server import Access, EmbeddedNgas, ServerStartError
from dlg_ml_tasks.archive.server import authorization as authorization_module
from dlg_ml_tasks.archive.server.users import User, Users, UsersFileError, hash_password, password_matches


def basic(name, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


ANN = basic("ann", "all:of it é")
BOB = basic("bob", "read")


@pytest.fixture(scope="module")
def hashes():
    """Hashing costs 50 ms, so it is done once."""
    return {"ann": hash_password("all:of it é"), "bob": hash_password("read")}


@pytest.fixture
def users_file(tmp_path, hashes):
    path = tmp_path / "users.json"
    users = Users(
        users={
            "ann": User(password=hashes["ann"], commands=("*",)),
            "bob": User(password=hashes["bob"], commands=("RETRIEVE", "QUERY", "ARCHIVE")),
        },
        open_to_all=("HELP",),
    )
    users.write(path)
    return path


@pytest.fixture
def guarded(root, users_file):
    with EmbeddedNgas(root, access=Access(users=users_file)) as running:
        yield running


@pytest.fixture
def guarded_wire(guarded, connect):
    return connect(guarded.url)


def test_a_user_does_what_the_list_allows_and_nothing_else(guarded_wire):
    assert guarded_wire.push(b"x", filename="a.bin", headers=ANN).code == 200
    assert guarded_wire.get("RETRIEVE", BOB, file_id="a.bin").response.content == b"x"
    refused = guarded_wire.push(b"x", filename="b.bin", headers=BOB)  # ARCHIVE is allowed, QARCHIVE is another command
    assert (refused.code, refused.failed, refused.message) == (403, True, "Unauthorized access denied")
    assert guarded_wire.push(b"x", "ARCHIVE", filename="b.bin", headers=BOB).code == 200


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "Unauthorized request received"),
        (basic("ann", "wrong"), "wrong password for user ann"),
        (basic("eve", "x"), "unknown user specified"),
        ({"Authorization": "Bearer abc"}, "Invalid authentication scheme: Bearer"),
        ({"Authorization": ANN["Authorization"].replace("Basic", "basic")}, "Invalid authentication scheme: basic"),
        ({"Authorization": "Basic"}, "Invalid Basic authentication, missing value"),
        ({"Authorization": "Basic YW5u"}, "Invalid Basic authentication, no password provided"),
        ({"Authorization": "Basic \xff\xff"}, "Invalid Basic authentication, not base64 of UTF-8"),
        ({"Authorization": ANN["Authorization"] + " x"}, "Invalid Basic authentication, missing value"),
    ],
)
def test_a_stranger_is_refused_in_the_words_of_ngas_and_without_a_challenge(guarded_wire, headers, message):
    refused = guarded_wire.get("STATUS", headers)
    assert (refused.code, refused.failed, refused.message) == (401, True, message)
    assert "WWW-Authenticate" not in refused.response.headers


def test_credentials_in_the_query_count_for_nothing(guarded_wire):
    assert guarded_wire.get("STATUS", authorization=ANN["Authorization"]).code == 401


def test_a_stranger_is_not_told_which_commands_there_are(guarded_wire):
    assert guarded_wire.get("NONSENSE").code == 401
    assert guarded_wire.get("NONSENSE", ANN).code == 404
    assert guarded_wire.get("NONSENSE", BOB).code == 403


def test_an_open_command_needs_no_password(guarded_wire):
    assert guarded_wire.session.get(f"{guarded_wire.url}/HELP", allow_redirects=False, timeout=30).status_code == 308


def test_the_refusal_comes_before_a_byte_of_the_body_is_read(guarded):
    with socket.create_connection((guarded.host, guarded.port), timeout=30) as connection:
        connection.sendall(b"POST /QARCHIVE?filename=a.bin HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
                           b"Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\n")  # fmt: skip
        assert connection.recv(100).startswith(b"HTTP/1.1 401 ")


def test_a_stranger_busy_sending_gets_to_read_the_refusal(guarded_wire):
    refused = guarded_wire.push(bytes(8 * 2**20), filename="a.bin")
    assert (refused.code, refused.message) == (401, "Unauthorized request received")


def test_what_is_read_of_a_stranger_has_an_end(guarded, monkeypatch):
    monkeypatch.setattr(authorization_module, "_MOST_DRAINED", 2**20)
    with socket.create_connection((guarded.host, guarded.port), timeout=30) as connection:
        connection.sendall(b"POST /QARCHIVE?filename=a.bin HTTP/1.1\r\nHost: localhost\r\n"
                           b"Content-Type: application/octet-stream\r\nContent-Length: 1000000000000\r\n\r\n")  # fmt: skip
        connection.sendall(bytes(2 * 2**20))
        head = connection.recv(1000)
        assert head.startswith(b"HTTP/1.1 401 ")
        assert b"connection: close" in head.lower()


def test_a_password_is_verified_once_and_not_for_every_request(guarded_wire, monkeypatch):
    verified = []

    def counting(password, hashed):
        verified.append(password)
        return password_matches(password, hashed)

    monkeypatch.setattr(authorization_module, "password_matches", counting)
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: guarded_wire.get("STATUS", ANN).code, range(24)))
    assert codes == [200] * 24
    assert len(verified) == 1
    assert guarded_wire.get("STATUS", basic("ann", "wrong")).code == 401
    assert guarded_wire.get("STATUS", basic("ann", "wrong")).code == 401
    assert len(verified) == 3


def test_a_changed_users_file_is_taken_up_without_a_restart(guarded_wire, users_file, eventually):
    assert guarded_wire.get("QUERY", BOB, query="files_list").code == 200
    Users.read(users_file).without_user("bob").write(users_file)
    eventually(lambda: guarded_wire.get("QUERY", BOB, query="files_list").code == 401)
    assert guarded_wire.get("STATUS", ANN).code == 200


def test_a_users_file_that_gets_broken_leaves_the_users_as_they_were(guarded_wire, users_file, caplog, eventually):
    assert guarded_wire.get("STATUS", ANN).code == 200
    users_file.write_text("{")
    eventually(lambda: guarded_wire.get("STATUS", ANN).code == 200 and "The users known before stay" in caplog.text)
    assert guarded_wire.get("STATUS", BOB).code == 403


def test_the_file_is_for_its_owner_only_and_holds_no_password(users_file):
    assert stat.S_IMODE(users_file.stat().st_mode) == 0o600
    assert "read" not in json.loads(users_file.read_text())["users"]["bob"]["password"]
    assert list(users_file.parent.iterdir()) == [users_file]


def test_the_same_password_never_has_the_same_hash(hashes):
    assert hash_password("read") != hashes["bob"]
    assert password_matches(b"read", hashes["bob"])
    assert not password_matches(b"Read", hashes["bob"])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "Invalid JSON"),
        ('{"user": {}}', "user: Extra inputs are not permitted"),
        ('{"users": {"a": {"commands": ["*"]}}}', "users.a.password: Field required"),
        ('{"users": {"a": {"password": "plain", "commands": ["*"]}}}', "a password must be written as scrypt"),
        ('{"users": {"a": {"password": "scrypt$1073741824$8$1$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAA", '
         '"commands": []}}}', "a cost below 64 MiB"),
        ('{"users": {"a:b": {"password": "x", "commands": []}}}', "'a:b' is no user name"),
    ],
)  # fmt: skip
def test_a_wrong_users_file_stops_the_start_with_the_place_of_the_fault(root, tmp_path, text, fault):
    path = tmp_path / "users.json"
    path.write_text(text)
    with pytest.raises(ServerStartError, match=f"The users file {path} is wrong") as refused:
        EmbeddedNgas(root, access=Access(users=path)).__enter__()
    assert fault in str(refused.value)
    assert "dlg-ml ngas user" in str(refused.value)


def test_a_missing_users_file_stops_the_start(root, tmp_path):
    with pytest.raises(ServerStartError, match="cannot be read: No such file or directory"):
        EmbeddedNgas(root, access=Access(users=tmp_path / "none.json")).__enter__()


def test_a_user_name_with_a_colon_is_refused_before_it_is_written(hashes):
    with pytest.raises(UsersFileError, match="'a:b' is no user name"):
        Users().with_user("a:b", User(password=hashes["ann"], commands=("*",)))
