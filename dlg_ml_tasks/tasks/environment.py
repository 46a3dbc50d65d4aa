"""What a run's result may depend on besides parameters and inputs: interpreter, machine, package versions, git commit."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import subprocess
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import dlg_ml_tasks

SCRATCH = "DLG_ML_SCRATCH"
"""Environment variable with the folder for temporary files of tasks (default: the system's)."""


@functools.cache
def describe_environment() -> dict[str, Any]:
    """Interpreter, platform and the version of every installed package."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "packages": {d.metadata["Name"]: d.version for d in distributions()},
    }


@functools.cache
def environment_file() -> tuple[str, str]:
    """`describe_environment` as a text, and a file name for it that no other environment has."""
    text = json.dumps(describe_environment(), indent=2, sort_keys=True)
    return f"environment-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json", text


@functools.cache
def git_commit() -> str:
    """Commit of this package's checkout (marked -dirty if changed), or its version when it is installed without one."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],  # noqa: S607 (git is found on PATH)
            cwd=Path(dlg_ml_tasks.__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return f"dlg-ml-tasks {version('dlg-ml-tasks')}"
    return found.stdout.strip()
