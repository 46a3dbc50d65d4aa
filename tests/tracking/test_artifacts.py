"""MLflow's artifact repository on an embedded archive: what it adds to MLflow's contract."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tracemalloc
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import mlflow.store.artifact.host_policy as mlflow_policy
import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import StreamUploadMixin
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.request_utils import _TRANSIENT_FAILURE_RESPONSE_CODES

from dlg_ml_tasks.archive import ArchiveFull, ArchiveUnreachable, FileNotInArchive, NgasFileSystem, errors
from dlg_ml_tasks.archive.errors import NgasError, NotInCache
from dlg_ml_tasks.archive.server import EmbeddedNgas, Limits
from dlg_ml_tasks.tracking.artifact_errors import told_to_mlflow
from dlg_ml_tasks.tracking.artifacts import SERVER_ROOTS, NgasArtifactRepository


@pytest.fixture
def location(archive: str) -> str:
    """Where nothing is yet."""
    return f"{archive}/repository/{uuid.uuid4().hex}"


@pytest.fixture
def repository(location: str) -> NgasArtifactRepository:
    return get_artifact_repository(location)


def _write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def _listed(repository: NgasArtifactRepository, path: str | None = None) -> list[str]:
    return [info.path for info in repository.list_artifacts(path)]


# --- names ---


def test_a_query_in_the_location_is_no_part_of_a_path(repository: NgasArtifactRepository, tmp_path: Path) -> None:
    repository.log_artifact(_write(tmp_path, {"x": b"1"}) / "x")
    assert _listed(NgasArtifactRepository(f"{repository.artifact_uri}?x=1")) == ["x"]


@pytest.mark.parametrize(
    "location", ["ngas:///path", "ngas://user:secret@host/x", "ngas://ho st/x", "ngas://h:99999/x", "ngas://h/a/../b"]
)
def test_a_location_that_names_no_archive_is_refused_without_repeating_a_password(location: str) -> None:
    with pytest.raises(MlflowException) as caught:
        NgasArtifactRepository(location)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert "secret" not in str(caught.value)


def test_a_file_may_have_a_name_that_begins_with_dots(repository: NgasArtifactRepository, tmp_path: Path) -> None:
    repository.log_artifacts(_write(tmp_path / "in", {"..dots": b"1"}))
    assert Path(repository.download_artifacts("..dots", str(tmp_path))).read_bytes() == b"1"


def test_deleting_a_missing_name_that_looks_like_a_pattern_deletes_nothing_else(
    repository: NgasArtifactRepository, tmp_path: Path
) -> None:
    repository.log_artifact(_write(tmp_path, {"model1": b"1"}) / "model1")
    repository.delete_artifacts("model[1]")
    assert _listed(repository) == ["model1"]


@pytest.mark.parametrize("path", [".", "./", "a/..", "/"])
def test_no_spelling_of_the_root_but_an_empty_one_deletes_it(
    repository: NgasArtifactRepository, tmp_path: Path, path: str
) -> None:
    repository.log_artifact(_write(tmp_path, {"x": b"1"}) / "x")
    with pytest.raises(MlflowException):
        repository.delete_artifacts(path)
    assert _listed(repository) == ["x"]


# --- uploads ---


def test_directories_without_files_are_kept(repository: NgasArtifactRepository, tmp_path: Path) -> None:
    (_write(tmp_path / "in", {"x": b"1"}) / "empty" / "deeper").mkdir(parents=True)
    (tmp_path / "in" / "[a]").mkdir()
    repository.log_artifacts(tmp_path / "in", "m")
    got = Path(repository.download_artifacts("m", str(tmp_path)))
    assert sorted(path.relative_to(got).as_posix() for path in got.rglob("*")) == ["[a]", "empty", "empty/deeper", "x"]
    assert list(Path(repository.download_artifacts("m/[a]", str(tmp_path / "in"))).iterdir()) == []


def test_links_are_followed(repository: NgasArtifactRepository, tmp_path: Path) -> None:
    _write(tmp_path / "elsewhere", {"x": b"1"})
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "file").symlink_to(tmp_path / "elsewhere" / "x")
    repository.log_artifacts(tmp_path / "in")
    assert _listed(repository) == ["file", "folder"]
    assert _listed(repository, "folder") == ["folder/x"]


def _loop(folder: Path) -> None:
    (folder / "loop").symlink_to(folder)


def _dangling(folder: Path) -> None:
    (folder / "dangling").symlink_to(folder / "nothing")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def _gone(folder: Path) -> None:
    (folder / "x").unlink()
    folder.rmdir()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_loop, "in/loop is a link to a directory that holds it"),
        (_dangling, "in/dangling"),
        (_pipe, "in/pipe is not a regular file"),
        (_gone, "in"),
    ],
)
def test_nothing_of_a_folder_is_stored_if_not_all_of_it_can_be(
    repository: NgasArtifactRepository, tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    spoil(_write(tmp_path / "in", {"x": b"1"}))
    with pytest.raises(OSError, match=f"{tmp_path}/{reason}"):
        repository.log_artifacts(tmp_path / "in")
    assert _listed(repository) == []


def test_a_folder_is_no_file(repository: NgasArtifactRepository, tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="log_artifacts"):
        repository.log_artifact(tmp_path)


# --- streams ---


class _Broken(io.RawIOBase):
    """Gives some bytes and then breaks."""

    def __init__(self) -> None:
        self._left = 3 << 20

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            raise ConnectionResetError("the client went away")
        count = min(len(buffer), self._left)
        self._left -= count
        return count


async def _chunks(stream: io.RawIOBase | io.BytesIO) -> AsyncIterator[bytes]:
    while chunk := stream.read(1000):
        yield chunk


def _store(repository: NgasArtifactRepository, stream: Any, name: str, path: str | None) -> None:
    repository.log_artifact_from_stream(stream, name, path)


def _store_async(repository: NgasArtifactRepository, stream: Any, name: str, path: str | None) -> None:
    asyncio.run(repository.log_artifact_from_async_stream(_chunks(stream), name, path))


STREAMS = pytest.mark.parametrize("store", [_store, _store_async])


def test_the_tracking_server_may_hand_over_streams(repository: NgasArtifactRepository) -> None:
    assert isinstance(repository, StreamUploadMixin)


@STREAMS
@pytest.mark.parametrize("size", [0, 1, 12_345, 3 << 20])
@pytest.mark.parametrize("cache", ["off", "online"])
def test_a_stream_is_stored_as_a_file(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Callable[..., None], size: int, cache: str
) -> None:
    monkeypatch.setenv("DLG_ML_NGAS_CACHE", cache)
    monkeypatch.setenv("DLG_ML_NGAS_CACHE_DIR", str(tmp_path / "cache"))
    repository = NgasArtifactRepository(location)
    content = os.urandom(size)
    store(repository, io.BytesIO(content), "ignored/x.bin", "d")
    assert _listed(repository, "d") == ["d/x.bin"]
    assert Path(repository.download_artifacts("d/x.bin", str(tmp_path))).read_bytes() == content


@STREAMS
def test_a_stream_that_breaks_leaves_what_was_there(
    repository: NgasArtifactRepository, tmp_path: Path, store: Callable[..., None]
) -> None:
    repository.log_artifact(_write(tmp_path, {"x.bin": b"whole"}) / "x.bin")
    for name in ("x.bin", "new.bin"):
        with pytest.raises(ConnectionResetError):
            store(repository, _Broken(), name, None)
    assert _listed(repository) == ["x.bin"]
    assert Path(repository.download_artifacts("x.bin", str(tmp_path / "x.bin" / ".."))).read_bytes() == b"whole"


@STREAMS
def test_a_stream_is_not_kept_in_memory(repository: NgasArtifactRepository, store: Callable[..., None]) -> None:
    class Zeros(io.RawIOBase):
        left = 96 << 20

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            count = min(1 << 20, self.left)
            self.left -= count
            return bytes(count)

    tracemalloc.start()
    try:
        store(repository, Zeros(), "zeros", None)
        # This process holds the archive's server, too.
        assert tracemalloc.get_traced_memory()[1] < 48 << 20
    finally:
        tracemalloc.stop()
    assert [info.file_size for info in repository.list_artifacts()] == [96 << 20]


def test_a_download_shows_its_progress_as_mlflow_does(
    repository: NgasArtifactRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    repository.log_artifacts(_write(tmp_path / "in", {str(number): b"x" for number in range(40)}), "m")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "true")
    repository.download_artifacts("m", str(tmp_path))
    assert "Downloading artifacts: 100%" in capsys.readouterr().err


# --- requests ---


def test_asking_whether_a_path_is_a_directory_is_one_exact_request(
    relay: Any, repository: NgasArtifactRepository, location: str, archive: str, tmp_path: Path
) -> None:
    packed = {f"many/{number}": b"1" for number in range(40)}
    repository.log_artifacts(_write(tmp_path, {"sub/x": b"1", **packed}))
    seen = get_artifact_repository(location.replace(archive, relay.url))
    for path, expected in (("sub", True), ("sub/x", False), ("many", True), ("many/7", False), ("none", False)):
        relay.commands.clear()
        assert seen._is_directory(path) is expected
        assert relay.commands == ["STATUS"]


def test_building_a_repository_asks_nothing(relay: Any) -> None:
    get_artifact_repository(f"{relay.url}/x")
    assert relay.commands == []


# --- failures ---


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> NgasArtifactRepository:
    """A repository whose archive does not run."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    repository = NgasArtifactRepository(f"ngas://127.0.0.1:{port}/x")
    monkeypatch.setattr(repository, "_fs", NgasFileSystem("127.0.0.1", port, patience=0, skip_instance_cache=True))
    return repository


@pytest.mark.parametrize(
    "call",
    [
        lambda repository, folder: repository.list_artifacts(),
        lambda repository, folder: repository._is_directory("x"),
        lambda repository, folder: repository.log_artifact(folder / "x"),
        lambda repository, folder: repository.log_artifacts(folder),
        lambda repository, folder: repository.download_artifacts("x", str(folder)),
        lambda repository, folder: repository._download_file(remote_file_path="x", local_path=str(folder / "y")),
        lambda repository, folder: repository.delete_artifacts("x"),
        lambda repository, folder: _store(repository, io.BytesIO(b"1"), "x", None),
        lambda repository, folder: _store_async(repository, io.BytesIO(b"1"), "x", None),
    ],
)
def test_an_archive_that_does_not_answer_is_told_in_mlflows_words(
    nobody: NgasArtifactRepository, tmp_path: Path, call: Callable[[NgasArtifactRepository, Path], object]
) -> None:
    folder = _write(tmp_path / "in", {"x": b"1"})
    with pytest.raises(MlflowException, match="Check that the server runs") as caught:
        call(nobody, folder)
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"
    assert isinstance(caught.value.__cause__, ArchiveUnreachable)
    assert [path.name for path in folder.iterdir()] == ["x"]


def test_a_missing_file_keeps_the_archives_error_as_its_cause(
    repository: NgasArtifactRepository, tmp_path: Path
) -> None:
    with pytest.raises(MlflowException, match=r"no/such\.bin") as caught:
        repository._download_file(remote_file_path="no/such.bin", local_path=str(tmp_path / "such.bin"))
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert isinstance(caught.value.__cause__, FileNotInArchive)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_not_downloaded_as_a_file(repository: NgasArtifactRepository, tmp_path: Path) -> None:
    repository.log_artifacts(_write(tmp_path / "in", {"sub/x": b"1"}))
    with pytest.raises(MlflowException, match="is a directory"):
        repository._download_file(remote_file_path="sub", local_path=str(tmp_path / "sub"))
    assert not (tmp_path / "sub").exists()


def test_a_file_does_not_take_a_directorys_place(repository: NgasArtifactRepository, tmp_path: Path) -> None:
    repository.log_artifacts(_write(tmp_path / "in", {"x/y": b"1", "z": b"2"}))
    for name, directory in (("x", None), ("y", "z")):
        with pytest.raises(MlflowException) as caught:
            repository.log_artifact(_write(tmp_path, {name: b"3"}) / name, directory)
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert _listed(repository) == ["x", "z"]


def test_a_full_archive_is_a_refusal_that_clients_do_not_repeat_for_minutes(tmp_path: Path) -> None:
    with EmbeddedNgas(tmp_path / "ngas", limits=Limits(minimum_free_bytes=1 << 60)) as server:
        repository = NgasArtifactRepository(f"ngas://{server.host}:{server.port}/x")
        with pytest.raises(MlflowException, match="Free space") as caught:
            repository.log_artifacts(_write(tmp_path / "in", {"x": b"1"}))
    assert isinstance(caught.value.__cause__, ArchiveFull)
    assert caught.value.get_http_status_code() == 409


def test_only_what_may_pass_by_itself_gets_a_code_on_which_mlflows_clients_try_again_for_minutes() -> None:
    codes = {}
    for error in {cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, NgasError)}:
        with pytest.raises(MlflowException) as caught, told_to_mlflow("try"):
            raise error("said the server")
        codes[error.__name__] = caught.value.get_http_status_code()
    repeated = {name for name, code in codes.items() if code in _TRANSIENT_FAILURE_RESPONSE_CODES}
    assert repeated == {
        *("NgasError", "ProtocolError", "ChecksumMismatch"),
        *("ArchiveOverloaded", "ArchiveOffline", "ArchiveUnreachable"),
    }


# --- the local cache ---


def test_downloads_come_from_the_cache_and_the_cache_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"x": b"one", "sub/y": b"two", **{f"many/{number}": b"%d" % number for number in range(30)}}
    monkeypatch.setenv("DLG_ML_NGAS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DLG_ML_NGAS_CACHE", "online")
    with EmbeddedNgas(tmp_path / "ngas") as server:
        location = f"ngas://{server.host}:{server.port}/x"
        NgasArtifactRepository(location).log_artifacts(_write(tmp_path / "in", files), "m")
        first = Path(NgasArtifactRepository(location).download_artifacts("m"))
    monkeypatch.setenv("DLG_ML_NGAS_CACHE", "offline")
    # MLflow writes into what was downloaded.
    (first / "x").write_bytes(b"spoilt")
    (first / "registered_model_meta").write_bytes(b"1")
    again = Path(NgasArtifactRepository(location).download_artifacts("m"))
    assert {
        path.relative_to(again).as_posix(): path.read_bytes() for path in again.rglob("*") if path.is_file()
    } == files
    with pytest.raises(MlflowException, match="DLG_ML_NGAS_CACHE=online") as caught:
        NgasArtifactRepository(location).download_artifacts("never read")
    assert isinstance(caught.value.__cause__, NotInCache)


# --- on a tracking server ---


def test_the_marks_of_a_server_process_are_mlflows_own() -> None:
    assert SERVER_ROOTS == (
        mlflow_policy._SERVER_ARTIFACT_ROOT_ENV_VAR,
        mlflow_policy._SERVER_ARTIFACTS_DESTINATION_ENV_VAR,
    )


@pytest.mark.parametrize("variable", SERVER_ROOTS)
def test_a_server_contacts_only_the_archives_it_was_configured_with(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(SERVER_ROOTS[0], "./mlruns")
    monkeypatch.setenv(variable, "ngas://archive.example/mlflow")
    for same in ("ngas://archive.example:7777/other", "ngas://ARCHIVE.example/mlflow/1"):
        NgasArtifactRepository(same)
    for other in ("ngas://evil.example:99/x", "ngas://archive.example:7778/x", "ngas://archive.example.evil/x"):
        with pytest.raises(MlflowException, match=r"archive\.example:7777") as caught:
            NgasArtifactRepository(other)
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_a_server_contacts_the_archives_that_its_operator_lists_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER_ROOTS[0], "ngas://new.example/mlflow")
    monkeypatch.setenv("DLG_ML_NGAS_HOSTS", "old.example, older.example:7780")
    NgasArtifactRepository("ngas://old.example/mlflow")
    with pytest.raises(MlflowException, match="does not contact"):
        NgasArtifactRepository("ngas://older.example/mlflow")


def test_a_client_contacts_any_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SERVER_ROOTS[0], raising=False)
    NgasArtifactRepository("ngas://any.example:99/x")
