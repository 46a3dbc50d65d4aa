"""The example of a reverse proxy, with a real nginx before a real MLflow-like server: TLS, login, hosts, uploads."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
import urllib3

EXAMPLE = Path(__file__).parents[2] / "deploy" / "proxy" / "nginx.conf"


class _Echo(BaseHTTPRequestHandler):
    """Answers with the headers it got and the size of the body."""

    def do_GET(self) -> None:
        size = len(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        answer = f"{self.server.server_port} {size}\n{self.headers}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_PUT = do_GET  # noqa: N815  the base class's names

    def log_message(self, *_: object) -> None:
        pass


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of nginx with the example's configuration, of which only ports and paths are changed."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    openssl = shutil.which("openssl")
    if nginx is None or openssl is None:
        pytest.skip("no nginx or no openssl on this machine (Debian: apt-get install nginx openssl)")
    folder = tmp_path_factory.mktemp("proxy")
    folder.chmod(0o755)
    make = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=mlflow.example.org"]
    subprocess.run(
        [*make, "-keyout", folder / "dlg-ml.key", "-out", folder / "dlg-ml.crt"], check=True, capture_output=True
    )
    hashed = subprocess.run([openssl, "passwd", "-apr1", "secret"], capture_output=True, text=True, check=True).stdout
    (folder / "dlg-ml.users").write_text(f"ann:{hashed}")
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), _Echo) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    port = free_port()
    text = EXAMPLE.read_text().replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    text = text.replace("127.0.0.1:5000", f"127.0.0.1:{servers[0].server_port}")
    text = text.replace("127.0.0.1:8050", f"127.0.0.1:{servers[1].server_port}")
    text = text.replace("/etc/nginx/dlg-ml", f"{folder}/dlg-ml").replace("/run/nginx.pid", f"{folder}/pid")
    (folder / "nginx.conf").write_text(text)
    process = subprocess.Popen(
        [nginx, "-p", folder, "-c", folder / "nginx.conf", "-g", f"daemon off; user {getpass.getuser()};"],
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"https://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
        for server in servers:
            server.shutdown()
            server.server_close()


def ask(proxy: str, host: str, auth: tuple[str, str] | None = None, body: bytes | None = None) -> requests.Response:
    method = "GET" if body is None else "PUT"
    with warnings.catch_warnings():
        # The certificate is the test's own, and names the example's host.
        warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        return requests.request(
            method, f"{proxy}/api", headers={"Host": host}, auth=auth, data=body, verify=False, timeout=30
        )


def test_mlflow_wants_a_login_and_does_not_get_to_see_it(proxy: str) -> None:
    assert ask(proxy, "mlflow.example.org").status_code == 401
    assert ask(proxy, "mlflow.example.org", ("ann", "wrong")).status_code == 401
    answer = ask(proxy, "mlflow.example.org", ("ann", "secret"))
    assert answer.status_code == 200
    assert "Host: mlflow.example.org" in answer.text
    assert "Authorization" not in answer.text


def test_an_upload_of_any_size_passes(proxy: str) -> None:
    answer = ask(proxy, "mlflow.example.org", ("ann", "secret"), body=bytes(8 << 20))
    assert answer.text.split()[1] == str(8 << 20)


def test_the_results_site_is_for_everybody(proxy: str) -> None:
    assert ask(proxy, "results.example.org").status_code == 200
