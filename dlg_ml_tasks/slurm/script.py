"""The batch script of a job: what Slurm is asked for, what is set up on the nodes, and the command, once for each device."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence

from dlg_ml_tasks.slurm.options import SlurmOptions

GO_ON_LATER = 75
"""Exit code (EX_TEMPFAIL) of a command that was stopped ahead of the time limit: the job goes back into the queue."""


def batch_script(
    name: str, module: str, arguments: Sequence[str], options: SlurmOptions, devices: int, threads: int
) -> str:
    """The script that runs ``python -m module arguments`` on the options' nodes, one process for each device."""
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {line}" for line in _directives(name, options, devices, threads)),
        "",
        *(f"module load {shlex.quote(each)}" for each in options.modules),
        *options.setup,
        # Not the submitter's: the folder must exist on the node.
        f"export DLG_ML_SCRATCH={_scratch(options)}",
        f"export OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads} OPENBLAS_NUM_THREADS={threads}",
        "",
        # Since 22.05 srun does not take over --cpus-per-task; a job's --export holds for srun, too, unless told.
        f"srun --export=ALL --kill-on-bad-exit=1 --cpus-per-task={options.cpus or threads} {_command(module, arguments, options)}",
        "code=$?",
        # By the script, not by the task: in a container there need be no scontrol.
        f'[ "$code" = {GO_ON_LATER} ] && scontrol requeue "$SLURM_JOB_ID" && sleep 60',
        'exit "$code"',
    ]
    return "\n".join(lines) + "\n"


def _directives(name: str, options: SlurmOptions, devices: int, threads: int) -> Iterator[str]:
    yield f"--job-name={name}"
    yield f"--nodes={options.nodes}"
    yield f"--ntasks-per-node={devices // options.nodes}"
    yield f"--cpus-per-task={options.cpus or threads}"
    for directive, value in (
        ("partition", options.partition),
        ("account", options.account),
        ("qos", options.qos),
        ("time", options.time_limit),
        ("mem", options.memory),
    ):
        if value:
            yield f"--{directive}={value}"
    if options.gpus:
        # Not --gpus-per-task: Lightning chooses each process's GPU among all of its node.
        kind = f"{options.gpu_type}:" if options.gpu_type else ""
        yield f"--gres=gpu:{kind}{options.gpus // options.nodes}"
    yield "--requeue"
    if options.notice:
        yield f"--signal=USR1@{options.notice}"
    yield f"--output={_quoted(options.output)}"
    yield "--open-mode=append"
    yield from map(_quoted_value, options.extra)


def _command(module: str, arguments: Sequence[str], options: SlurmOptions) -> str:
    python = options.python or ("python3" if options.container else sys.executable)
    command = shlex.join([python, "-m", module, *arguments])
    if not options.container:
        return command
    gpus = " --nv" if options.gpus and options.container_command.split()[0] in ("apptainer", "singularity") else ""
    return f"{options.container_command}{gpus} {shlex.quote(options.container)} {command}"


def _scratch(options: SlurmOptions) -> str:
    return shlex.quote(options.scratch) if options.scratch else '"${SLURM_TMPDIR:-${TMPDIR:-/tmp}}"'


def _quoted_value(option: str) -> str:
    name, equals, value = option.partition("=")
    return f"{name}{equals}{_quoted(value)}"


def _quoted(value: str) -> str:
    """A value as sbatch reads it in a script: in double quotes if it needs any, and those inside escaped."""
    if value and not any(character in value for character in " \"'#\\"):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if value else ""
