"""Slurm's commands: submitting a script, finding jobs by name, cancelling them.

A job is known by its name, which its owner makes unique: so it is also found where the answer of sbatch was lost.
"""

from __future__ import annotations

import fnmatch
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dlg_ml_tasks.slurm.errors import SlurmMissing, SlurmRefused, SlurmUnreachable

_WAITING = frozenset(
    {
        "PENDING",
        "CONFIGURING",
        "REQUEUED",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "RESV_DEL_HOLD",
        "SPECIAL_EXIT",
        "SUSPENDED",
        "STOPPED",
    }
)
_RUNNING = frozenset({"RUNNING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT"})

_EXPORTED = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "HOME", "USER", "LOGNAME", "NETRC", "MLFLOW_*", "DLG_ML_*")
_KEPT_HERE = ("DLG_ML_SCRATCH", "DLG_ML_HOME", "DLG_ML_ISLAND", "DLG_ML_TRANSLATOR")
"""Folders and addresses of this machine, which mean nothing on a node of the cluster."""

_OF_THE_CLUSTER = ("SLURM_CONF", "SLURM_CLUSTERS")

_COMMAND_SECONDS = 60.0
_NOT_ANSWERING = (
    "Unable to contact slurm controller",
    "Connection refused",
    "Connection timed out",
    "Socket timed out",
    "Zero Bytes were transmitted",
    "Unexpected message received",
    "Resource temporarily unavailable",
    "Slurm temporarily unable to accept job",
    "Slurm backup controller in standby",
    "Protocol authentication error",
)


@dataclass(frozen=True)
class Job:
    """A job as Slurm sees it: its number, state (``RUNNING``), why it waits or ended (``Resources``), and its nodes."""

    number: int
    state: str
    reason: str
    nodes: str

    @property
    def waits(self) -> bool:
        """Whether it will run, or go on running, when its turn comes."""
        return self.state in _WAITING

    @property
    def is_active(self) -> bool:
        """Whether it waits or runs."""
        return self.waits or self.state in _RUNNING

    def __str__(self) -> str:
        where = f" on {self.nodes}" if self.nodes else ""
        return f"Slurm job {self.number}{where}"


def submit(script: str, more_environment: Iterable[str] = ()) -> int:
    """Submit a batch script and return the job's number.

    The script goes to Slurm with the call: no folder is shared with the nodes. Of the environment goes what the task needs to reach
    its services, and `more_environment` (names); by name only, since a command line is for everyone to read.
    Raises SlurmRefused with Slurm's reason, SlurmUnreachable, SlurmMissing.
    """
    names = ",".join(_exported(os.environ, more_environment))
    # From the root folder, which every node has.
    done = _run(["sbatch", "--parsable", f"--export={names}", "--chdir=/"], script)
    if done.returncode:
        raise _error(done, SlurmRefused)
    return int(done.stdout.strip().partition(";")[0])


def find(name: str) -> list[Job]:
    """The user's jobs of this name, oldest first; those that have ended only as long as Slurm remembers them (some minutes).

    Raises SlurmUnreachable, SlurmMissing.
    """
    line = "%i|%T|%r|%N"
    done = _run(["squeue", "--me", "--noheader", "--states=all", f"--name={name}", f"--format={line}"])
    if done.returncode:
        raise _error(done, SlurmUnreachable)
    jobs = []
    for row in done.stdout.splitlines():
        number, state, reason, nodes = row.strip().split("|")
        jobs.append(Job(int(number), state, "" if reason == "None" else reason, nodes))
    return sorted(jobs, key=lambda job: job.number)


def cancel(name: str, seconds: float = _COMMAND_SECONDS) -> None:
    """Cancel the user's jobs of this name, waiting at most so many seconds for Slurm. Raises SlurmUnreachable, SlurmMissing."""
    done = _run(["scancel", "--me", f"--name={name}"], seconds=seconds)
    if done.returncode:
        raise _error(done, SlurmUnreachable)


def _exported(environment: Mapping[str, str], more: Iterable[str]) -> list[str]:
    patterns = (*_EXPORTED, *more)
    wanted = (name for name in environment if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))
    return sorted(set(wanted) - set(_KEPT_HERE)) or ["NONE"]


def _without_own_job(environment: Mapping[str, str]) -> dict[str, str]:
    """Who submits may be a job itself: its own variables would go with the new one, and contradict what that asks for."""
    return {
        name: value for name, value in environment.items() if name in _OF_THE_CLUSTER or not name.startswith("SLURM_")
    }


def _run(
    command: list[str], text: str | None = None, seconds: float = _COMMAND_SECONDS
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 (Slurm's commands are found on PATH)
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env=_without_own_job(os.environ),
        )
    except FileNotFoundError as error:
        raise SlurmMissing(
            f"there is no command {command[0]!r} on this machine: run this where jobs are submitted from, or without executor=slurm"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SlurmUnreachable(f"{command[0]} has not answered for {seconds:.0f} s") from error


def _error(done: subprocess.CompletedProcess[str], otherwise: type[Exception]) -> Exception:
    text = " ".join(done.stderr.split()) or f"{done.args[0]} ended with exit code {done.returncode}"
    if any(words in text for words in _NOT_ANSWERING):
        return SlurmUnreachable(text)
    return otherwise(text)
