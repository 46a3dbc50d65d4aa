"""Whole graphs whose training is a job of Slurm's: submitted to the engine of an embedded stack as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from one_node import OneNodeSlurm, free_ports, until

from dlg_ml_tasks.stack.ports import Ports

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent
GRAPH = HERE.parents[1] / "graphs" / "train.graph"
ON_SLURM = ("--set", "recipe=slow_recipe:Slow", "--set", "train.executor=slurm")
PATIENCE = 600


class Stack:
    """An embedded stack on free ports, whose node manager may submit jobs."""

    def __init__(self, folder: Path, slurm: OneNodeSlurm) -> None:
        self.pace = folder / "pace"
        home = folder / "home"
        home.mkdir()
        ports = free_ports(len(Ports.model_fields))
        (home / "ports.json").write_text(json.dumps(dict(zip(Ports.model_fields, ports, strict=True))))
        theirs = {k: v for k, v in os.environ.items() if not k.startswith(("DLG_ML", "MLFLOW_TRACKING"))}
        self._environment = (
            theirs
            | slurm.environment
            | {
                "DLG_ML_HOME": str(home),
                "DLG_ML_SLURM": json.dumps({"output": f"{folder}/%x-%j.out", "environment": ["DLG_ML_TEST_PACE"]}),
                "DLG_ML_TEST_PACE": str(self.pace),
                "PYTHONPATH": os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH")))),
                "COLUMNS": "200",
                "NO_COLOR": "1",
            }
        )

    def dlg_ml(self, *arguments: str, code: int = 0) -> str:
        """What the command prints; it must end with this exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "dlg_ml_tasks.cli.main", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def stack(one_node: OneNodeSlurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    started = Stack(tmp_path_factory.mktemp("stack"), one_node)
    started.dlg_ml("up")
    yield started
    started.dlg_ml("down")


def test_a_graph_trains_as_a_job_and_ends_with_a_champion(stack: Stack, one_node: OneNodeSlurm) -> None:
    stack.pace.write_text("0")
    shown = stack.dlg_ml("run", str(GRAPH), *ON_SLURM, "--set", "model_name=job")
    assert "finished" in shown
    session = json.loads(stack.dlg_ml("sessions", "list", "--json"))[0]["session"]
    tasks = json.loads(stack.dlg_ml("sessions", "show", session, "--json"))["tasks"]
    (run_id,) = (task["run_id"] for task in tasks if task["node"] == "train")
    assert len(_jobs(one_node, "completed", f"--name=dlg-ml-train-{run_id[:12]}")) == 1
    assert "epoch 1/" in stack.dlg_ml("sessions", "logs", session, "train")
    (version,) = json.loads(stack.dlg_ml("models", "list", "--json"))
    assert "champion" in version["aliases"]


def test_cancelling_the_session_takes_the_job_along(stack: Stack, one_node: OneNodeSlurm) -> None:
    stack.pace.write_text("1")
    own = ("--set", "model_name=cancelled", "--set", "train.seed=7")
    session = stack.dlg_ml("run", str(GRAPH), *ON_SLURM, *own, "--detach").strip()
    until(lambda: _jobs(one_node, "running"), PATIENCE)
    stack.dlg_ml("sessions", "cancel", session)
    until(lambda: not _jobs(one_node, "running,pending,completing"), PATIENCE)
    tasks = json.loads(stack.dlg_ml("sessions", "show", session, "--json", code=130))["tasks"]
    assert {task["node"]: task["state"] for task in tasks}["train"] == "cancelled"


def _jobs(slurm: OneNodeSlurm, states: str, *more: str) -> list[str]:
    return slurm.command("squeue", "--noheader", f"--states={states}", "--format=%i", *more).split()
