"""A real Slurm of one node, an archive and MLflow's database for its jobs, and preprocessed data of the slow recipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # pytest imports test modules without it, and jobs import the recipe by name

from one_node import OneNodeSlurm, missing_programs  # noqa: E402

from dlg_ml_tasks.tracking import Reference  # noqa: E402


@pytest.fixture(scope="session")
def one_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNodeSlurm]:
    if missing := missing_programs():
        pytest.skip(
            f"Slurm is not installed here ({', '.join(missing)} missing); scripts/slurm.sh installs it on Debian"
        )
    folder = tmp_path_factory.mktemp("slurm")
    for parent in (folder.parent, folder.parent.parent):
        parent.chmod(0o755)  # munged refuses a socket that others cannot reach
    with OneNodeSlurm(folder) as node:
        yield node


@pytest.fixture
def slurm(one_node: OneNodeSlurm, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OneNodeSlurm:
    """The node, with this process's environment as on a machine that submits jobs."""
    for name, value in one_node.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH")))))
    monkeypatch.setenv("DLG_ML_TEST_PACE", str(tmp_path / "pace"))
    monkeypatch.setenv("DLG_ML_SLURM", f'{{"output": "{tmp_path}/%x-%j.out"}}')
    return one_node


@pytest.fixture
def set_pace(slurm: OneNodeSlurm) -> Callable[[float], None]:
    """Says how many seconds each step of each training takes from here on; at first none."""
    pace = Path(os.environ["DLG_ML_TEST_PACE"])

    def to(seconds: float) -> None:
        pace.write_text(str(seconds))

    to(0)
    return to


@pytest.fixture
def data(set_pace: Callable[[float], None]) -> Reference:
    """Preprocessed digits."""
    from dlg_ml_tasks.tasks import load_raw, preprocess

    raw = load_raw.run({"sources": "sample:night-A", "recipe": "digits"})
    return preprocess.run({"recipe": "slow_recipe:Slow"}, {"raw": [raw.reference]}).reference
