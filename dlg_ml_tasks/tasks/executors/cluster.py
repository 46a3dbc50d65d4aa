"""A run's work as a job of a Slurm cluster."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from urllib.parse import urlsplit

from dlg_ml_tasks import slurm
from dlg_ml_tasks.tasks.errors import BadInput, ExecutorFailed
from dlg_ml_tasks.tasks.executors.executor import MODULE, ExecutorSilent, State, Verdict, arguments
from dlg_ml_tasks.tasks.parameters import TrainParams

_CANCEL_SECONDS = 2.5
"""A cancelled task is killed after 4 s."""

_ENDINGS = {
    "CANCELLED": (Verdict.NEVER, "was cancelled in Slurm"),
    "OUT_OF_MEMORY": (Verdict.NEVER, "ran out of memory; raise memory in the Slurm options"),
    "DEADLINE": (Verdict.NEVER, "missed its deadline"),
    "TIMEOUT": (Verdict.IF_FURTHER, "reached its time limit"),
    "FAILED": (Verdict.IF_FURTHER, "failed"),
    "COMPLETED": (Verdict.IF_FURTHER, "ended without a result"),
    "PREEMPTED": (Verdict.AGAIN, "was preempted"),
    "REVOKED": (Verdict.AGAIN, "was revoked"),
    "NODE_FAIL": (Verdict.AGAIN, "lost its node"),
    "BOOT_FAIL": (Verdict.AGAIN, "got a node that did not start"),
}
_TAIL = 3
"""Lines of Slurm's own log that an error shows."""


class SlurmExecutor:
    """Submits, watches and cancels the job of one run; the job is known by its name, which holds the run's id."""

    name = "slurm"
    outlives = True

    def __init__(self, task: str, run_id: str, params: TrainParams) -> None:
        """Raises BadInput if the options, together with the site's, are not possible."""
        try:
            self._options = slurm.SlurmOptions.with_site_defaults(params.slurm)
            self._options.refuse_if_impossible(params.devices)
        except ValueError as error:
            raise BadInput(f"Slurm options: {' '.join(str(error).split())}") from error
        self.resubmissions = self._options.resubmissions
        self._params = params
        self._run_id = run_id
        self._job_name = f"dlg-ml-{task}-{run_id[:12]}"
        self._number = 0

    def is_active(self) -> bool:
        """Whether a job of this run waits or runs. Raises ExecutorSilent."""
        return any(job.is_active for job in self._jobs())

    def submit(self) -> str:
        """Submit the job, unless one of this run is there already: the answer to an earlier submission may have been lost."""
        active = [job for job in self._jobs() if job.is_active]
        if active:
            self._number = active[-1].number
            return f"found {active[-1]}"
        script = slurm.batch_script(
            self._job_name, MODULE, arguments(self._run_id), self._options, self._params.devices, self._params.threads
        )
        try:
            self._number = slurm.submit(script, self._options.environment)
        except slurm.SlurmUnreachable as error:
            raise ExecutorSilent(str(error)) from error
        except slurm.SlurmError as error:
            raise ExecutorFailed(f"Slurm did not take the job: {error}") from error
        return f"submitted Slurm job {self._number}"

    def look(self) -> State:
        """The state of the newest job."""
        jobs = self._jobs()
        if not jobs:
            return State(f"Slurm job {self._number} has vanished from the queue", is_over=True, verdict=Verdict.AGAIN)
        job = jobs[-1]
        self._number = job.number
        if job.waits:
            return State(f"pending: {job.reason or job.state}", waits=True)
        if job.is_active:
            return State(f"running: {job}")
        verdict, words = _ENDINGS.get(job.state, (Verdict.IF_FURTHER, f"ended as {job.state}"))
        return State(f"{job} {words}{self._hint(job)}", is_over=True, verdict=verdict)

    def cancel(self) -> None:
        """Cancel all jobs of this run."""
        try:
            slurm.cancel(self._job_name, _CANCEL_SECONDS)
        except slurm.SlurmError as error:
            raise ExecutorSilent(str(error)) from error

    def release(self) -> None:
        """Nothing: the job ends by itself."""

    def _jobs(self) -> list[slurm.Job]:
        try:
            return slurm.find(self._job_name)
        except slurm.SlurmMissing as error:
            raise ExecutorFailed(str(error)) from error
        except slurm.SlurmError as error:
            raise ExecutorSilent(str(error)) from error

    def _hint(self, job: slurm.Job) -> str:
        """Where Slurm's own log is, its last lines if it can be read here, and what often is the cause of an early end."""
        if job.state == "CANCELLED":
            return ""
        path = self._options.output.replace("%x", self._job_name).replace("%j", str(job.number))
        node = job.nodes.partition(",")[0]
        hints = [f"its log is {node}:{path}" if node else f"its log is {path}"]
        if lines := _last_lines(Path(path)):
            hints.append(f"which ends with: {' / '.join(lines)}")
        host = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", "")).hostname
        if host in ("127.0.0.1", "localhost", "::1"):
            hints.append(f"(MLFLOW_TRACKING_URI names {host}, which is another machine for a job on another node)")
        return f"; {' '.join(hints)}"


def _last_lines(file: Path) -> list[str]:
    """The last lines of a file on this machine, no more than a few hundred characters; none if it is another machine's."""
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            lines = deque((line.strip() for line in stream if line.strip()), maxlen=_TAIL)
    except OSError:
        return []
    return [line[:200] for line in lines]


def wait_for_answer(executor: SlurmExecutor, seconds: float) -> bool:
    """Whether a job of the executor's run is active, asking for so many seconds if Slurm does not answer. Raises ExecutorSilent."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return executor.is_active()
        except ExecutorSilent:
            if time.monotonic() > deadline:
                raise
            time.sleep(2)
