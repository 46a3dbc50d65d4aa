"""load_raw takes files from wherever fsspec reaches."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec
import pytest

from dlg_ml_tasks.tasks import BadInput, load_raw
from dlg_ml_tasks.tracking.files import download, download_artifact

pytestmark = pytest.mark.usefixtures("tracking")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "web"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_comes_from_a_web_server(web: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = web
    (folder / "x.bin").write_bytes(b"from the web")
    outcome = load_raw.run({"sources": f"{url}/x.bin"})
    assert (download(outcome.reference, tmp_path / "out") / "x.bin").read_bytes() == b"from the web"


def test_a_missing_page_is_named(web: tuple[str, Path]) -> None:
    with pytest.raises(BadInput, match=r"/missing\.bin"):
        load_raw.run({"sources": f"{web[0]}/missing.bin"})


def test_files_come_from_an_archive_by_pattern(archive: str, tmp_path: Path) -> None:
    fs, path = fsspec.url_to_fs(f"{archive}/incoming-{tmp_path.name}")
    for name in ("a.uvh5", "b.uvh5", "notes.txt"):
        fs.pipe_file(f"{path}/{name}", name.encode())
    outcome = load_raw.run({"sources": f"{archive}{path}/*.uvh5"})
    assert outcome.metrics["files"] == 2


def test_a_folder_is_loaded_with_its_subfolders_and_every_file_has_its_checksum(tmp_path: Path) -> None:
    (tmp_path / "night" / "late").mkdir(parents=True)
    contents = {"one.bin": b"1", "late/two.bin": b"22"}
    for name, content in contents.items():
        (tmp_path / "night" / name).write_bytes(content)
    outcome = load_raw.run({"sources": str(tmp_path / "night")})
    folder = download(outcome.reference, tmp_path / "out")
    assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == contents
    table = download_artifact(outcome.run_id, "sources.json", tmp_path / "table")
    assert table is not None
    rows = {row["name"]: row["sha256"] for row in json.loads(table.read_text())["files"]}
    assert rows == {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def test_a_scheme_that_nobody_serves_is_named() -> None:
    with pytest.raises(BadInput, match="gopher"):
        load_raw.run({"sources": "gopher://127.0.0.1/x"})
