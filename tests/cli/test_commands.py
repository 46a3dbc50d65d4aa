"""The command line without any server: help that teaches, and errors in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

GRAPHS = Path(__file__).parents[2] / "graphs"


def _run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DLG_ML", "MLFLOW"))}
    return subprocess.run(
        [sys.executable, "-m", "dlg_ml_tasks.cli.main", *arguments],
        env=environment | {"DLG_ML_HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_of_a_task_shows_its_parameters_with_defaults(tmp_path: Path) -> None:
    done = _run("task", "train", "--help", home=tmp_path)
    assert done.returncode == 0
    for text in ("--learning-rate", "--seed", "[default: 0]", "--data", "--force", "--json", "[required]"):
        assert text in done.stdout


def test_help_needs_no_heavy_imports(tmp_path: Path) -> None:
    heavy = ("torch", "mlflow", "lightning", "dlg", "numpy")
    program = f"import sys, dlg_ml_tasks.cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("run", "missing.graph"), "missing.graph"),
        (("run", str(GRAPHS / "train.graph")), "dlg-ml up"),
        (("run", str(GRAPHS / "train.graph"), "--set", "trian.epochs=3"), "trian"),
        (("graphs", "check", str(GRAPHS / "train.graph"), "--set", "train.epoch=3"), "epoch"),
        (("task", "load-raw", "--sources", "x"), "dlg-ml up"),
        (("models", "list"), "dlg-ml up"),
        (("ngas", "ls", "http://127.0.0.1/x"), "http://127.0.0.1/x"),
        (("backup", "new"), "dlg-ml up"),
        (("backup", "new", "--database-env", "DLG_ML_NO_SUCH"), "DLG_ML_NO_SUCH"),
        (("backup", "new", "--stack", "compose", "--database-env", "DLG_ML_X"), "--stack compose"),
        (("backup", "--verify", "no-such-backup"), "no-such-backup"),
        (("restore", "no-such-backup"), "no-such-backup"),
        (("restore", "no-such-backup", "--database-file", "no-such-secret"), "no-such-secret"),
        (("ngas", "put", "no-such-file", "ngas://127.0.0.1:9/x"), "no-such-file"),
    ],
)
def test_what_a_person_can_mend_is_said_in_one_line(arguments: tuple[str, ...], named: str, tmp_path: Path) -> None:
    done = _run(*arguments, home=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert named in done.stderr


def test_a_good_graph_passes_the_check_and_a_bad_one_is_explained_node_by_node(tmp_path: Path) -> None:
    assert _run("graphs", "check", str(GRAPHS / "lifecycle.graph"), home=tmp_path).returncode == 0
    bad = _run("graphs", "check", str(GRAPHS / "lifecycle.graph"), "--set", "epochs=-1", home=tmp_path)
    assert bad.returncode == 1
    assert "train" in bad.stdout
    assert "-1" in bad.stdout


def test_status_of_a_stack_that_is_down_is_told_by_the_exit_code(tmp_path: Path) -> None:
    done = _run("status", home=tmp_path)
    assert done.returncode == 1
    assert "mlflow" in done.stdout


def test_simulating_into_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    done = _run("simulate", "rfi", "--night", "A", "--out", str(tmp_path), home=tmp_path / "home")
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr
