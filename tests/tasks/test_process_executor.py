"""Several processes of this machine: the one that failed is named, and none is left."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from dlg_ml_tasks.tasks import TASKS
from dlg_ml_tasks.tasks.executors import processes
from dlg_ml_tasks.tasks.executors.executor import State
from dlg_ml_tasks.tasks.executors.processes import ProcessExecutor

PROGRAM = """
import os, signal, sys, time
print("process", os.environ["LOCAL_RANK"], "of", os.environ["WORLD_SIZE"], flush=True)
if os.environ["LOCAL_RANK"] == "1" and sys.argv[-1] == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(0 if sys.argv[-1] == "ends" else 60)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the place of the command line."""
    (tmp_path / "stand_in.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(processes, "MODULE", "stand_in")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def _started(act: str, folder: Path) -> ProcessExecutor:
    params = TASKS["train"].validate({"recipe": "digits", "model_name": "m", "devices": 3})
    executor = ProcessExecutor(act, params, folder)
    assert executor.submit() == "started 3 processes"
    return executor


def _ended(executor: ProcessExecutor) -> State:
    while not (state := executor.look()).is_over:
        time.sleep(0.05)
    return state


def _children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "stand_in" in child.cmdline()]


@pytest.mark.usefixtures("stand_in")
def test_the_process_that_failed_first_is_named_though_the_others_are_stopped(tmp_path: Path) -> None:
    executor = _started("dies", tmp_path)
    for _ in range(2):
        state = _ended(executor)
        assert state.text.startswith("process 2 of 3 was killed by SIGKILL; they printed last: process")
    assert _children() == []


@pytest.mark.usefixtures("stand_in")
def test_processes_are_stopped_when_the_task_is_cancelled(tmp_path: Path) -> None:
    executor = _started("stays", tmp_path)
    assert not executor.look().is_over
    executor.cancel()
    assert _children() == []


@pytest.mark.usefixtures("stand_in")
def test_processes_that_ended_without_a_word_are_no_success(tmp_path: Path) -> None:
    executor = _started("ends", tmp_path)
    assert _ended(executor).text == "the processes ended without a result"
    executor.release()


def test_inside_a_jobs_script_the_processes_are_those_of_the_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    srun = tmp_path / "srun"
    srun.write_text(f"#!{sys.executable}\nimport sys\nprint(sys.argv)\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_NTASKS", "3")
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    params = TASKS["train"].validate({"recipe": "digits", "model_name": "m", "devices": 3})
    executor = ProcessExecutor("run", params, tmp_path)
    assert executor.submit() == "started 3 processes by srun"
    _ended(executor)
    assert "'task', 'continue', 'run'" in (tmp_path / "processes.log").read_text()
