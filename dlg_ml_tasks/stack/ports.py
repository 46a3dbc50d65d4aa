"""Which loopback ports the services of one home use: the remembered or usual ones, others where those are taken."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dlg_ml_tasks.stack.errors import StackError
from dlg_ml_tasks.stack.state import numbered, write_atomically

LOOPBACK = "127.0.0.1"


Port = Annotated[int, Field(gt=0, lt=65536)]

NODE_ROLES = ("node", "events", "rpc")
"""What a node manager listens on; of the second one the roles are ``node-2``, ``events-2`` and ``rpc-2``."""


class Ports(BaseModel):
    """One port per role; the defaults are the ones that NGAS, MLflow, DALiuGE and the results site use everywhere.

    Further node managers' roles are extra fields.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Port] = Field(init=False)

    ngas: Port = 7777
    mlflow: Port = 5000
    node: Port = 8000
    events: Port = 5555
    rpc: Port = 6666
    island: Port = 8001
    translator: Port = 8084
    web: Port = 8050

    @model_validator(mode="after")
    def _refuse_unknown_roles(self) -> Ports:
        for role in self.__pydantic_extra__:
            if not re.fullmatch(rf"({'|'.join(NODE_ROLES)})-[1-9]\d*", role):
                raise ValueError(f"there is no role {role!r}")
        return self

    @classmethod
    def usual(cls, nodes: int) -> Ports:
        """The ports to take where nobody else has, for so many node managers."""
        first = cls()
        further = {
            numbered(role, number): getattr(first, role) + (number - 1) * (10 if role == "node" else 1)
            for number in range(2, nodes + 1)
            for role in NODE_ROLES
        }
        return cls(**further)

    def of(self, *roles: str) -> dict[str, int]:
        """The ports of some roles."""
        return {role: getattr(self, role) for role in roles}


def choose_ports(home: Path, held: Mapping[str, int], *, archive_is_fixed: bool, nodes: int = 1) -> Ports:
    """Choose a port per role, for so many node managers, and remember the choice in ``<home>/ports.json``.

    A port in `held` (role to number) belongs to a service of this stack that runs, and stays. Any other role gets the
    port it had last time, else the usual one, else a free one. `archive_is_fixed` says that MLflow's database exists:
    the artifact addresses in it (``ngas://127.0.0.1:PORT/...``) name the archive's port, so that one may not change.

    Raises:
        StackError: the archive's port is fixed and another program holds it.
    """
    remembered = _load(home)
    wanted = Ports.usual(nodes).model_dump()
    chosen = {role: port for role, port in held.items() if role in wanted}
    for role, usual in wanted.items():
        if role in chosen:
            continue
        candidates = [remembered[role], usual] if role in remembered else [usual]
        if role == "ngas" and archive_is_fixed and role in remembered:
            _require_free(remembered[role])
        chosen[role] = next((p for p in candidates if p not in chosen.values() and is_free(p)), None) or _any_free()
    ports = Ports(**chosen)
    write_atomically(_ports_file(home), ports.model_dump_json() + "\n")
    return ports


def keep_archive_port(home: Path, port: int) -> None:
    """Let the archive of `home` be on `port` and nowhere else, as a database that is to come names that port.

    Raises:
        StackError: a program holds it.
    """
    if not is_free(port):
        raise StackError(
            f"ngas: port {port} is held by {holder(port)}. The artifact addresses in the backup's database name that port. "
            "Stop that program (another stack: dlg-ml down) and try again."
        )
    ports = Ports(**{**_load(home), "ngas": port})
    write_atomically(_ports_file(home), ports.model_dump_json() + "\n")


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port."""
    with socket.socket() as probe:
        # As servers do: a connection of a stopped server that lingers in TIME_WAIT does not make the port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def holder(port: int) -> str:
    """Who listens on `port`, in words; another user's program can only be guessed at."""
    try:
        listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        pid = next((c.pid for c in listening if c.laddr and c.laddr.port == port), None)
        if pid is not None:
            return f"process {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        pass
    return "another program, perhaps another user's"


def _require_free(port: int) -> None:
    if not is_free(port):
        raise StackError(
            f"ngas: port {port} is held by {holder(port)}. The artifact addresses in this home's MLflow database name "
            f"that port, so the archive cannot use another one. Stop that program and start the stack again, "
            f"or use another home directory (DLG_ML_HOME)."
        )


def _any_free() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _ports_file(home: Path) -> Path:
    return home / "ports.json"


def _load(home: Path) -> dict[str, int]:
    path = _ports_file(home)
    try:
        return Ports.model_validate_json(path.read_bytes()).model_dump()
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        raise StackError(
            f"cannot read {path}: {str(error).splitlines()[0]}. It must hold the port of this home's archive, which "
            'stands in every artifact address; restore it, as in {"ngas": 7777}.'
        ) from error
