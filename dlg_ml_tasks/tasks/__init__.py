"""The atomic tasks and the recipe contract. A task is a function: components, the command line and tests call the same one."""

from dlg_ml_tasks.tasks.catalogue import TASKS, infer, load_raw, preprocess, promote, retrain, train
from dlg_ml_tasks.tasks.errors import (
    BadInput,
    BatchesFailed,
    DiskFull,
    ServiceDown,
    TaskCancelled,
    TaskError,
    TrainingDiverged,
)
from dlg_ml_tasks.tasks.recipe import (
    Counts,
    Item,
    Plan,
    Predict,
    Recipe,
    RecipeSettings,
    load_recipe,
    load_recipe_class,
)
from dlg_ml_tasks.tasks.showing import Curves, Extent, Picture, Quantity, Table, Waterfalls, write_waterfall
from dlg_ml_tasks.tasks.task import Outcome, Port, Task

__all__ = [
    "TASKS",
    "BadInput",
    "BatchesFailed",
    "Counts",
    "Curves",
    "DiskFull",
    "Extent",
    "Item",
    "Outcome",
    "Picture",
    "Plan",
    "Port",
    "Predict",
    "Quantity",
    "Recipe",
    "RecipeSettings",
    "ServiceDown",
    "Table",
    "Task",
    "TaskCancelled",
    "TaskError",
    "TrainingDiverged",
    "Waterfalls",
    "infer",
    "load_raw",
    "load_recipe",
    "load_recipe_class",
    "preprocess",
    "promote",
    "retrain",
    "train",
    "write_waterfall",
]
