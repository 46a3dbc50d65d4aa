"""What a job asks of Slurm: options are checked before anything is submitted, and stand in its script as they are meant."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from dlg_ml_tasks.slurm import SlurmOptions, batch_script
from dlg_ml_tasks.slurm.commands import _exported, _without_own_job
from dlg_ml_tasks.tasks import TASKS, BadInput

TRAIN = {"recipe": "digits", "model_name": "m"}


def _script(devices: int = 1, **options: Any) -> str:
    return batch_script("dlg-ml-train-1", "some.module", ["task", "continue", "1"], SlurmOptions(**options), devices, 2)


@pytest.mark.parametrize(
    ("options", "devices", "named"),
    [
        ({"partion": "gpu"}, 1, "partion"),
        ({"partition": "a\n#SBATCH --uid=0"}, 1, "partition"),
        ({"time_limit": "soon"}, 1, "soon"),
        ({"time_limit": "1", "notice": 60}, 1, "notice=60"),
        ({"time_limit": "00:02:00"}, 1, "notice=120"),
        ({"memory": "lots"}, 1, "lots"),
        ({"gpus": 2}, 1, "gpus=2"),
        ({"nodes": 3}, 4, "nodes=3"),
        ({"extra": ["rm -rf /"]}, 1, "rm -rf"),
        ({"environment": ["A=b"]}, 1, "A=b"),
        ({"setup": ["a\nb"]}, 1, "setup"),
    ],
)
def test_an_option_that_cannot_be_is_refused_with_its_value(options: dict[str, Any], devices: int, named: str) -> None:
    with pytest.raises(BadInput) as caught:
        TASKS["train"].validate({**TRAIN, "executor": "slurm", "devices": devices, "slurm": options})
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", ["30", "30:00", "00:30:00", "1-00", "1-00:00", "1-00:00:00"])
def test_time_limits_are_written_as_slurm_does(limit: str) -> None:
    SlurmOptions(time_limit=limit).refuse_if_impossible(1)


def test_options_come_as_json_text_as_graphs_carry_them() -> None:
    params = TASKS["train"].validate({**TRAIN, "slurm": '{"partition": "gpu"}'})
    assert params.slurm == {"partition": "gpu"}
    assert TASKS["train"].validate({**TRAIN, "slurm": ""}).slurm == {}


def test_the_sites_defaults_hold_where_nothing_else_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLG_ML_SLURM", '{"partition": "gpu", "account": "ska"}')
    options = SlurmOptions.with_site_defaults({"partition": "short"})
    assert (options.partition, options.account) == ("short", "ska")
    monkeypatch.setenv("DLG_ML_SLURM", "{oops")
    with pytest.raises(ValueError, match=r"DLG_ML_SLURM.*oops"):
        SlurmOptions.with_site_defaults({})


def test_every_option_stands_in_the_script() -> None:
    script = _script(
        devices=4, partition="gpu", account="ska", qos="long", time_limit="04:00:00", memory="16G", cpus=8, gpus=4,
        gpu_type="a100", nodes=2, modules=["cuda/12"], setup=["source /opt/env"], container="/images/ml.sif", scratch="/local/x",
        output="/logs/my job.out", notice=300, extra=["--exclusive", "--comment=two words"],
    )  # fmt: skip
    for line in (
        "#SBATCH --partition=gpu", "#SBATCH --account=ska", "#SBATCH --qos=long", "#SBATCH --time=04:00:00", "#SBATCH --mem=16G",
        "#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=2", "#SBATCH --cpus-per-task=8", "#SBATCH --gres=gpu:a100:2",
        "#SBATCH --requeue", "#SBATCH --signal=USR1@300", '#SBATCH --output="/logs/my job.out"', "#SBATCH --exclusive",
        '#SBATCH --comment="two words"', "module load cuda/12", "source /opt/env", "export DLG_ML_SCRATCH=/local/x",
    ):  # fmt: skip
        assert line in script.splitlines()
    assert "apptainer exec --nv /images/ml.sif python3 -m some.module task continue 1" in script


@pytest.mark.parametrize("options", [{}, {"container": "/a b.sif", "scratch": "/tmp/it's"}, {"modules": ["a/1", "b"]}])
def test_the_script_is_valid_shell(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "job").write_text(_script(**options))
    subprocess.run(["bash", "-n", str(tmp_path / "job")], check=True)


def test_only_what_reaches_the_services_goes_with_the_job_and_by_name_only() -> None:
    here = {
        "MLFLOW_TRACKING_PASSWORD": "x",
        "DLG_ML_NGAS_USER": "y",
        "DLG_ML_SCRATCH": "/here",
        "AWS_SECRET": "z",
        "SITE": "1",
    }
    assert _exported(here, ["SITE"]) == ["DLG_ML_NGAS_USER", "MLFLOW_TRACKING_PASSWORD", "SITE"]


def test_a_job_that_submits_another_does_not_hand_on_its_own_size() -> None:
    here = {"SLURM_CONF": "/etc/slurm.conf", "SLURM_NTASKS": "8", "SBATCH_ACCOUNT": "ska"}
    assert _without_own_job(here) == {"SLURM_CONF": "/etc/slurm.conf", "SBATCH_ACCOUNT": "ska"}
