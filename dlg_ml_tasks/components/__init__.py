"""DALiuGE application drops, one per task, and the palette made from them.

The classes are found by name on first use, so that a child process of the fork server, which imports this package too, does not
pay for importing the engine.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["InferApp", "LoadRawApp", "PreprocessApp", "PromoteApp", "RetrainApp", "TrainApp"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("dlg_ml_tasks.components.apps"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
