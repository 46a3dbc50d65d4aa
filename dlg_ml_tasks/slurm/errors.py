"""What can go wrong with Slurm, each with what to do.

SlurmError
├── SlurmMissing      its commands are not on this machine
├── SlurmRefused      it does not take the job
└── SlurmUnreachable  its controller does not answer
"""

from __future__ import annotations


class SlurmError(Exception):
    """Base of everything that Slurm says no to."""


class SlurmMissing(SlurmError):
    """Slurm's commands are not on this machine."""


class SlurmRefused(SlurmError):
    """Slurm does not take the job: an unknown partition, more than a limit allows, a wrong option."""


class SlurmUnreachable(SlurmError):
    """Slurm's controller does not answer; jobs that run go on running."""
