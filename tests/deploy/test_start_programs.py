"""The programs that start MLflow and NGAS in their containers, for as far as they go without an engine."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import psycopg
import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


def program(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"deploy_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = program(DEPLOY / "mlflow" / "serve.py")
    monkeypatch.setattr(module, "PASSFILE", tmp_path / "pgpass")
    return module


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    module = program(DEPLOY / "ngas" / "start.py")
    for name, path in {
        "ROOT": "",
        "VOLUME": "volume1",
        "DATABASE": "ngas.sqlite",
        "CONFIGURATION": "cfg/x.conf",
    }.items():
        monkeypatch.setattr(module, name, tmp_path / path)
    package = tmp_path / "site" / "ngamsSql"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "ngamsCreateTables-SQLite.sql").write_text("create table ngas_files (file_id text, file_version int);")
    monkeypatch.syspath_prepend(str(package.parent))
    yield module
    sys.modules.pop("ngamsSql", None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "cannot be read"), ("", "must hold a password"), ("a\nb\n", "must hold a password on one line")],
)
def test_a_missing_or_useless_secret_is_one_line_and_exit_code_1(
    serve: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    reason: str,
) -> None:
    if content is not None:
        (tmp_path / "secret").write_text(content)
    monkeypatch.setenv("POSTGRES_PASSWORD_FILE", str(tmp_path / "secret"))
    with pytest.raises(SystemExit) as left:
        serve.read_secret()
    assert left.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line


def test_no_name_of_a_secret_is_said_too(serve: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTGRES_PASSWORD_FILE", raising=False)
    with pytest.raises(SystemExit):
        serve.read_secret()


@pytest.mark.parametrize("url", ["http://ngas:7777/mlflow", "ngas://ngas:port/mlflow", ""])
def test_an_archive_that_is_no_url_of_one_is_refused_before_the_database_is_asked(
    serve: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    monkeypatch.setenv("DLG_ML_ARCHIVE", url)
    with pytest.raises(SystemExit) as left:
        serve.main("server")
    assert left.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mlflow: DLG_ML_ARCHIVE: ")


def test_the_password_goes_into_a_file_for_the_driver_whatever_its_characters(
    serve: ModuleType, tmp_path: Path
) -> None:
    serve.write_passfile("a:b\\c d")
    passfile = tmp_path / "pgpass"
    assert passfile.read_text() == "postgres:5432:*:mlflow:a\\:b\\\\c d\n"
    assert passfile.stat().st_mode & 0o777 == 0o600
    assert "a:b" not in serve.URI


def test_a_command_of_dlg_ml_gets_the_database_and_archive_of_the_server_and_no_password(
    serve: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    monkeypatch.setenv("POSTGRES_PASSWORD_FILE", str(tmp_path / "secret"))
    monkeypatch.setenv("DLG_ML_ARCHIVE", "ngas://archive.example.org:7777/ml")
    for name in ("PGPASSFILE", "MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION"):
        monkeypatch.setenv(name, "")  # so that it is as before in the end
    monkeypatch.setattr(serve, "wait_for_database", lambda: None)

    def become(*command: str) -> None:
        assert command == ("dlg-ml", "backup", "/backup/new")
        raise SystemExit

    monkeypatch.setattr(serve, "become", become)
    with pytest.raises(SystemExit):
        serve.main("dlg-ml", "backup", "/backup/new")
    assert os.environ["MLFLOW_BACKEND_STORE_URI"] == "postgresql+psycopg://mlflow@postgres:5432/mlflow"
    assert os.environ["MLFLOW_ARTIFACTS_DESTINATION"] == "ngas://archive.example.org:7777/ml"
    assert "s3cret" in Path(os.environ["PGPASSFILE"]).read_text()
    assert not [name for name, value in os.environ.items() if "s3cret" in value]


def test_a_database_that_is_down_is_waited_for_with_one_line_and_then_given_up(
    serve: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "HOST", "127.0.0.1")
    monkeypatch.setattr(serve, "WAIT_S", 0.1)
    monkeypatch.setattr(serve.time, "sleep", lambda seconds: None)

    def refuse(**_: object) -> None:
        raise psycopg.OperationalError("connection failed:\nConnection refused")

    monkeypatch.setattr(serve.psycopg, "connect", refuse)
    with pytest.raises(SystemExit) as left:
        serve.wait_for_database()
    assert left.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "mlflow: waiting for PostgreSQL at 127.0.0.1: Connection refused"
    assert "has not answered" in lines[-1]
    assert len(lines) == 2


def test_a_wrong_password_is_not_waited_for(serve: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise psycopg.OperationalError('FATAL:  password authentication failed for user "mlflow"')

    monkeypatch.setattr(serve.psycopg, "connect", refuse)
    with pytest.raises(SystemExit):
        serve.wait_for_database()


def test_an_empty_archive_gets_a_volume_tables_and_an_index_that_listings_use(
    start: ModuleType, tmp_path: Path
) -> None:
    for _ in range(2):
        start.make_volume()
        start.make_database()
    identity = (tmp_path / "volume1" / ".ngas_volume_info").read_bytes()
    start.make_volume()
    assert (tmp_path / "volume1" / ".ngas_volume_info").read_bytes() == identity
    with sqlite3.connect(tmp_path / "ngas.sqlite") as database:
        (plan,) = database.execute(
            "EXPLAIN QUERY PLAN SELECT * FROM ngas_files WHERE file_id LIKE ?", ("a%",)
        ).fetchall()
    database.close()
    assert "ngas_files_id_pattern" in plan[3]


def test_an_archive_without_its_configuration_says_so(start: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"x\.conf is missing; mount deploy/ngas/ngamsServer\.conf there"):
        start.main()


def test_the_archives_configuration_is_what_the_clients_rely_on() -> None:
    root = ElementTree.parse(DEPLOY / "ngas" / "ngamsServer.conf").getroot()
    server = root.find("Server")
    assert server is not None
    assert (server.get("IpAddress"), server.get("PortNo")) == ("0.0.0.0", "7777")
    assert int(server.get("MaxSimReqs", "0")) > 8 * 4
    database = root.find("Db")
    assert database is not None
    assert int(database.get("MaxPoolConnections", "0")) > int(server.get("MaxSimReqs", "0"))
    assert [each.get("MimeType") for each in root.iter("MimeTypeMap")] == ["application/octet-stream"]
