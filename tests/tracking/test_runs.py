"""Task runs, references and sessions in MLflow."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from dlg_ml_tasks.tracking import Reference, digest_of
from dlg_ml_tasks.tracking.errors import ContentChanged, TrackingUnreachable
from dlg_ml_tasks.tracking.files import download, hash_files
from dlg_ml_tasks.tracking.recording import MlflowRecorder
from dlg_ml_tasks.tracking.runs import TaskRun, TaskToRun, end_run, find_finished
from dlg_ml_tasks.tracking.sessions import (
    SessionRuns,
    begin_session,
    end_session,
    forget_session,
    recent_sessions,
    record_reuse,
    session_run,
    session_runs,
    settle_session,
)
from dlg_ml_tasks.tracking.store import reachable_client, recorder_for

FINGERPRINT = "f" * 64


def _start(session: str | None = None, node: str = "load") -> TaskRun:
    return TaskRun.start(
        TaskToRun("load_raw", node, FINGERPRINT, {"sources": ["x"], "seed": 1}, tags={"extra": "1"}, session=session)
    )


def _finish(run: TaskRun, folder: Path, content: bytes = b"1") -> Reference:
    folder.mkdir(parents=True)
    (folder / "x.bin").write_bytes(content)
    reference = run.log_files(folder, "raw", FINGERPRINT)
    run.finish(reference)
    return reference


@pytest.mark.usefixtures("tracking")
def test_files_come_back_by_their_reference(tmp_path: Path) -> None:
    reference = _finish(_start(), tmp_path / "in", b"payload")
    assert (download(reference, tmp_path / "out") / "x.bin").read_bytes() == b"payload"


@pytest.mark.usefixtures("tracking")
def test_files_that_are_not_those_of_the_reference_are_refused(tmp_path: Path) -> None:
    reference = _finish(_start(), tmp_path / "in")
    with pytest.raises(ContentChanged, match="expected content 0000"):
        download(reference.model_copy(update={"digest": "0" * 64}), tmp_path / "out")


@pytest.mark.usefixtures("tracking")
def test_only_a_finished_run_whose_output_exists_can_be_reused(tmp_path: Path) -> None:
    failed = _start()
    failed.fail("Traceback: …")
    assert find_finished(FINGERPRINT) is None
    run = _start()
    reference = _finish(run, tmp_path / "in")
    found = find_finished(FINGERPRINT)
    assert found is not None
    assert (found.run_id, found.reference) == (run.run_id, reference)
    get_artifact_repository(MlflowClient().get_run(run.run_id).info.artifact_uri).delete_artifacts("raw")
    assert find_finished(FINGERPRINT) is None


@pytest.mark.usefixtures("tracking")
def test_a_failed_run_keeps_the_traceback() -> None:
    run = _start()
    run.fail("Traceback\nValueError: 7")
    kept = MlflowClient().get_run(run.run_id)
    assert kept.info.status == "FAILED"
    assert "ValueError: 7" in kept.data.tags["dlg_ml.error"]


@pytest.mark.usefixtures("tracking")
def test_ending_a_run_from_outside_leaves_an_ended_one_alone(tmp_path: Path) -> None:
    running, finished = _start(), _start()
    _finish(finished, tmp_path / "in")
    end_run(running.run_id, "KILLED")
    end_run(finished.run_id, "KILLED")
    statuses = [MlflowClient().get_run(run.run_id).info.status for run in (running, finished)]
    assert statuses == ["KILLED", "FINISHED"]


@pytest.mark.usefixtures("tracking")
def test_tasks_that_start_together_share_one_session_run() -> None:
    found: list[str] = []
    barrier = threading.Barrier(4)

    def first() -> None:
        barrier.wait()
        session_run(MlflowClient(), "s-1")
        found.append(session_run(MlflowClient(), "s-1"))

    threads = [threading.Thread(target=first) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


@pytest.mark.usefixtures("tracking")
def test_a_session_lists_its_own_and_its_reused_runs(tmp_path: Path) -> None:
    earlier = _start("s-1", "load-A")
    _finish(earlier, tmp_path / "a")
    own = _start("s-2", "train")
    record_reuse("s-2", "load-A", earlier.run_id)
    seen = {info.node: (info.run_id, info.reused) for info in session_runs("s-2")}
    assert seen == {"train": (own.run_id, False), "load-A": (earlier.run_id, True)}


@pytest.mark.usefixtures("tracking")
def test_a_session_that_has_ended_has_the_status_it_was_given() -> None:
    parent = session_run(MlflowClient(), "s-3")
    end_session("s-3", "KILLED")
    assert MlflowClient().get_run(parent).info.status == "KILLED"


@pytest.mark.usefixtures("tracking")
def test_the_parameters_of_a_run_are_kept_however_it_ends() -> None:
    ends: list[Callable[[TaskRun], None]] = [lambda run: run.fail("reason"), TaskRun.kill]
    for end in ends:
        run = _start()
        end(run)
        assert MlflowClient().get_run(run.run_id).data.params


@pytest.mark.usefixtures("tracking")
def test_the_worst_part_of_a_session_decides_how_it_ended_and_success_waits_for_what_runs() -> None:
    parent = session_run(MlflowClient(), "s-4")

    def status() -> str:
        return str(MlflowClient().get_run(parent).info.status)

    running = _start("s-4", "train")
    settle_session("s-4", "FINISHED")
    assert status() == "RUNNING"
    end_run(running.run_id, "KILLED")
    settle_session("s-4", "FINISHED")
    assert status() == "FINISHED"
    settle_session("s-4", "FAILED")
    settle_session("s-4", "KILLED")
    assert status() == "FAILED"


@pytest.mark.usefixtures("tracking")
def test_what_still_runs_when_a_session_is_ended_is_killed() -> None:
    running = _start("s-5", "train")
    end_session("s-5", "FAILED")
    assert MlflowClient().get_run(running.run_id).info.status == "KILLED"


@pytest.mark.usefixtures("tracking")
def test_a_session_that_was_not_deployed_leaves_no_run() -> None:
    begin_session("s-6")
    assert [each.session for each in recent_sessions(5)] == ["s-6"]
    forget_session("s-6")
    assert recent_sessions(5) == []


@pytest.mark.usefixtures("tracking")
def test_keeping_up_with_a_session_shows_new_runs_and_new_states() -> None:
    runs = SessionRuns("s-7")
    assert runs.update() == {}
    first = _start("s-7", "load")
    assert runs.update()["load"].status == "RUNNING"
    end_run(first.run_id, "FAILED")
    _start("s-7", "train")
    assert {node: info.status for node, info in runs.update().items()} == {"load": "FAILED", "train": "RUNNING"}


def test_a_tracking_server_that_is_down_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingUnreachable, match=r"http://127\.0\.0\.1:9 .*dlg-ml up"):
        reachable_client()


class _WantsLogin(BaseHTTPRequestHandler):
    """MLflow behind a proxy with a login."""

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == "Basic " + base64.b64encode(b"ann:secret").decode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def wants_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("HOME", str(tmp_path))  # MLflow's file with a login is there
    with ThreadingHTTPServer(("127.0.0.1", 0), _WantsLogin) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        yield uri
        server.shutdown()


def test_a_tracking_server_behind_a_login_is_reached_by_mlflows_own_calls_with_the_login(
    wants_login: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    assert isinstance(recorder_for(reachable_client()), MlflowRecorder)


def test_the_login_may_stand_in_mlflows_file(wants_login: str, tmp_path: Path) -> None:
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text(
        "[mlflow]\nmlflow_tracking_username = ann\nmlflow_tracking_password = secret\n"
    )
    assert isinstance(recorder_for(reachable_client()), MlflowRecorder)


def test_without_the_login_the_message_says_how_to_give_it(wants_login: str) -> None:
    with pytest.raises(TrackingUnreachable, match=f"{wants_login} does not let you in .*MLFLOW_TRACKING_USERNAME"):
        reachable_client()


def test_a_digest_depends_on_names_and_contents_not_on_order(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    table = hash_files(tmp_path)
    assert digest_of(table) == digest_of(dict(reversed(table.items())))
    (tmp_path / "b").write_text("c")
    assert digest_of(table) != digest_of(hash_files(tmp_path))
