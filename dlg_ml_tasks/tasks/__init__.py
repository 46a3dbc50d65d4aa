"""The atomic tasks and the recipe contract. A task is a function: components, the command line and tests call the same one."""

from dlg_ml_tasks.tasks.catalogue import TASKS, infer, load_raw, preprocess, promote, retrain, train
from dlg_ml_tasks.tasks.errors import (
    BadInput,
    BatchesFailed,
    DiskFull,
    ExecutorFailed,
    ServiceDown,
    TaskAbandoned,
    TaskCancelled,
    TaskCutShort,
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
from dlg_ml_tasks.tasks.task import Outcome, Port, Task

__all__ = [
    "TASKS",
    "BadInput",
    "BatchesFailed",
    "Counts",
    "DiskFull",
    "ExecutorFailed",
    "Item",
    "Outcome",
    "Plan",
    "Port",
    "Predict",
    "Recipe",
    "RecipeSettings",
    "ServiceDown",
    "Task",
    "TaskAbandoned",
    "TaskCancelled",
    "TaskCutShort",
    "TaskError",
    "TrainingDiverged",
    "infer",
    "load_raw",
    "load_recipe",
    "load_recipe_class",
    "preprocess",
    "promote",
    "retrain",
    "train",
]
