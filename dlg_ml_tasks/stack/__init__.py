"""Starting and stopping NGAS, MLflow, DALiuGE and the results site on one machine, and finding them."""

from __future__ import annotations

from dlg_ml_tasks.stack.addresses import Addresses, resolve
from dlg_ml_tasks.stack.compose import compose_environment, compose_folder
from dlg_ml_tasks.stack.errors import StackError
from dlg_ml_tasks.stack.lifecycle import ServiceStatus, StackStatus, down, status, up
from dlg_ml_tasks.stack.state import ServiceState, StackState, home_directory, load_state

__all__ = [
    "Addresses",
    "ServiceState",
    "ServiceStatus",
    "StackError",
    "StackState",
    "StackStatus",
    "compose_environment",
    "compose_folder",
    "down",
    "home_directory",
    "load_state",
    "resolve",
    "status",
    "up",
]
