"""Radio-frequency-interference flagging: find the samples of a HERA observation that come from transmitters and not from the sky."""

from dlg_ml_tasks.recipes.rfi.recipe import Rfi

RECIPE = Rfi

__all__ = ["RECIPE", "Rfi"]
