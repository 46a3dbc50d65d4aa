"""MLflow's contract of artifact repositories: the archive directly, behind the local cache, and through a real tracking
server, with MLflow's own folder as the yardstick."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow.exceptions import MlflowException, MlflowTraceDataNotFound
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from requests import HTTPError

BACK_ENDS = ["direct", "cached", pytest.param("proxied", marks=pytest.mark.integration), "local"]
OURS = ("direct", "cached")


class BackEnd(NamedTuple):
    name: str
    repository: ArtifactRepository


def _open(name: str, root: str, request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactRepository:
    if name == "cached":
        environment = request.getfixturevalue("monkeypatch")
        environment.setenv("DLG_ML_NGAS_CACHE", "online")
        environment.setenv("DLG_ML_NGAS_CACHE_DIR", str(tmp_path.with_name(f"{tmp_path.name}-cache")))
    if name in OURS:
        return get_artifact_repository(f"{request.getfixturevalue('archive')}/contract/{root}")
    if name == "proxied":
        server = request.getfixturevalue("tracking_server")
        return get_artifact_repository(f"mlflow-artifacts:/contract/{root}", tracking_uri=server)
    return get_artifact_repository(str(tmp_path.with_name(f"{tmp_path.name}-store") / root))


@pytest.fixture(params=BACK_ENDS)
def back_end(request: pytest.FixtureRequest, tmp_path: Path) -> BackEnd:
    """An empty repository of each kind."""
    return BackEnd(request.param, _open(request.param, uuid.uuid4().hex, request, tmp_path))


@pytest.fixture
def repository(back_end: BackEnd) -> ArtifactRepository:
    return back_end.repository


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fetched(repository: ArtifactRepository, path: str, destination: Path) -> Path:
    destination.mkdir(parents=True, exist_ok=True)
    return Path(repository.download_artifacts(path, str(destination)))


FILES = {"a.txt": b"a", "sub/b.txt": b"bb", "sub/deeper/c.bin": bytes(range(256)) * 300}


# --- uploads ---


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("directory", [None, "d", "d/e"])
def test_a_file_is_stored_under_its_own_name_in_the_directory(
    repository: ArtifactRepository, tmp_path: Path, kind: type, directory: str | None
) -> None:
    write(tmp_path, {"x.bin": b"content"})
    repository.log_artifact(kind(tmp_path / "x.bin"), directory)
    stored = f"{directory}/x.bin" if directory else "x.bin"
    assert [info.path for info in repository.list_artifacts(directory)] == [stored]
    assert fetched(repository, stored, tmp_path / "out").read_bytes() == b"content"


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("directory", [None, "d/e"])
def test_the_content_of_a_folder_is_stored_and_comes_back(
    repository: ArtifactRepository, tmp_path: Path, kind: type, directory: str | None
) -> None:
    repository.log_artifacts(kind(write(tmp_path / "in", FILES)), directory)
    got = fetched(repository, directory or "", tmp_path / "out")
    assert got == tmp_path / "out" / (directory or "")
    assert contents(got) == FILES


def test_a_file_stored_again_is_replaced(repository: ArtifactRepository, tmp_path: Path) -> None:
    for content in (b"first, and longer", b"second"):
        repository.log_artifact(write(tmp_path, {"x.bin": content}) / "x.bin", "p")
    assert [(info.path, info.file_size) for info in repository.list_artifacts("p")] == [("p/x.bin", 6)]
    assert fetched(repository, "p/x.bin", tmp_path / "out").read_bytes() == b"second"


def test_an_empty_file_comes_back_empty(repository: ArtifactRepository, tmp_path: Path) -> None:
    repository.log_artifact(write(tmp_path, {"empty": b""}) / "empty")
    assert [info.path for info in repository.list_artifacts()] == ["empty"]
    assert fetched(repository, "empty", tmp_path / "out").read_bytes() == b""


@pytest.mark.parametrize("path", ["../up", "..", "/absolute", "a//b", ".", "./a", "a/../b", "a/", "..dots"])
def test_a_directory_to_write_to_must_be_plain_and_below_the_root(
    repository: ArtifactRepository, tmp_path: Path, path: str
) -> None:
    write(tmp_path / "in", {"x": b"1"})
    with pytest.raises(MlflowException, match="Invalid artifact path"):
        repository.log_artifact(str(tmp_path / "in" / "x"), path)
    assert repository.list_artifacts() == []


def test_a_file_that_is_not_there_is_not_stored(repository: ArtifactRepository, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        repository.log_artifact(str(tmp_path / "no such file"))
    assert repository.list_artifacts() == []


# --- looking ---


def test_a_listing_is_sorted_relative_to_the_root_and_shows_direct_children_with_sizes(
    repository: ArtifactRepository, tmp_path: Path
) -> None:
    repository.log_artifacts(str(write(tmp_path, {"b": b"bb", "a": b"a", "c/x": b"xxx", "c/d/y": b"", "Z": b"z"})))
    assert [(info.path, info.is_dir, info.file_size) for info in repository.list_artifacts()] == [
        ("Z", False, 1),
        ("a", False, 1),
        ("b", False, 2),
        ("c", True, None),
    ]
    assert [(info.path, info.is_dir) for info in repository.list_artifacts("c")] == [("c/d", True), ("c/x", False)]


def test_none_and_an_empty_path_mean_the_root(repository: ArtifactRepository, tmp_path: Path) -> None:
    repository.log_artifacts(str(write(tmp_path, FILES)))
    assert repository.list_artifacts(None) == repository.list_artifacts("") != []


@pytest.mark.parametrize("path", ["f", "missing", "f/below a file", "missing/deeper"])
def test_a_file_and_a_missing_path_have_no_children(repository: ArtifactRepository, tmp_path: Path, path: str) -> None:
    repository.log_artifact(str(write(tmp_path, {"f": b"1"}) / "f"))
    assert repository.list_artifacts(path) == []


def test_only_directories_are_directories(repository: ArtifactRepository, tmp_path: Path) -> None:
    repository.log_artifacts(str(write(tmp_path, FILES)))
    assert repository._is_directory("sub")
    assert not repository._is_directory("a.txt")
    assert not repository._is_directory("missing")


# --- downloads ---


@pytest.mark.parametrize("path", ["", None])
def test_all_of_a_repository_is_downloaded_into_the_folder_itself(
    repository: ArtifactRepository, tmp_path: Path, path: str | None
) -> None:
    repository.log_artifacts(str(write(tmp_path / "in", FILES)))
    (tmp_path / "out").mkdir()
    assert repository.download_artifacts(path, str(tmp_path / "out")) == str(tmp_path / "out")
    assert contents(tmp_path / "out") == FILES


def test_an_empty_repository_is_downloaded_as_an_empty_folder(repository: ArtifactRepository, tmp_path: Path) -> None:
    assert repository.download_artifacts("", str(tmp_path)) == str(tmp_path)


def test_a_download_goes_beside_what_the_folder_holds(repository: ArtifactRepository, tmp_path: Path) -> None:
    repository.log_artifacts(str(write(tmp_path / "in", FILES)), "m")
    write(tmp_path / "out", {"m/mine": b"kept", "m/a.txt": b"replaced"})
    fetched(repository, "m", tmp_path / "out")
    assert contents(tmp_path / "out" / "m") == {**FILES, "mine": b"kept"}


def test_without_a_folder_a_download_goes_to_one_that_may_be_written(
    repository: ArtifactRepository, tmp_path: Path
) -> None:
    repository.log_artifacts(str(write(tmp_path / "in", FILES)), "m")
    got = Path(repository.download_artifacts("m"))
    # MLflow itself does so after models:/ downloads.
    (got / "registered_model_meta").write_text("x")
    assert contents(got) == {**FILES, "registered_model_meta": b"x"}


@pytest.mark.parametrize("path", ["missing", "sub/missing", "a.txt/below a file"])
def test_a_missing_artifact_is_an_error_and_leaves_no_file(back_end: BackEnd, tmp_path: Path, path: str) -> None:
    back_end.repository.log_artifacts(str(write(tmp_path / "in", FILES)))
    with pytest.raises(MlflowException) as caught:
        fetched(back_end.repository, path, tmp_path / "out")
    # MLflow's REST client makes INTERNAL_ERROR of the server's 404.
    expected = "INTERNAL_ERROR" if back_end.name == "proxied" else "RESOURCE_DOES_NOT_EXIST"
    assert caught.value.error_code == expected
    assert contents(tmp_path / "out") == {}


def test_a_place_to_download_to_must_be_a_folder_that_exists(repository: ArtifactRepository, tmp_path: Path) -> None:
    repository.log_artifact(str(write(tmp_path, {"x": b"1"}) / "x"))
    for place, code, words in (
        (tmp_path / "none", "RESOURCE_DOES_NOT_EXIST", "not exist"),
        (tmp_path / "x", "INVALID_PARAMETER_VALUE", "a directory"),
    ):
        with pytest.raises(MlflowException, match=words) as caught:
            repository.download_artifacts("x", str(place))
        assert caught.value.error_code == code


@pytest.mark.parametrize("path", ["../outside", "a/../../outside", "/etc/passwd"])
def test_nothing_outside_the_root_is_listed_downloaded_or_deleted(
    request: pytest.FixtureRequest, tmp_path: Path, back_end: BackEnd, path: str
) -> None:
    root = uuid.uuid4().hex
    above, inside = (_open(back_end.name, name, request, tmp_path) for name in (root, f"{root}/inside"))
    above.log_artifact(str(write(tmp_path, {"outside": b"secret"}) / "outside"))
    for attempt in (inside.list_artifacts, lambda path: fetched(inside, path, tmp_path / "out")):
        with pytest.raises((MlflowException, HTTPError)):
            attempt(path)
    assert [info.path for info in above.list_artifacts()] == ["outside"]
    assert not (tmp_path / "outside" / "out").exists()


# --- deleting ---


def test_files_and_directories_are_deleted_and_deleting_again_is_no_error(
    repository: ArtifactRepository, tmp_path: Path
) -> None:
    repository.log_artifacts(str(write(tmp_path, {**FILES, "sub2/x": b"1"})))
    for path in ("a.txt", "a.txt", "sub", "sub", "never/was"):
        repository.delete_artifacts(path)
    assert [info.path for info in repository.list_artifacts()] == ["sub2"]
    assert repository.list_artifacts("sub/deeper") == []


@pytest.mark.parametrize("path", [None, ""])
def test_the_root_is_deleted_with_everything_and_may_be_filled_again(
    repository: ArtifactRepository, tmp_path: Path, path: str | None
) -> None:
    repository.log_artifacts(str(write(tmp_path, FILES)))
    repository.delete_artifacts(path)
    repository.delete_artifacts(path)
    assert repository.list_artifacts() == []
    repository.log_artifact(str(tmp_path / "a.txt"))
    assert [info.path for info in repository.list_artifacts()] == ["a.txt"]


def test_a_directory_may_be_deleted_with_a_trailing_slash(repository: ArtifactRepository, tmp_path: Path) -> None:
    repository.log_artifacts(str(write(tmp_path, FILES)))
    repository.delete_artifacts("sub/")
    assert [info.path for info in repository.list_artifacts()] == ["a.txt"]


def test_a_name_that_begins_like_another_is_another(
    request: pytest.FixtureRequest, tmp_path: Path, back_end: BackEnd
) -> None:
    root = uuid.uuid4().hex
    run, longer = (_open(back_end.name, f"{root}/{run}", request, tmp_path) for run in ("abc", "abcd"))
    write(tmp_path / "in", {"x": b"1"})
    longer.log_artifact(str(tmp_path / "in" / "x"), "def")
    assert run.list_artifacts() == []
    run.log_artifact(str(tmp_path / "in" / "x"), "de")
    assert contents(fetched(run, "", tmp_path / "out")) == {"de/x": b"1"}
    run.delete_artifacts("d")
    run.delete_artifacts()
    assert contents(fetched(longer, "", tmp_path / "out2")) == {"def/x": b"1"}


# --- names ---

NAMES_FOR_EVERYONE = [
    "with space",
    "naïve",
    unicodedata.normalize("NFD", "naïve"),
    "日本語.txt",
    "🛰️",
    "a+b&c=d;e,f@g",
    'it\'s "quoted" ~ [1] {2} | * \\',
    ".hidden",
    "-dash",
    "a..b",
    "x" * 200,
    "MLmodel",
    "twice.bin.bin",
]
# MLflow's REST client sends URLs unquoted, and its local repository cannot read these back.
NAMES_FOR_THE_ARCHIVE = [
    " leading and trailing ",
    "ha#sh",
    "quest?ion",
    "per%20cent",
    "100%",
    "%2e%2e",
    "tab\tnewline\n",
    "file:abc",
    "C:win",
    "\x7f",
    "é" * 100,
    "*",
    "[a]",
    "m?del",
    "a=3Db",
]


def test_odd_names_of_files_come_back_as_they_went(back_end: BackEnd, tmp_path: Path) -> None:
    names = NAMES_FOR_EVERYONE + (NAMES_FOR_THE_ARCHIVE if back_end.name in OURS else [])
    files = {name: name.encode() for name in names}
    back_end.repository.log_artifacts(str(write(tmp_path / "in", files)), "odd")
    assert [info.path for info in back_end.repository.list_artifacts("odd")] == sorted(f"odd/{name}" for name in names)
    assert contents(fetched(back_end.repository, "odd", tmp_path / "out")) == files
    for name in names:
        got = fetched(back_end.repository, f"odd/{name}", tmp_path / "single")
        assert (got.name, got.read_bytes()) == (name, name.encode())
    for name in names:
        back_end.repository.delete_artifacts(f"odd/{name}")
    assert back_end.repository.list_artifacts("odd") == []


def test_odd_names_of_directories_come_back_as_they_went(back_end: BackEnd, tmp_path: Path) -> None:
    names = NAMES_FOR_EVERYONE + (NAMES_FOR_THE_ARCHIVE if back_end.name in OURS else [])
    for number, name in enumerate(names):
        write(tmp_path / "in", {"file": str(number).encode()})
        back_end.repository.log_artifact(str(tmp_path / "in" / "file"), name)
    assert [info.path for info in back_end.repository.list_artifacts()] == sorted(names)
    for number, name in enumerate(names):
        assert [info.path for info in back_end.repository.list_artifacts(name)] == [f"{name}/file"]
        assert contents(fetched(back_end.repository, name, tmp_path / "out")) == {"file": str(number).encode()}
        back_end.repository.delete_artifacts(name)
        assert back_end.repository.list_artifacts(name) == []


# --- at the same time, and elsewhere ---


def test_one_repository_serves_many_threads(repository: ArtifactRepository, tmp_path: Path) -> None:
    def work(number: int) -> tuple[list[str], dict[str, bytes]]:
        files = {f"f{number}.{i}": f"{number} {i}".encode() * 100 for i in range(3)}
        repository.log_artifacts(str(write(tmp_path / f"in{number}", files)), f"shared/{number}")
        repository.log_artifact(str(tmp_path / f"in{number}" / f"f{number}.0"), "shared")
        listed = [info.path for info in repository.list_artifacts(f"shared/{number}")]
        return listed, contents(fetched(repository, f"shared/{number}", tmp_path / f"out{number}"))

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(work, range(16)))
    for number, (listed, got) in enumerate(results):
        assert listed == [f"shared/{number}/f{number}.{i}" for i in range(3)]
        assert got == {f"f{number}.{i}": f"{number} {i}".encode() * 100 for i in range(3)}
    assert sum(not info.is_dir for info in repository.list_artifacts("shared")) == 16


def test_another_process_needs_nothing_but_the_location(repository: ArtifactRepository, tmp_path: Path) -> None:
    write(tmp_path, {"x": b"from the other"})
    program = (
        "import sys; from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository as get;"
        "get(sys.argv[1], tracking_uri=sys.argv[2]).log_artifact(sys.argv[3], 'there')"
    )
    arguments = [repository.artifact_uri, repository.tracking_uri or "", str(tmp_path / "x")]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)
    assert contents(fetched(repository, "there", tmp_path / "out")) == {"x": b"from the other"}


# --- traces ---


def test_traces_and_their_attachments_come_back(repository: ArtifactRepository, tmp_path: Path) -> None:
    repository.upload_trace_data('{"spans": [1]}')
    assert repository.download_trace_data() == {"spans": [1]}
    repository.upload_archived_trace_data_bytes(b"protobuf")
    assert fetched(repository, "traces.pb", tmp_path / "out").read_bytes() == b"protobuf"
    attachment = str(uuid.uuid4())
    repository.upload_attachment(attachment, b"picture")
    assert repository.download_trace_attachment(attachment) == b"picture"


def test_a_missing_trace_is_reported_as_such(repository: ArtifactRepository) -> None:
    with pytest.raises(MlflowTraceDataNotFound):
        repository.download_trace_data()
