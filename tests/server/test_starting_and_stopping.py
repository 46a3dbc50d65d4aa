"""How the server starts, refuses to start, and stops."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest
import requests

from dlg_ml_tasks.archive.server import EmbeddedNgas, ServerStartError
from dlg_ml_tasks.archive.server.__main__ import main


def test_the_embedded_server_answers_at_its_url_and_only_on_loopback(server):
    assert server.host == "127.0.0.1"
    assert requests.get(f"{server.url}/STATUS", timeout=30).status_code == 200
    assert requests.get(f"http://{server.host}:{server.port}/STATUS", timeout=30).status_code == 200


def test_nothing_listens_after_the_end_and_the_port_can_be_taken_again(root):
    with EmbeddedNgas(root) as server:
        port = server.port
        requests.get(f"{server.url}/STATUS", timeout=30)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with EmbeddedNgas(root, port) as server:
        assert server.port == port


def test_an_error_inside_the_with_stops_the_server_too(root):
    with pytest.raises(KeyError), EmbeddedNgas(root) as server:
        raise KeyError
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port))


def test_a_second_server_on_the_same_root_is_refused(root, server):
    with pytest.raises(ServerStartError, match=f"{root} is already served by another NGAS server") as refused:
        EmbeddedNgas(root).__enter__()
    assert "choose another root" in str(refused.value)
    assert requests.get(f"{server.url}/STATUS", timeout=30).status_code == 200


def test_a_port_in_use_is_refused(root, server, tmp_path, capsys):
    assert main(["--root", str(tmp_path / "other"), "--port", str(server.port)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"Cannot listen on 127.0.0.1:{server.port}" in line
    assert "Choose another port" in line


def test_a_root_that_cannot_be_written_is_refused(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    for root in (file, file / "below"):
        assert main(["--root", str(root), "--port", "0"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"The root directory {root} cannot be written")


def test_a_catalogue_that_is_none_is_refused(root, capsys):
    root.mkdir()
    (root / "catalogue.sqlite").write_bytes(b"not a database at all" * 100)
    assert main(["--root", str(root), "--port", "0"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"The catalogue {root / 'catalogue.sqlite'} cannot be used" in line


def test_a_root_is_free_again_after_a_refused_start(root, server, tmp_path):
    other = tmp_path / "other"
    with pytest.raises(ServerStartError):
        EmbeddedNgas(other, server.port).__enter__()
    with EmbeddedNgas(other) as second:
        assert requests.get(f"{second.url}/STATUS", timeout=30).status_code == 200


@pytest.mark.integration
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_with_code_0(run_server, connect, stop):
    with run_server() as server:
        connect(server.url).push(b"x", filename="a.bin")
        server.process.send_signal(stop)
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.integration
def test_listening_beyond_loopback_is_warned_of_and_open_to_any_host_name(run_server, connect):
    with run_server("--host", "0.0.0.0", "--open-to-network") as server:
        assert "there is no authentication" in server.log.read_text()
        address = server.url.replace("0.0.0.0", "127.0.0.1")
        assert connect(address).get("STATUS", {"Host": "telescope.example"}).code == 200


@pytest.mark.integration
def test_listening_on_ipv6_loopback_works(run_server, connect):
    if not socket.has_ipv6:
        pytest.skip("no IPv6 on this machine")
    with run_server("--host", "::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert connect(server.url).get("STATUS").code == 200


@pytest.mark.integration
def test_the_help_names_every_option():
    command = [sys.executable, "-m", "dlg_ml_tasks.archive.server", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for option in ("--root", "--host", "--port"):
        assert option in text
