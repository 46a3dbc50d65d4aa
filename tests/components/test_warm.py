"""What the fork server does before the first task."""

from __future__ import annotations

import subprocess
import sys

_WARMED = """
import sys
import torch

def refuse(*args, **kwargs):
    raise SystemExit("a GPU was asked for")

for question in ("is_available", "device_count", "current_device", "_lazy_init"):
    setattr(torch.cuda, question, refuse)

import dlg_ml_tasks.components.warm

from mlflow.utils import requirements_utils

print("sympy" in sys.modules, bool(requirements_utils._MODULES_TO_PACKAGES))
"""


def test_the_fork_server_knows_what_saving_a_model_takes_and_leaves_gpus_to_its_copies() -> None:
    done = subprocess.run([sys.executable, "-c", _WARMED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True"]
