"""Where the services are: the environment's word goes before the embedded stack's."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from dlg_ml_tasks.stack import processes
from dlg_ml_tasks.stack.errors import StackError
from dlg_ml_tasks.stack.services import TRACKING_VARIABLE
from dlg_ml_tasks.stack.state import ServiceState, load_state

_T = TypeVar("_T")

ISLAND_VARIABLE = "DLG_ML_ISLAND"
TRANSLATOR_VARIABLE = "DLG_ML_TRANSLATOR"


@dataclass(frozen=True)
class Addresses:
    """The addresses of the three services that commands talk to; None for one that is neither named nor running."""

    tracking_uri: str | None
    island: tuple[str, int] | None
    translator: str | None

    def require_tracking_uri(self) -> str:
        """MLflow's tracking URI; StackError with a remedy if there is none."""
        return _require(self.tracking_uri, "MLflow", TRACKING_VARIABLE)

    def require_island(self) -> tuple[str, int]:
        """Host and port of DALiuGE's data island manager; StackError with a remedy if there is none."""
        return _require(self.island, "DALiuGE's data island manager", ISLAND_VARIABLE)

    def require_translator(self) -> str:
        """URL of DALiuGE's translator; StackError with a remedy if there is none."""
        return _require(self.translator, "DALiuGE's translator", TRANSLATOR_VARIABLE)


def resolve(home: Path, environ: Mapping[str, str] = os.environ) -> Addresses:
    """Find the services: MLFLOW_TRACKING_URI, DLG_ML_ISLAND (host:port) and DLG_ML_TRANSLATOR (URL) in `environ`
    override the embedded stack of `home`, of which only what runs counts.

    Raises:
        StackError: a variable's value is no address.
    """
    state = load_state(home)

    def embedded(name: str) -> ServiceState | None:
        service = state.get(name) if state else None
        return service if service and processes.is_alive(service) else None

    mlflow, island, translator = embedded("mlflow"), embedded("island"), embedded("translator")
    return Addresses(
        tracking_uri=environ.get(TRACKING_VARIABLE) or (mlflow.url if mlflow else None),
        island=_island(environ) or ((island.host, island.ports["island"]) if island else None),
        translator=_translator(environ) or (translator.url if translator else None),
    )


def _island(environ: Mapping[str, str]) -> tuple[str, int] | None:
    value = environ.get(ISLAND_VARIABLE)
    if not value:
        return None
    match = re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})", value)
    if match is None or not 0 < int(match[2]) < 65536:
        raise StackError(f"{ISLAND_VARIABLE}={value!r} is not HOST:PORT, as in 'dlg-dim.example.org:8001'")
    return match[1].strip("[]"), int(match[2])


def _translator(environ: Mapping[str, str]) -> str | None:
    value = environ.get(TRANSLATOR_VARIABLE)
    if not value:
        return None
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise StackError(f"{TRANSLATOR_VARIABLE}={value!r} is not a URL, as in 'http://dlg-tm.example.org:8084'")
    return value.rstrip("/")


def _require(value: _T | None, what: str, variable: str) -> _T:
    if value is None:
        raise StackError(f"no address for {what}: start the embedded stack (dlg-ml up) or set {variable}")
    return value
