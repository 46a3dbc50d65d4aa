"""A Slurm of one node on this machine: munged, slurmctld and slurmd on free loopback ports, in a folder of their own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")

_CONFIGURATION = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={controller}
SlurmdPort={node}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
PropagateResourceLimits=NONE
MailProg=/bin/true
KillWait=5
MessageTimeout=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES DefMemPerNode=500 MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """What of Slurm is not installed here."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


class OneNodeSlurm:
    """Started on entering, stopped on leaving; `environment` is what its commands need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._processes: dict[str, psutil.Popen] = {}

    def __enter__(self) -> OneNodeSlurm:
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir(mode=0o755)
        # munged's socket must be reachable for all, and pytest's folders are not.
        self.folder.chmod(0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        user = psutil.Process().username()
        host = socket.gethostname().split(".")[0]
        ports = free_ports(2)
        settings = {"host": host, "user": user, "folder": self.folder, "controller": ports[0], "node": ports[1]}
        (self.folder / "slurm.conf").write_text(_CONFIGURATION.format(**settings))
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nConstrainCores=no\nConstrainRAMSpace=no\n")
        munge = self.folder / "munge"
        self._start(
            "munged",
            *("--foreground", "--force", "--num-threads=2", f"--key-file={key}", f"--socket={munge}/socket"),
            *(f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed"),
        )
        until((munge / "socket").exists)
        self.start_controller()
        self._start("slurmd", "-D", "-N", host)
        until(lambda: "idle" in self.command("sinfo", "-h", "-o", "%T"))
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.command("scancel", f"--user={psutil.Process().username()}")
            until(lambda: not self.command("squeue", "-h"))
        finally:
            for name in reversed(self._processes):
                self._processes[name].terminate()
            for process in self._processes.values():
                process.wait(30)

    def start_controller(self) -> None:
        """Start slurmctld."""
        self._start("slurmctld", "-D")

    def stop_controller(self) -> None:
        """Stop slurmctld; what runs goes on."""
        controller = self._processes.pop("slurmctld")
        controller.terminate()
        controller.wait(30)

    def command(self, *words: str) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run(
            words, env=os.environ | self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        return done.stdout

    def _start(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.out").open("ab") as out:
            self._processes[program] = psutil.Popen(
                [program, *arguments],
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is so. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it has not come within {seconds:g} s; look into the logs")
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has at the moment."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
