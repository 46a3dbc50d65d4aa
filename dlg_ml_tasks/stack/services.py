"""What each service of the embedded stack is: its command line, its environment, its ports and what it depends on."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dlg_ml_tasks.stack.ports import LOOPBACK, NODE_ROLES, Ports
from dlg_ml_tasks.stack.state import HOME_VARIABLE, ServiceName, node_name, numbered

TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
STACK_VARIABLE = "DLG_ML_STACK"
"""Set for every process of a stack, to its home directory: by it the children of a killed service are recognised."""


@dataclass(frozen=True)
class Service:
    """How to start one service.

    `directory` is where it runs; as Python may put it on the import path, it holds neither modules nor packages.
    `ports` are the ones it listens on, by role; `needs` the roles of the other ports its command line or environment
    names, so that a change of one of them means that the service has to be started again.
    """

    name: ServiceName
    command: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str] = field(repr=False)
    ports: Mapping[str, int]
    url: str
    needs: tuple[str, ...] = ()


def services(
    home: Path, ports: Ports, environ: Mapping[str, str] = os.environ, *, nodes: int = 1
) -> tuple[Service, ...]:
    """The services in the order in which they start, for the directory `home`, the given ports and so many node managers.

    `environ` is the environment they inherit. A MLFLOW_TRACKING_URI in it goes before the embedded server for the
    tasks that the node manager runs, as it does for everything else on the command line.
    """
    base = _environment(home, environ)
    return (
        _ngas(home, ports, base),
        _mlflow(home, ports, base),
        *(_node(home, ports, base, number, nodes) for number in range(1, nodes + 1)),
        _island(home, ports, base, nodes),
        _translator(home, ports, base),
        _web(home, ports, base),
    )


def logs(home: Path) -> Path:
    """The directory of the services' logs."""
    return home / "logs"


def directories(home: Path, nodes: int) -> tuple[Path, ...]:
    """The directories that must exist before the services start."""
    roots = (node_root(home, number) for number in range(1, nodes + 1))
    return (home, logs(home), home / "ngas", database(home).parent, home / "dlg" / "lg", home / "dlg" / "pgt", *roots)


def node_root(home: Path, number: int) -> Path:
    """The engine's root for a node manager: each has its own, as on machines that share no disk."""
    return home / numbered("dlg", number)


def database(home: Path) -> Path:
    """MLflow's database file."""
    return home / "mlflow" / "mlflow.db"


def _ngas(home: Path, ports: Ports, base: Mapping[str, str]) -> Service:
    return Service(
        name="ngas",
        command=(
            *(sys.executable, "-m", "dlg_ml_tasks.archive.server"),
            *("--root", str(home / "ngas"), "--host", LOOPBACK, "--port", str(ports.ngas)),
        ),
        environment=base,
        directory=logs(home),
        ports=ports.of("ngas"),
        url=_url(ports.ngas),
    )


def _mlflow(home: Path, ports: Ports, base: Mapping[str, str]) -> Service:
    # `mlflow server` reads many options from MLFLOW_* variables; what a user has set for a client must not change it.
    environment = {k: v for k, v in base.items() if not k.startswith(("MLFLOW_", "_MLFLOW_"))}
    return Service(
        name="mlflow",
        command=(
            *(sys.executable, "-m", "mlflow", "server", "--app-name", "dlg-ml"),
            *("--host", LOOPBACK, "--port", str(ports.mlflow)),
            # Relative: SQLAlchemy unquotes the path and ends it at a question mark, MLflow makes its directory as it is.
            *("--backend-store-uri", f"sqlite:///{database(home).name}"),
            *("--default-artifact-root", f"ngas://{LOOPBACK}:{ports.ngas}/mlflow", "--no-serve-artifacts"),
            # With several workers every call on a kept-alive connection costs 40 ms more (delayed acknowledgement).
            *("--workers", "1", "--uvicorn-opts", "--no-access-log"),
        ),
        environment={
            **environment,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # The job runner serves nothing here and costs 230 MB.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        },
        directory=database(home).parent,
        ports=ports.of("mlflow"),
        url=_url(ports.mlflow),
        needs=("ngas",),
    )


def _node(home: Path, ports: Ports, base: Mapping[str, str], number: int, nodes: int) -> Service:
    rest, events, rpc = roles = tuple(numbered(role, number) for role in NODE_ROLES)
    own = ports.of(*roles)
    return Service(
        name=node_name(number),
        command=(
            *(sys.executable, "-m", "dlg_ml_tasks.components.node_manager"),
            *("-H", LOOPBACK, "-P", str(own[rest])),
            *("--event_port", str(own[events]), "--rpc_port", str(own[rpc])),
            *("-t", str(_parallel_tasks(nodes)), "-l", str(node_root(home, number) / "logs")),
        ),
        # Tasks run in this process's children.
        environment={
            **base,
            "DLG_ROOT": str(node_root(home, number)),
            TRACKING_VARIABLE: base.get(TRACKING_VARIABLE) or _url(ports.mlflow),
        },
        directory=logs(home),
        ports=own,
        url=_url(own[rest]),
        needs=("mlflow",),
    )


def _island(home: Path, ports: Ports, base: Mapping[str, str], nodes: int) -> Service:
    of_nodes = [ports.of(*(numbered(role, number) for role in NODE_ROLES)) for number in range(1, nodes + 1)]
    addresses = ",".join(":".join((LOOPBACK, *map(str, each.values()))) for each in of_nodes)
    return Service(
        name="island",
        command=(
            *(sys.executable, "-m", "dlg_ml_tasks.components.island_manager"),
            *(argument for page in _pages(ports.translator) for argument in ("--translator", page)),
            *("-H", LOOPBACK, "-P", str(ports.island)),
            *("-N", addresses, "-l", str(home / "dlg" / "logs")),
            # The manager's shutdown waits for its check of an absent node: 10 s unless told.
            *("--dmCheckTimeout", "2"),
        ),
        environment=base,
        directory=logs(home),
        ports=ports.of("island"),
        url=_url(ports.island),
        needs=(*(role for each in of_nodes for role in each), "translator"),
    )


def _translator(home: Path, ports: Ports, base: Mapping[str, str]) -> Service:
    dlg = home / "dlg"
    return Service(
        name="translator",
        command=(
            # The translator listens on every interface unless told.
            *(sys.executable, "-m", "dlg_ml_tasks.components.translator", "--island", _url(ports.island)),
            *("-H", LOOPBACK, "-p", str(ports.translator)),
            *("-d", str(dlg / "lg"), "-t", str(dlg / "pgt"), "-l", str(dlg / "logs")),
        ),
        environment=base,
        directory=logs(home),
        ports=ports.of("translator"),
        url=_url(ports.translator),
        needs=("island",),
    )


def _web(home: Path, ports: Ports, base: Mapping[str, str]) -> Service:
    return Service(
        name="web",
        command=(sys.executable, "-m", "dlg_ml_tasks.web", "--host", LOOPBACK, "--port", str(ports.web)),
        environment={
            "DLG_ML_WEB_CACHE": str(home / "web"),
            **base,
            TRACKING_VARIABLE: base.get(TRACKING_VARIABLE) or _url(ports.mlflow),
        },
        directory=logs(home),
        ports=ports.of("web"),
        url=_url(ports.web),
        needs=("mlflow",),
    )


def _environment(home: Path, environ: Mapping[str, str]) -> dict[str, str]:
    unproxied = ",".join(filter(None, (environ.get("no_proxy") or environ.get("NO_PROXY"), LOOPBACK, "localhost")))
    return {
        **environ,
        # DALiuGE's commands read it, and containers and cron do not set it.
        "USER": environ.get("USER") or _user_name(),
        "DLG_ROOT": str(home / "dlg"),
        HOME_VARIABLE: str(home),
        STACK_VARIABLE: str(home),
        "no_proxy": unproxied,
        "NO_PROXY": unproxied,
        # A killed service's last lines must be in its log.
        "PYTHONUNBUFFERED": "1",
    }


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return str(os.getuid())


def _parallel_tasks(nodes: int) -> int:
    """Threads of each node manager: by itself it takes the physical cores, which on a two-core virtual machine is one.

    A thread only waits for its task's process, so one more than the cores costs nothing.
    """
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return max(2, (allowed or 2) // nodes)


def _pages(port: int) -> tuple[str, ...]:
    """The addresses under which a browser on this machine opens a page."""
    return (_url(port), f"http://localhost:{port}")


def _url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"
