"""What a job asks of Slurm, typed and checked: one model for graphs, the command line and the site's own defaults."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

SITE = "DLG_ML_SLURM"
"""Environment variable with a site's defaults: a JSON object of these options, for every job that does not say otherwise."""

_NAME = StringConstraints(pattern=r"^[\w.,:@+-]*$")
_LINE = StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$")
Name = Annotated[str, _NAME]
Line = Annotated[str, _LINE]


class SlurmOptions(BaseModel):
    """Options of a Slurm job. Everything has a default; what is empty is left to the cluster."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    partition: Name = Field("", description="partition, or several with commas")
    account: Name = Field("", description="account that is charged")
    qos: Name = Field("", description="quality of service")
    time_limit: str = Field(
        "", pattern=r"^(\d+|\d+:\d\d(:\d\d)?|\d+-\d+(:\d\d(:\d\d)?)?)?$", description="as Slurm writes it, '04:00:00'"
    )
    memory: str = Field("", pattern=r"^(\d+[KMGT]?)?$", description="memory of each node, '16G'")
    cpus: int | None = Field(None, ge=1, description="CPUs for each device; default: the task's threads")
    gpus: int = Field(0, ge=0, description="GPUs in all: 0, or as many as devices")
    gpu_type: Name = Field("", description="type of the GPUs, 'a100'")
    nodes: int = Field(1, ge=1, description="nodes over which the devices are divided evenly")
    modules: list[Name | Annotated[str, StringConstraints(pattern=r"^[\w./+-]+$")]] = Field(
        default_factory=list, description="modules to load, a list"
    )
    setup: list[Line] = Field(default_factory=list, description="shell lines before the task, a list")
    container: Line = Field("", description="image that the task runs in")
    container_command: Line = Field("apptainer exec", description="what runs the image")
    python: Line = Field("", description="Python on the nodes; default: the one that submits, in a container python3")
    scratch: Line = Field(
        "", description="folder for temporary files on the nodes; default: $SLURM_TMPDIR, $TMPDIR, /tmp"
    )
    output: Line = Field("/tmp/%x-%j.out", description="Slurm's own log, on the first node")  # noqa: S108
    environment: list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*$")]] = Field(
        default_factory=list,
        description="names of variables that go with the job, besides PATH, PYTHONPATH, LANG, NETRC, MLFLOW_* and DLG_ML_*",
    )
    notice: int = Field(
        120, ge=0, le=65535, description="seconds before the time limit at which the task stops, to go on in the queue"
    )
    resubmissions: int = Field(3, ge=0, description="how often in a row a job is submitted again that got nowhere")
    extra: list[Annotated[str, StringConstraints(pattern=r"^--[a-z][a-z-]*(=[^\x00-\x1f\x7f]*)?$")]] = Field(
        default_factory=list, description="more sbatch options, a list of '--name=value'"
    )

    @classmethod
    def describe(cls) -> str:
        """All options in one sentence, for help texts."""
        return "; ".join(f"{name}: {field.description}" for name, field in cls.model_fields.items())

    @classmethod
    def with_site_defaults(cls, given: Mapping[str, Any]) -> SlurmOptions:
        """The options given, over those of the site (DLG_ML_SLURM). Raises ValueError naming the variable if that is no JSON object
        of options.
        """
        text = os.environ.get(SITE, "").strip()
        try:
            site = json.loads(text) if text else {}
            if not isinstance(site, dict):
                raise ValueError("it is no JSON object")
            cls.model_validate(site)
        except ValueError as error:
            raise ValueError(f"the environment variable {SITE} is {text!r}: {' '.join(str(error).split())}") from error
        return cls.model_validate({**site, **given})

    def refuse_if_impossible(self, devices: int) -> None:
        """Raise ValueError if so many devices cannot be had with these options, or the options contradict each other."""
        if devices % self.nodes:
            raise ValueError(f"devices={devices} cannot be divided among nodes={self.nodes}")
        if self.gpus not in (0, devices):
            raise ValueError(f"gpus={self.gpus}, but devices={devices}: one GPU for each device, or none")
        limit = _seconds(self.time_limit)
        if limit is not None and limit <= self.notice:
            raise ValueError(
                f"time_limit={self.time_limit!r} leaves no time before the notice={self.notice} s at which the task stops to go on "
                "later; raise the one or lower the other"
            )


def _seconds(time_limit: str) -> int | None:
    """Seconds of a time limit in one of Slurm's forms (M, M:S, H:M:S, D-H, D-H:M, D-H:M:S); None without one."""
    if not time_limit:
        return None
    days, dash, rest = time_limit.rpartition("-")
    parts = [int(part) for part in rest.split(":") if part]
    units = (3600, 60, 1) if dash or len(parts) == 3 else (60, 1)
    return int(days or 0) * 86400 + sum(part * unit for part, unit in zip(parts, units, strict=False))
