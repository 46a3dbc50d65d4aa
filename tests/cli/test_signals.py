"""A task's program says by its exit code which signal ended it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, time
from dlg_ml_tasks.cli import main
from dlg_ml_tasks.tasks.signals import answer_signals
def app():
    answer_signals()
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(10)
    finally:
        os.kill(os.getpid(), int(sys.argv[1]))
        print("cleaned up", flush=True)
main.app = app
main.main()
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGUSR1, 75)]
)
def test_a_signal_ends_the_task_after_its_clean_up_with_a_code_of_its_own(number: signal.Signals, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(int(number))], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "cleaned up\n", "")
