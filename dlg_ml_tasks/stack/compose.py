"""The stack of docker-compose.yml as this machine reaches it: its published ports, as the variables that name services."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from dlg_ml_tasks.archive.routes import ROUTES
from dlg_ml_tasks.stack.addresses import ISLAND_VARIABLE, TRANSLATOR_VARIABLE
from dlg_ml_tasks.stack.errors import StackError
from dlg_ml_tasks.stack.ports import LOOPBACK
from dlg_ml_tasks.stack.services import TRACKING_VARIABLE

FOLDER_VARIABLE = "DLG_ML_COMPOSE"
"""Environment variable: the folder of docker-compose.yml and .env; by default the working directory."""

ARCHIVE = "ngas:7777"
"""The archive in the compose network, and in every URI that MLflow records there."""

_PORTS = {
    "DLG_ML_NGAS_PORT": 7777,
    "DLG_ML_MLFLOW_PORT": 5000,
    "DLG_ML_ISLAND_PORT": 8001,
    "DLG_ML_TRANSLATOR_PORT": 8084,
}


def compose_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where docker-compose.yml lies."""
    return Path(environ.get(FOLDER_VARIABLE) or ".").absolute()


def compose_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that lead a command to the services of the compose stack.

    A port is what the environment says, else the file .env beside docker-compose.yml, else the usual one; so compose itself has it.
    The archive keeps its name `ngas`, which only the containers can look up, and is reached at its published port.

    Raises StackError for a port that is none.
    """
    written = dotenv_values(compose_folder(environ) / ".env")

    def address(variable: str) -> str:
        value = environ.get(variable) or written.get(variable) or str(_PORTS[variable])
        if not value.isdecimal() or not 0 < int(value) < 65536:
            raise StackError(f"{variable}={value!r} is no port; mend it in .env")
        return f"{LOOPBACK}:{value}"

    return {
        TRACKING_VARIABLE: f"http://{address('DLG_ML_MLFLOW_PORT')}",
        ISLAND_VARIABLE: address("DLG_ML_ISLAND_PORT"),
        TRANSLATOR_VARIABLE: f"http://{address('DLG_ML_TRANSLATOR_PORT')}",
        ROUTES: f"{ARCHIVE}={address('DLG_ML_NGAS_PORT')}",
    }
