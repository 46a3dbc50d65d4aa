from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dlg_ml_tasks.archive import AccessRefused, NgasClient, ProtocolError
from dlg_ml_tasks.archive.address import Address
from dlg_ml_tasks.archive.credentials import Credentials, credentials_for

ARCHIVE = Address("archive", 7777)
ELSEWHERE = Address("elsewhere", 7777)


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DLG_ML_NGAS_USER", "DLG_ML_NGAS_PASSWORD", "DLG_ML_NGAS_HOSTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def alice(monkeypatch: pytest.MonkeyPatch) -> Credentials:
    monkeypatch.setenv("DLG_ML_NGAS_USER", "alice")
    monkeypatch.setenv("DLG_ML_NGAS_PASSWORD", "gëheim")
    return Credentials("alice", "gëheim")


@pytest.fixture
def write_netrc(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, mode: int = 0o600) -> Path:
        path = tmp_path / "netrc"
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


def test_without_any_there_are_none() -> None:
    assert credentials_for(ARCHIVE) is None


def test_those_of_the_environment_are_for_every_server_a_user_names(alice: Credentials) -> None:
    assert credentials_for(ARCHIVE) == credentials_for(ELSEWHERE) == alice


def test_those_of_the_environment_can_be_bound_to_servers(alice: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLG_ML_NGAS_HOSTS", "other:1, archive")
    assert credentials_for(ARCHIVE) == alice
    assert credentials_for(Address("other", 1)) == alice
    assert credentials_for(ELSEWHERE) is None
    assert credentials_for(Address("archive", 7778)) is None


def test_a_binding_that_cannot_be_read_binds_nobody_by_accident(
    alice: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLG_ML_NGAS_HOSTS", "http://archive:7777")
    with pytest.raises(ValueError, match="DLG_ML_NGAS_HOSTS: 'http://archive:7777' is not an NGAS address"):
        credentials_for(ARCHIVE)


def test_a_server_that_another_one_named_gets_only_what_was_bound_to_it(
    alice: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert credentials_for(ARCHIVE, redirected=True) is None
    monkeypatch.setenv("DLG_ML_NGAS_HOSTS", "archive")
    assert credentials_for(ARCHIVE, redirected=True) == alice


def test_a_netrc_file_holds_credentials_by_host_and_by_port(write_netrc: Callable[..., Path]) -> None:
    write_netrc("machine archive login bob password pw\nmachine archive:7778 login eve password pw2\n")
    assert credentials_for(ARCHIVE) == Credentials("bob", "pw")
    assert credentials_for(Address("archive", 7778)) == Credentials("eve", "pw2")
    assert credentials_for(ELSEWHERE) is None


def test_the_environment_comes_before_the_netrc_file(alice: Credentials, write_netrc: Callable[..., Path]) -> None:
    write_netrc("machine archive login bob password pw\n")
    assert credentials_for(ARCHIVE) == alice


def test_a_netrc_entry_for_everybody_is_for_nobody(write_netrc: Callable[..., Path]) -> None:
    write_netrc("default login bob password pw\n")
    assert credentials_for(ARCHIVE) is None


def test_a_netrc_file_that_others_can_read_is_refused(write_netrc: Callable[..., Path]) -> None:
    path = write_netrc("machine archive login bob password geheim\n", 0o640)
    with pytest.raises(AccessRefused, match=f"chmod 600 {path}") as caught:
        credentials_for(ARCHIVE)
    assert "geheim" not in str(caught.value)
    assert credentials_for(ELSEWHERE) is None  # it says nothing of this server, and may be public


def test_a_netrc_file_that_cannot_be_parsed_is_not_quoted(write_netrc: Callable[..., Path]) -> None:
    write_netrc("machine archive login bob password\nmachine archive pass geheim\n")
    with pytest.raises(AccessRefused, match="cannot be parsed") as caught:
        credentials_for(ARCHIVE)
    assert "geheim" not in str(caught.value)


def test_a_password_is_never_shown(alice: Credentials) -> None:
    assert "heim" not in f"{alice} {alice!r}"


@pytest.mark.integration
def test_credentials_are_sent_before_they_are_asked_for_and_never_shown(
    alice: Credentials, proxy: Any, http_reply: Callable[..., bytes]
) -> None:
    client = NgasClient(proxy.host, proxy.port, patience=0)
    client.server_status()
    assert proxy.requests[-1].header("Authorization") == "Basic YWxpY2U6Z8OraGVpbQ=="
    assert "heim" not in repr(client)
    refusal = '<NgamsStatus><Status Status="FAILURE" Message="wrong password for user alice"/></NgamsStatus>'
    proxy.answer = lambda request, forward: http_reply(401, refusal)
    with pytest.raises(AccessRefused, match="DLG_ML_NGAS_PASSWORD") as caught:
        client.server_status()
    assert "heim" not in str(caught.value)


@pytest.fixture
def second_proxy(server: Any, proxy: Any) -> Iterator[Any]:
    standing = type(proxy)((server.host, server.port))
    yield standing
    standing.close()


@pytest.mark.integration
def test_credentials_do_not_follow_a_redirect_to_another_server(
    alice: Credentials,
    proxy: Any,
    second_proxy: Any,
    http_reply: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def elsewhere(request: Any, forward: Callable[[], bytes]) -> bytes:
        target = request.head.split(b" ")[1].decode()
        return http_reply(303, "", Location=f"http://{second_proxy.host}:{second_proxy.port}{target}")

    proxy.answer = elsewhere
    client = NgasClient(proxy.host, proxy.port, patience=0)
    assert client.server_status().success
    assert proxy.requests[-1].header("Authorization") is not None
    assert second_proxy.requests[-1].header("Authorization") is None

    monkeypatch.setenv("DLG_ML_NGAS_HOSTS", f"{second_proxy.host}:{second_proxy.port}")
    assert client.server_status().success
    assert second_proxy.requests[-1].header("Authorization") is not None


@pytest.mark.integration
@pytest.mark.parametrize(
    "location", ["", "https://archive/", "file:///etc/passwd", "http://user:geheim@archive/", "/here"]
)
def test_a_redirect_to_nowhere_is_an_error(proxy: Any, http_reply: Callable[..., bytes], location: str) -> None:
    proxy.answer = lambda request, forward: http_reply(303, "", Location=location)
    with pytest.raises(ProtocolError, match="redirects nowhere useful"):
        NgasClient(proxy.host, proxy.port, patience=0).server_status()


@pytest.mark.integration
def test_redirects_in_a_circle_end(proxy: Any, http_reply: Callable[..., bytes]) -> None:
    proxy.answer = lambda request, forward: http_reply(303, "", Location=f"http://{proxy.host}:{proxy.port}/STATUS")
    with pytest.raises(ProtocolError, match="redirects, the last to"):
        NgasClient(proxy.host, proxy.port, patience=0).server_status()
    assert len(proxy.requests) == 3
