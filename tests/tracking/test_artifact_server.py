"""Artifacts through a real tracking server: clients that know no NGAS, models, garbage collection, foreign archives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import numpy as np
import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from requests import HTTPError

from dlg_ml_tasks.archive import FileStatus, NgasClient, naming, parse_address
from dlg_ml_tasks.archive.naming import Kind

pytestmark = pytest.mark.integration


@pytest.fixture
def client(tracking_server: str, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A client of the tracking server, to which MLflow's module-level functions go too."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_server)
    # Refused requests are not repeated for minutes.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    return MlflowClient(tracking_server)


@pytest.fixture(params=["direct", "proxied"])
def experiment(request: pytest.FixtureRequest, client: MlflowClient, archive: str) -> str:
    """Id of a new experiment whose artifacts clients send to the archive, or to the tracking server."""
    name = f"{request.param}-{uuid.uuid4().hex[:8]}"
    return client.create_experiment(name, artifact_location=f"{archive}/{name}" if request.param == "direct" else None)


@pytest.fixture
def run(client: MlflowClient, experiment: str) -> str:
    return client.create_run(experiment).info.run_id


@pytest.fixture
def held(archive: str) -> NgasClient:
    """For looking at what is in the archive."""
    return NgasClient(*parse_address(urlsplit(archive).netloc))


def _folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


# --- what users call ---


def test_whatever_the_client_logs_is_listed_and_comes_back(client: MlflowClient, run: str, tmp_path: Path) -> None:
    client.log_text(run, "words", "notes/a.txt")
    client.log_dict(run, {"a": [1]}, "notes/b.json")
    client.log_image(run, np.zeros((4, 4, 3), np.uint8), "pictures/c.png")
    client.log_table(run, {"x": [1, 2]}, "tables/d.json")
    client.log_artifact(run, str(_folder(tmp_path / "in", {"e.bin": b"e"}) / "e.bin"))
    client.log_artifacts(run, str(_folder(tmp_path / "many", {"f/g": b"g", "h": b"h"})), "many")
    assert [info.path for info in client.list_artifacts(run)] == ["e.bin", "many", "notes", "pictures", "tables"]
    assert [info.path for info in client.list_artifacts(run, "notes")] == ["notes/a.txt", "notes/b.json"]
    assert mlflow.artifacts.load_text(f"runs:/{run}/notes/a.txt") == "words"
    assert mlflow.artifacts.load_dict(f"runs:/{run}/notes/b.json") == {"a": [1]}
    assert mlflow.artifacts.load_image(f"runs:/{run}/pictures/c.png").size == (4, 4)
    assert mlflow.artifacts.load_dict(f"runs:/{run}/tables/d.json") == {"columns": ["x"], "data": [[1], [2]]}
    got = Path(client.download_artifacts(run, "many", str(tmp_path)))
    assert (got / "f" / "g").read_bytes() == b"g"


def test_an_image_logged_in_the_background_arrives(client: MlflowClient, run: str) -> None:
    with mlflow.start_run(run_id=run):
        mlflow.log_image(np.zeros((4, 4, 3), np.uint8), key="beam", step=1)
        mlflow.flush_artifact_async_logging()
    assert [info.path for info in client.list_artifacts(run)] == ["images"]
    assert len(client.list_artifacts(run, "images")) == 2


def test_the_web_page_shows_files_of_both_kinds_of_run(
    client: MlflowClient, run: str, tracking_server: str, tmp_path: Path
) -> None:
    client.log_text(run, "words", "notes/a.txt")
    listed = requests.get(f"{tracking_server}/ajax-api/2.0/mlflow/artifacts/list", {"run_id": run, "path": "notes"})
    assert listed.json()["files"] == [{"path": "notes/a.txt", "is_dir": False, "file_size": 5}]
    shown = requests.get(f"{tracking_server}/get-artifact", {"run_uuid": run, "path": "notes/a.txt"})
    assert (shown.status_code, shown.text) == (200, "words")
    missing = requests.get(f"{tracking_server}/get-artifact", {"run_uuid": run, "path": "notes/none"})
    assert missing.status_code == 404


@pytest.fixture
def model(client: MlflowClient, experiment: str, run: str, tmp_path: Path) -> Iterator[str]:
    """Id of a model of a few files, registered as the first version of a name like its own."""
    files = {"MLmodel": b"flavors: {}\n", "data/weights.bin": b"w" * 1000}
    model = client.create_logged_model(experiment, name="net", source_run_id=run)
    client.log_model_artifacts(model.model_id, str(_folder(tmp_path / "model", files)))
    client.finalize_logged_model(model.model_id, "READY")
    client.create_registered_model(model.model_id)
    client.create_model_version(model.model_id, f"models:/{model.model_id}", run_id=run, model_id=model.model_id)
    yield model.model_id
    client.delete_registered_model(model.model_id)


@pytest.mark.parametrize("uri", ["models:/{model}", "models:/{model}/1", "models:/{model}@best", "runs:/{run}/net"])
def test_a_model_is_downloaded_by_each_of_its_names(
    client: MlflowClient, run: str, model: str, tmp_path: Path, uri: str
) -> None:
    client.set_registered_model_alias(model, "best", "1")
    (tmp_path / "out").mkdir()
    got = Path(mlflow.artifacts.download_artifacts(uri.format(model=model, run=run), dst_path=str(tmp_path / "out")))
    files = {path.relative_to(got).as_posix() for path in got.rglob("*") if path.is_file()}
    # MLflow writes the last one itself after a download by version.
    assert files - {"registered_model_meta"} == {"MLmodel", "data/weights.bin"}
    assert (got / "data" / "weights.bin").read_bytes() == b"w" * 1000


# --- the tracking server in between ---


def test_an_upload_that_breaks_off_stores_nothing(archive: str, tracking_server: str, tmp_path: Path) -> None:
    root = uuid.uuid4().hex
    server = urlsplit(tracking_server)
    for framing in ("Content-Length: 5000000", "Transfer-Encoding: chunked"):
        with socket.create_connection((server.hostname, server.port)) as upload:
            head = f"PUT /api/2.0/mlflow-artifacts/artifacts/{root}/broken HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n"
            body = b"x" * 100_000 if "Length" in framing else b"186a0\r\n" + b"x" * 100_000 + b"\r\n"
            upload.sendall(head.encode() + body)
    repository = get_artifact_repository(f"mlflow-artifacts:/{root}", tracking_uri=tracking_server)
    repository.log_artifact(str(_folder(tmp_path, {"whole": b"1"}) / "whole"))
    assert [info.path for info in repository.list_artifacts()] == ["whole"]
    assert [info.path for info in get_artifact_repository(f"{archive}/proxied/{root}").list_artifacts()] == ["whole"]


def test_a_refusal_of_the_archive_reaches_the_servers_client(tracking_server: str) -> None:
    artifacts = f"{tracking_server}/api/2.0/mlflow-artifacts/artifacts/{uuid.uuid4().hex}"
    assert requests.put(f"{artifacts}/d/x", b"1").status_code == 200
    refused = requests.put(f"{artifacts}/d", b"1")
    assert (refused.status_code, refused.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    too_long = requests.put(f"{artifacts}/{'é' * 200}", b"1")
    assert (too_long.status_code, "400 bytes" in too_long.json()["message"]) == (400, True)
    missing = requests.get(f"{artifacts}/none")
    assert (missing.status_code, missing.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


# --- freeing space ---


def _files(held: NgasClient) -> set[FileStatus]:
    """Every copy of every version of what holds data: all but the markers of directories."""
    return {copy for copy in held.query("%") if not _is_marker(copy)}


def _is_marker(copy: FileStatus) -> bool:
    try:
        return naming.kind_of(copy.filename) is Kind.DIRECTORY
    except ValueError:
        return False


def _collect(tracking_store: Path, tracking_uri: str) -> None:
    store = f"sqlite:///{tracking_store}"
    subprocess.run(
        [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", store, "--tracking-uri", tracking_uri],
        env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_TRACKING")},
        check=True,
        capture_output=True,
    )


def test_collecting_garbage_frees_all_versions_of_a_runs_and_a_models_files(
    client: MlflowClient,
    experiment: str,
    held: NgasClient,
    tracking_server: str,
    tracking_store: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    before = _files(held)
    kept, dropped = (client.create_run(experiment).info.run_id for _ in range(2))
    # Enough small files of one folder that they may lie in one object of the archive.
    many = _folder(tmp_path / "many", {f"{number}.txt": b"%d" % number for number in range(100)})
    client.log_artifacts(kept, str(many), "many")
    of_kept = _files(held) - before
    client.log_artifacts(dropped, str(many), "many")
    client.log_text(dropped, "first", "a.txt")
    client.log_text(dropped, "second", "a.txt")
    model = client.create_logged_model(experiment, name="net", source_run_id=dropped)
    client.log_model_artifacts(model.model_id, str(_folder(tmp_path / "model", {"MLmodel": b"x", "d/w": b"y"})))
    client.finalize_logged_model(model.model_id, "READY")
    _add_versions(held, _files(held) - before - of_kept)

    client.delete_run(dropped)
    client.delete_logged_model(model.model_id)
    assert of_kept < _files(held) - before  # deleting alone frees nothing
    direct = "direct" in client.get_experiment(experiment).name
    _collect(tracking_store, f"sqlite:///{tracking_store}" if direct else tracking_server)

    assert _files(held) - before == of_kept
    assert len(client.list_artifacts(kept, "many")) == 100
    _collect(tracking_store, f"sqlite:///{tracking_store}" if direct else tracking_server)


def _add_versions(held: NgasClient, copies: set[FileStatus]) -> None:
    """As another program would that does not discard what it replaces."""
    for copy in copies:
        reply = requests.post(
            f"http://{held.address}/QARCHIVE",
            b"another version",
            params={"file_id": copy.file_id, "filename": copy.filename},
            headers={"Content-Type": "application/octet-stream"},
        )
        reply.raise_for_status()


# --- foreign archives ---


def test_a_client_cannot_make_the_server_contact_another_host(client: MlflowClient, tracking_server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        foreign.setblocking(False)
        location = f"ngas://127.0.0.1:{foreign.getsockname()[1]}/x"
        name = uuid.uuid4().hex
        run = client.create_run(client.create_experiment(name, artifact_location=location)).info.run_id
        api, ajax = f"{tracking_server}/api/2.0/mlflow", f"{tracking_server}/ajax-api/2.0/mlflow"
        answers = [
            requests.get(f"{api}/artifacts/list", {"run_id": run}),
            requests.get(f"{tracking_server}/get-artifact", {"run_uuid": run, "path": "x"}),
            requests.post(f"{ajax}/upload-artifact", b"1", params={"run_uuid": run, "path": "x"}),
        ]
        client.create_registered_model(name)
        version = {"name": name, "version": "1", "path": "MLmodel"}
        try:
            # Either refusal is well: of the location, or of what is asked of it later.
            client.create_model_version(name, f"{location}/m")
        except MlflowException as refused:
            assert refused.error_code == "INVALID_PARAMETER_VALUE"
        else:
            answers.append(requests.get(f"{tracking_server}/model-versions/get-artifact", version))
        client.delete_registered_model(name)
        for answer in answers:
            assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), answer.url
            assert "does not contact the archive" in answer.json()["message"]
        with pytest.raises(BlockingIOError):
            foreign.accept()


def test_a_client_of_the_server_is_told_of_a_missing_file(tracking_server: str, tmp_path: Path) -> None:
    repository = get_artifact_repository(f"mlflow-artifacts:/{uuid.uuid4().hex}", tracking_uri=tracking_server)
    with pytest.raises((MlflowException, HTTPError), match="404"):
        repository.download_artifacts("none", str(tmp_path))
