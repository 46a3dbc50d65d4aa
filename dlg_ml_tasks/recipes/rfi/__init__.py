"""Radio-frequency-interference flagging: which samples of a HERA observation come from transmitters, not from the sky."""

from dlg_ml_tasks.recipes.rfi.recipe import Rfi

RECIPE = Rfi

__all__ = ["RECIPE", "Rfi"]
