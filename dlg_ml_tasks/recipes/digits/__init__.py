"""Recipe `digits`: scikit-learn's real images of handwritten digits, classified in seconds; for tests and the tutorial."""

from dlg_ml_tasks.recipes.digits.recipe import Digits

RECIPE = Digits

__all__ = ["RECIPE", "Digits"]
