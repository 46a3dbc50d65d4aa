"""Lets a session fail at its deployment, with the reason, where its graph names a component that this node cannot import.

The engine refuses such a part of a graph with a reason that is lost on the way to whoever sent it, and the session stays half made.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable
from typing import Any

from dlg.apps.app_base import BarrierAppDROP
from dlg.drop import track_current_drop

from dlg_ml_tasks.tasks import BadInput

logger = logging.getLogger("dlg.dlg_ml_tasks")


class UnknownApp(BarrierAppDROP):  # type: ignore[misc]  # the engine is untyped
    """Stands where a component should be that cannot be imported."""

    def initialize(self, **kwargs: Any) -> None:
        """Refuse to be deployed."""
        super().initialize(**kwargs)
        self._refuse(BadInput(str(self.parameters["unknown"])))

    @track_current_drop  # type: ignore[untyped-decorator]
    def _refuse(self, error: BadInput) -> None:
        logger.error("%s", error)
        self.exception = error


def mark_unknown(drops: Iterable[dict[str, Any]]) -> None:
    """Put an `UnknownApp` in the place of each application that cannot be imported here."""
    for drop in drops:
        path = str(drop.get("dropclass", ""))
        if str(drop.get("categoryType", "")).lower() in ("application", "app") and not _is_there(path):
            reason = f"unknown component {path!r}; is its package installed where the node manager runs?"
            drop |= {"dropclass": f"{__name__}.{UnknownApp.__name__}", "unknown": reason}


def _is_there(path: str) -> bool:
    module, _, name = path.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), name)
    except (ImportError, ValueError):
        return False
