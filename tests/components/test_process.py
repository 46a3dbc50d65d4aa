"""A task in its child process: outcome, errors, cancellation, death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest

from dlg_ml_tasks.components import process
from dlg_ml_tasks.components.process import Finished, TaskFailed, TaskStopped

pytestmark = pytest.mark.integration


class Watched:
    """Runs the sample ACT in a child and keeps what it tells."""

    def __init__(self) -> None:
        self.session = f"s-{uuid.uuid4().hex[:8]}"
        self.log: list[str] = []
        self.tracebacks: list[str] = []
        self.stop = lambda: False
        self.light = False

    def run(self, act: str, **params: Any) -> Finished:
        request = {
            "task": "load_raw",
            "params": {"sources": f"sample:{act}", "recipe": "scripted_recipe:Scripted", **params},
            "inputs": {},
            "session": self.session,
            "node": act,
            "force": False,
            "lost": [],
            "light": self.light,
        }
        return process.run(
            request, on_log=self.log.append, on_traceback=self.tracebacks.append, cancelled=lambda: self.stop()
        )

    def started(self) -> bool:
        return any("started, run" in line for line in self.log)

    def status(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{folder}/mlruns")
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        from dlg_ml_tasks.tracking.sessions import session_runs

        return session_runs(self.session)[0].status


@pytest.fixture
def watched(scratch: Path) -> Watched:
    return Watched()


def test_a_finished_task_hands_back_its_reference_and_its_log(watched: Watched) -> None:
    finished = watched.run("ok")
    assert finished.reference.kind == "files"
    assert finished.reference.run_id in "\n".join(watched.log)


def test_the_same_task_again_is_reused(watched: Watched) -> None:
    first = watched.run("once")
    again = watched.run("once")
    assert again.reused
    assert again.reference == first.reference


def test_a_fault_of_the_user_is_one_line_without_traceback(watched: Watched) -> None:
    with pytest.raises(TaskFailed, match=r"the sample is bad: C:\\users\\é; take another"):
        watched.run("bad")
    assert watched.tracebacks == []


def test_a_bug_is_one_line_and_its_traceback_is_told(watched: Watched) -> None:
    with pytest.raises(TaskFailed, match="KeyError: 'nothing'"):
        watched.run("bug")
    assert "scripted_recipe.py" in watched.tracebacks[0]


def test_light_tasks_of_a_session_share_a_process_and_others_have_their_own(watched: Watched) -> None:
    def pid(act: str) -> str:
        watched.log.clear()
        watched.run(act)
        return next(line for line in watched.log if line.startswith("process "))

    watched.light = True
    first = pid("pid-1")
    assert pid("pid-2") == first
    with pytest.raises(TaskFailed):
        watched.run("bad")
    assert pid("pid-3") != first
    watched.light = False
    assert len({pid("pid-4"), pid("pid-5"), first}) == 3


def test_a_shared_process_that_is_gone_is_replaced(watched: Watched) -> None:
    watched.light = True
    watched.run("pid-6")
    (line,) = [line for line in watched.log if line.startswith("process ")]
    os.kill(int(line.removeprefix("process ")), signal.SIGKILL)
    assert watched.run("pid-7").reference


def test_a_killed_child_is_a_clear_error_and_its_run_is_killed(
    watched: Watched, fork_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TaskFailed, match="killed by SIGKILL"):
        watched.run("die")
    assert watched.status(monkeypatch, fork_server) == "KILLED"


def test_a_cancelled_task_stops_and_its_run_is_killed(
    watched: Watched, fork_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.stop = watched.started
    with pytest.raises(TaskStopped):
        watched.run("sleep")
    assert watched.status(monkeypatch, fork_server) == "KILLED"


def test_a_task_that_ignores_the_cancellation_is_killed_with_its_subprocesses(watched: Watched) -> None:
    watched.stop = lambda: "deaf from here on" in watched.log
    with pytest.raises(TaskStopped):
        watched.run("deaf")
    assert not [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", "120.25"]]


def test_a_killed_task_leaves_no_temporary_files(watched: Watched, scratch: Path) -> None:
    with pytest.raises(TaskFailed):
        watched.run("die")
    assert list(scratch.iterdir()) == []


def test_the_child_ends_when_the_node_manager_dies(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLG_ML_SCRATCH", str(tmp_path))
    script = (
        "from dlg_ml_tasks.components import process\n"
        "if __name__ == '__main__':\n"
        "    request = dict(task='load_raw', params=dict(sources='sample:sleep', recipe='scripted_recipe:Scripted'),\n"
        "                   inputs={}, lost=[], session='orphan', node='orphan', force=False,\n"
        "                   light=False)\n"
        "    process.run(request, on_log=lambda line: print(line, flush=True), on_traceback=print, cancelled=lambda: False)\n"
    )
    path = tmp_path / "manager.py"
    path.write_text(script)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True, env=environment) as manager:
        assert manager.stdout is not None
        assert "started" in manager.stdout.readline()
        family = psutil.Process(manager.pid).children(recursive=True)
        manager.kill()
    _, alive = psutil.wait_procs(family, timeout=20)
    for each in alive:
        each.kill()
    assert alive == []
