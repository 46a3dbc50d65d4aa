"""A run's work in several processes: of this machine, or of the Slurm allocation that this process is part of."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from dlg_ml_tasks.tasks.executors.executor import MODULE, State, arguments
from dlg_ml_tasks.tasks.parameters import TrainParams

_STOP_SECONDS = 3.0
_END_SECONDS = 10.0
_TAIL = 400


class ProcessExecutor:
    """Starts one process for each device, and stops all if one fails."""

    name = "processes"
    outlives = False
    resubmissions = 0

    def __init__(self, run_id: str, params: TrainParams, folder: Path) -> None:
        """`folder` takes what the processes print."""
        self._run_id = run_id
        self._params = params
        self._log = folder / "processes.log"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._failure: State | None = None
        """The first process that failed: those that are stopped because of it fail, too."""

    def submit(self) -> str:
        """Start the processes."""
        devices, threads = self._params.devices, str(self._params.threads)
        environment = os.environ | dict.fromkeys(
            ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads
        )
        command = [sys.executable, "-m", MODULE, *arguments(self._run_id)]
        if _allocated_tasks() == devices:
            srun = ["srun", "--export=ALL", "--kill-on-bad-exit=1", f"--cpus-per-task={threads}"]
            self._start([*srun, *command], environment)
            return f"started {devices} processes by srun"
        rendezvous = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "WORLD_SIZE": str(devices),
            "NODE_RANK": "0",
        }
        for number in range(devices):
            self._start(command, environment | rendezvous | {"LOCAL_RANK": str(number), "RANK": str(number)})
        return f"started {devices} processes"

    def look(self) -> State:
        """Running as long as all are; over when all have ended."""
        if self._failure is not None:
            return self._failure
        codes = [process.poll() for process in self._processes]
        if any(codes):
            self._stop()
            number, code = next((number, code) for number, code in enumerate(codes) if code)
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            printed = " ".join(self._log.read_text(encoding="utf-8", errors="replace")[-_TAIL:].split())
            text = f"process {number + 1} of {len(codes)} {how}; they printed last: {printed or 'nothing'}"
            self._failure = State(text, is_over=True)
            return self._failure
        if None in codes:
            return State("running")
        return State("the processes ended without a result", is_over=True)

    def cancel(self) -> None:
        """Stop the processes."""
        self._stop()

    def release(self) -> None:
        """Wait for the processes, which end with their run, and stop what is left."""
        deadline = time.monotonic() + _END_SECONDS
        while time.monotonic() < deadline and any(process.poll() is None for process in self._processes):
            time.sleep(0.1)
        self._stop()

    def _start(self, command: list[str], environment: dict[str, str]) -> None:
        with self._log.open("ab") as log:
            self._processes.append(
                subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603
            )

    def _stop(self) -> None:
        for process in self._processes:
            process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _allocated_tasks() -> int:
    """How many tasks the Slurm job of this process was given, if it is a job's script and no task itself."""
    if "SLURM_STEP_ID" in os.environ or "SLURM_JOB_ID" not in os.environ:
        return 0
    return int(os.environ.get("SLURM_NTASKS", "0"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
