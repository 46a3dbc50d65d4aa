"""What is known of a running stack: one JSON file in the home directory, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dlg_ml_tasks.stack.errors import StackError

ServiceName = Annotated[str, Field(pattern=r"^(ngas|mlflow|node(-[1-9]\d*)?|island|translator|web)$")]
"""One of `names`: a stack may have several node managers, of which the second is called ``node-2``."""

HOME_VARIABLE = "DLG_ML_HOME"


def names(nodes: int) -> tuple[ServiceName, ...]:
    """The services of a stack with so many node managers, in the order in which they start; they stop in the opposite one."""
    return ("ngas", "mlflow", *(node_name(number) for number in range(1, nodes + 1)), "island", "translator", "web")


def node_name(number: int) -> ServiceName:
    """The name of a node manager, counted from 1; the first has none of its own, so that one alone is just the node."""
    return numbered("node", number)


def numbered(role: str, number: int) -> str:
    """A role (or name) of the node manager with this number: ``rpc``, ``rpc-2``, ..."""
    return role if number == 1 else f"{role}-{number}"


class ServiceState(BaseModel):
    """One service's process.

    `pid` alone does not name a process: numbers are used again after a crash or a reboot. `started` is the process's
    creation time (seconds since 1970, from psutil) and tells the two apart. `ports` holds every port the service
    listens on, by role (``{"node": 8000, "events": 5555, "rpc": 6666}``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ServiceName
    pid: int = Field(gt=1)
    started: float
    host: str
    ports: dict[str, int]
    url: str
    log: Path


class StackState(BaseModel):
    """The services started under one home directory, in the order of `names`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    services: tuple[ServiceState, ...] = ()

    @property
    def ports(self) -> dict[str, int]:
        """Every recorded port by role."""
        return {role: port for service in self.services for role, port in service.ports.items()}

    @property
    def nodes(self) -> int:
        """How many node managers there are, dead ones included."""
        return sum(service.name.startswith("node") for service in self.services)

    def get(self, name: str) -> ServiceState | None:
        """The service called `name`, or None."""
        return next((service for service in self.services if service.name == name), None)

    def with_service(self, service: ServiceState) -> StackState:
        """A copy with `service`, which replaces an older one of its name."""
        services = (*self.without(service.name).services, service)
        order = names(max((_number(each.name) for each in services), default=1))
        return self.model_copy(update={"services": tuple(sorted(services, key=lambda each: order.index(each.name)))})

    def without(self, *names: str) -> StackState:
        """A copy that lacks the services called `names`."""
        return self.model_copy(update={"services": tuple(s for s in self.services if s.name not in names)})


def home_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """The absolute directory that holds everything of the embedded stack: DLG_ML_HOME, or ~/.dlg-ml."""
    return Path(environ.get(HOME_VARIABLE) or "~/.dlg-ml").expanduser().absolute()


def load_state(home: Path) -> StackState | None:
    """The state recorded under `home`, or None where nothing was started.

    Raises:
        StackError: the file is there and is not a stack state.
    """
    path = _state_file(home)
    try:
        return StackState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise StackError(
            f"cannot read {path}: {str(error).splitlines()[0]}. "
            "Stop the processes that still run under this home, remove the file and start the stack again."
        ) from error


def save_state(state: StackState) -> None:
    """Record `state`; a state without services removes the record."""
    if state.services:
        write_atomically(_state_file(state.home), state.model_dump_json(indent=2) + "\n")
    else:
        _state_file(state.home).unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Put `text` at `path` so that a reader, or a machine that loses power, sees the old file or the new one."""
    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8") as part:
        try:
            part.write(text)
            part.flush()
            os.fsync(part.fileno())
            Path(part.name).replace(path)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise


def _number(name: str) -> int:
    _, _, number = name.partition("-")
    return int(number or 1)


def _state_file(home: Path) -> Path:
    return home / "stack.json"
