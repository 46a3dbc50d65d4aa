"""Trainings as jobs of a real Slurm: cut short, killed, requeued, cancelled, abandoned, and refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from one_node import OneNodeSlurm

from dlg_ml_tasks.tasks import ExecutorFailed, train
from dlg_ml_tasks.tracking import Reference
from dlg_ml_tasks.tracking.store import experiment_id
from dlg_ml_tasks.tracking.tags import EPOCHS

pytestmark = pytest.mark.integration
HERE = Path(__file__).parent
NIGHT = HERE.parents[1] / "deploy" / "slurm" / "night.sbatch"
Pace = Callable[[float], None]

STEPS = 5
PARAMETERS = {"recipe": "slow_recipe:Slow", "steps_per_epoch": STEPS, "epochs": 12}


def _eventually(condition: Callable[[], Any], seconds: float = 300) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.3)
    return found


def _runs(model: str) -> list[Run]:
    client = MlflowClient()
    return list(client.search_runs([experiment_id(client)], f"params.model_name = '{model}'"))


def _epochs(model: str) -> int:
    return max((int(run.data.tags.get(EPOCHS, 0)) for run in _runs(model)), default=0)


def _job(model: str) -> str:
    """The name of the model's jobs."""
    return f"dlg-ml-train-{_eventually(lambda: _runs(model))[0].info.run_id[:12]}"


def _jobs(slurm: OneNodeSlurm, model: str, states: str = "all") -> list[str]:
    listed = slurm.command("squeue", "--noheader", f"--states={states}", f"--name={_job(model)}", "--format=%i")
    return sorted(listed.split(), key=int)


def _limit(slurm: OneNodeSlurm, job: str, minutes: int) -> None:
    slurm.command("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")


def _seconds(slurm: OneNodeSlurm, job: str) -> float:
    """How long a job has been running."""
    clock = slurm.command("squeue", "--noheader", f"--jobs={job}", "--format=%M").strip()
    return sum(60**power * int(part) for power, part in enumerate(reversed(clock.split(":"))))


class Command:
    """`dlg-ml task train` on a machine that submits jobs; killed at the end of the test if it still runs."""

    def __init__(self, folder: Path, model: str, data: Reference, slurm: dict[str, Any]) -> None:
        (folder / "data.json").write_text(data.model_dump_json())
        self.log = folder / f"{model}.log"
        self.out = folder / f"{model}.json"
        options = {f"--{name.replace('_', '-')}": str(value) for name, value in PARAMETERS.items()}
        options |= {"--model-name": model, "--data": str(folder / "data.json"), "--executor": "slurm"}
        options |= {"--slurm": json.dumps(slurm), "--out": str(self.out)}
        words = [word for option in options.items() for word in option]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dlg_ml_tasks.cli.main", "task", "train", *words], stdout=log, stderr=log
            )

    def code(self) -> int:
        return self.process.wait(900)

    def reference(self) -> Reference:
        assert self.code() == 0, self.log.read_text()
        return Reference.model_validate_json(self.out.read_text())


@pytest.fixture
def command(data: Reference, tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts the command for a model, with Slurm options."""
    started: list[Command] = []

    def start(model: str, **slurm: Any) -> Command:
        started.append(Command(tmp_path, model, data, slurm))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


def test_trainings_stopped_ahead_of_their_time_limit_and_killed_by_it_end_with_the_weights_of_an_undisturbed_one(
    slurm: OneNodeSlurm, data: Reference, set_pace: Pace, command: Callable[..., Command], tmp_path: Path
) -> None:
    whole = train.run({**PARAMETERS, "model_name": "whole"}, {"data": [data]})
    set_pace(4)
    warned = command("warned", time_limit="20", notice=170)
    killed = command("killed", time_limit="20", notice=0)
    first = {model: _eventually(lambda model=model: _jobs(slurm, model))[0] for model in ("warned", "killed")}
    _eventually(lambda: _epochs("warned") and _epochs("killed"))
    # Slurm counts limits in minutes and looks at them twice a minute: the one has at least one more, the other is past it.
    _limit(slurm, first["warned"], int(_seconds(slurm, first["warned"])) // 60 + 2)
    _limit(slurm, first["killed"], 1)
    _eventually(lambda: "Restarts=1" in slurm.command("scontrol", "show", "job", first["warned"]))
    _limit(slurm, first["warned"], 20)
    _eventually(lambda: len(_jobs(slurm, "killed")) == 2)
    set_pace(0)
    assert warned.reference().digest == whole.reference.digest
    assert killed.reference().digest == whole.reference.digest
    for model, training in (("warned", warned), ("killed", killed)):
        (run,) = _runs(model)
        assert run.info.status == "FINISHED"
        streamed = training.log.read_text()
        assert "epoch 1/12" in streamed
        assert "epoch 12/12" in streamed
    log = MlflowClient().download_artifacts(_runs("warned")[0].info.run_id, "task.log", str(tmp_path))
    assert Path(log).read_text().count("runs on") == 2
    assert "stopped ahead of the time limit" in warned.log.read_text()
    assert "reached its time limit" in killed.log.read_text()
    assert len(_jobs(slurm, "warned")) == 1


def test_a_cancelled_training_takes_its_job_along(
    slurm: OneNodeSlurm, set_pace: Pace, command: Callable[..., Command]
) -> None:
    set_pace(1)
    training = command("cancelled")
    _eventually(lambda: _epochs("cancelled"))
    training.process.send_signal(signal.SIGTERM)
    assert training.code() == 128 + signal.SIGTERM
    _eventually(lambda: not _jobs(slurm, "cancelled", "running,pending,completing"))
    (run,) = _runs("cancelled")
    assert run.info.status == "KILLED"


def test_a_job_whose_node_manager_died_is_found_again_though_slurm_was_away(
    slurm: OneNodeSlurm, data: Reference, set_pace: Pace
) -> None:
    """Also: a job requeued by Slurm goes on."""
    set_pace(1)
    params = {**PARAMETERS, "model_name": "orphan", "executor": "slurm"}
    request = {
        "task": "train", "light": False, "params": params, "inputs": {"data": [data.model_dump()]},
        "lost": [], "session": "first", "node": "train", "force": False,
    }  # fmt: skip
    manager = subprocess.Popen(
        [sys.executable, HERE / "manager.py", json.dumps(request)], stdout=subprocess.PIPE, text=True
    )
    assert manager.stdout is not None
    for line in manager.stdout:
        if line.startswith("epoch 1/"):
            break
    manager.kill()
    manager.wait()
    job = _jobs(slurm, "orphan")

    def disturb() -> None:
        _eventually(lambda: _epochs("orphan") >= 3)
        slurm.command("scontrol", "requeue", job[0])
        slurm.stop_controller()
        time.sleep(8)
        slurm.start_controller()
        set_pace(0)

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        again = train.run(params, {"data": [data]}, session="second", node="train")
    finally:
        disturber.join()
        manager.stdout.close()
    (run,) = _runs("orphan")
    assert (again.run_id, again.reused, run.info.status) == (run.info.run_id, True, "FINISHED")
    assert _jobs(slurm, "orphan") == job


def test_two_processes_learn_what_one_does(slurm: OneNodeSlurm, data: Reference) -> None:
    one = train.run({**PARAMETERS, "model_name": "one"}, {"data": [data]})
    two = train.run({**PARAMETERS, "model_name": "two", "devices": 2, "executor": "slurm"}, {"data": [data]})
    losses = {
        outcome.run_id: [metric.value for metric in MlflowClient().get_metric_history(outcome.run_id, "train_loss")]
        for outcome in (one, two)
    }
    assert losses[two.run_id] == pytest.approx(losses[one.run_id], rel=1e-3)
    assert two.metrics["accuracy"] == pytest.approx(one.metrics["accuracy"], abs=0.02)
    assert two.reference.digest != one.reference.digest
    assert len(MlflowClient().search_model_versions("name = 'two'")) == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [({"partition": "nowhere"}, "invalid partition"), ({"python": "/no/such/python"}, "/no/such/python")],
)
def test_a_job_that_cannot_be_is_explained_in_one_line(
    slurm: OneNodeSlurm, data: Reference, options: dict[str, str], named: str
) -> None:
    params = {**PARAMETERS, "model_name": "impossible", "executor": "slurm", "slurm": options}
    with pytest.raises(ExecutorFailed) as caught:
        train.run(params, {"data": [data]})
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    (run,) = _runs("impossible")
    assert run.info.status == "FAILED"


def test_a_job_cancelled_in_slurm_ends_the_task(slurm: OneNodeSlurm, data: Reference, set_pace: Pace) -> None:
    set_pace(1)

    def scancel() -> None:
        _eventually(lambda: _epochs("scancelled"))
        slurm.command("scancel", _jobs(slurm, "scancelled")[0])

    canceller = threading.Thread(target=scancel)
    canceller.start()
    try:
        with pytest.raises(ExecutorFailed, match="was cancelled in Slurm"):
            train.run({**PARAMETERS, "model_name": "scancelled", "executor": "slurm"}, {"data": [data]})
    finally:
        canceller.join()
    assert [run.info.status for run in _runs("scancelled")] == ["KILLED"]


def test_without_slurm_on_the_machine_the_task_says_so(
    data: Reference, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExecutorFailed, match="no command 'squeue'"):
        train.run({**PARAMETERS, "model_name": "alone", "executor": "slurm"}, {"data": [data]})


def test_the_batch_script_of_a_whole_night_goes_on_after_the_notice_of_its_time_limit(
    slurm: OneNodeSlurm, set_pace: Pace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = tmp_path / "venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "activate").write_text(f"export PATH={Path(sys.executable).parent}:$PATH\n")
    monkeypatch.setenv("DLG_ML_VENV", str(venv.parent))
    set_pace(0.2)  # of the recipe's own 60 steps per epoch
    words = ("--export=ALL", "--chdir", str(tmp_path), str(NIGHT), "slow_recipe:Slow", "night", "sample:night-A")
    job = slurm.command("sbatch", "--parsable", "--cpus-per-task=1", "--mem=1G", *words).strip()
    _eventually(lambda: _epochs("night") or _ended(slurm, job))
    slurm.command("scancel", "--signal=USR1", job)
    _eventually(lambda: "Restarts=1" in slurm.command("scontrol", "show", "job", job) or _ended(slurm, job))
    set_pace(0)
    _eventually(lambda: _ended(slurm, job))
    printed = (tmp_path / f"dlg-ml-night-{job}.out").read_text()
    assert "JobState=COMPLETED" in slurm.command("scontrol", "show", "job", job), printed
    assert printed.count("reused in") == 2
    assert "resuming from the checkpoint" in printed
    assert sorted(run.info.status for run in _runs("night")) == ["FINISHED", "KILLED"]


def _ended(slurm: OneNodeSlurm, job: str) -> bool:
    return "EndTime" in (shown := slurm.command("scontrol", "show", "job", job)) and not any(
        f"JobState={state}" in shown for state in ("PENDING", "RUNNING", "COMPLETING")
    )
