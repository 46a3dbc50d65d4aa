"""Waiting for work that is done elsewhere, with an executor that does as it is told; the run and its tags are real."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

import pytest
from mlflow import MlflowClient

from dlg_ml_tasks.tasks import ExecutorFailed, TaskAbandoned, TaskCancelled
from dlg_ml_tasks.tasks.executors import waiting
from dlg_ml_tasks.tasks.executors.executor import ExecutorSilent, State, Verdict
from dlg_ml_tasks.tracking import Reference
from dlg_ml_tasks.tracking.relay import LogRelay
from dlg_ml_tasks.tracking.runs import TaskRun, TaskToRun

pytestmark = pytest.mark.usefixtures("tracking")
REFERENCE = Reference(kind="model", uri="models:/m/1", run_id="0" * 32, digest="a" * 64, fingerprint="f" * 64)
VANISHED = State("job 1 has vanished", is_over=True, verdict=Verdict.AGAIN)
TIME_LIMIT = State("job 1 reached its time limit", is_over=True, verdict=Verdict.IF_FURTHER)
RUNNING = State("running")


class Scripted:
    """Says one after the other what it is given: a State, something to raise, or something to do before the next."""

    name = "scripted"
    outlives = True
    resubmissions = 2

    def __init__(self, *script: object) -> None:
        self._script = iter(script)
        self.submitted = 0
        self.cancelled = self.released = False
        self.refuses_to_cancel = False

    def submit(self) -> str:
        self.submitted += 1
        return f"submitted {self.submitted}"

    def look(self) -> State:
        for step in self._script:
            if isinstance(step, State):
                return step
            if isinstance(step, BaseException):
                raise step
            step()  # type: ignore[operator]
        raise AssertionError("the waiting did not end")

    def cause(self) -> str:
        return ""

    def release(self) -> None:
        self.released = True

    def cancel(self) -> None:
        self.cancelled = True
        if self.refuses_to_cancel:
            raise ExecutorSilent("no answer")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LOOK_SECONDS", "_SHORTEST", "_LONGEST"):
        monkeypatch.setattr(waiting, name, 0.01)


@pytest.fixture
def run() -> Iterator[TaskRun]:
    yield TaskRun.start(TaskToRun("train", "train", "f" * 64))


def _tags(run: TaskRun) -> dict[str, str]:
    return dict(MlflowClient().get_run(run.run_id).data.tags)


def _finish(run: TaskRun) -> object:
    return lambda: run.finish(REFERENCE, {"accuracy": 0.5})


def test_a_job_that_waits_says_why_as_progress_and_its_result_comes_back(run: TaskRun) -> None:
    seen = []
    script = Scripted(
        State("pending: Resources", waits=True), lambda: seen.append(_tags(run)), RUNNING, _finish(run), RUNNING
    )
    finished = waiting.wait(run, script)
    assert seen[0]["dlg_ml.progress"] == "pending: Resources"
    assert seen[0]["dlg_ml.job"] == "submitted 1"
    assert (finished.reference, finished.metrics["accuracy"]) == (REFERENCE, 0.5)
    assert script.released


def test_waiting_outlives_a_controller_that_does_not_answer(run: TaskRun) -> None:
    script = Scripted(RUNNING, *[ExecutorSilent("no answer")] * 20, RUNNING, _finish(run), RUNNING)
    assert waiting.wait(run, script).reference == REFERENCE
    assert script.submitted == 1


def test_a_job_that_looks_ended_for_a_moment_is_not_submitted_again(run: TaskRun) -> None:
    script = Scripted(
        RUNNING, VANISHED, State("pending: BeginTime", waits=True), VANISHED, RUNNING, _finish(run), RUNNING
    )
    waiting.wait(run, script)
    assert script.submitted == 1


def test_a_vanished_job_is_submitted_again_but_not_for_ever(run: TaskRun) -> None:
    script = Scripted(*itertools.repeat(VANISHED, 20))
    with pytest.raises(ExecutorFailed, match="vanished"):
        waiting.wait(run, script)
    assert script.submitted == 1 + script.resubmissions


def test_a_job_at_its_time_limit_is_submitted_again_only_if_it_got_further(run: TaskRun) -> None:
    script = Scripted(
        lambda: run.set_tags({"dlg_ml.epochs": "1"}), RUNNING, TIME_LIMIT, TIME_LIMIT,
        lambda: run.set_tags({"dlg_ml.epochs": "2"}), RUNNING, TIME_LIMIT, TIME_LIMIT,
        RUNNING, TIME_LIMIT, TIME_LIMIT,
    )  # fmt: skip
    with pytest.raises(ExecutorFailed, match=r"time limit.*no epoch was finished"):
        waiting.wait(run, script)
    assert script.submitted == 3


def test_a_failure_of_the_work_is_told_with_its_own_words(run: TaskRun) -> None:
    script = Scripted(
        RUNNING, lambda: run.fail("Traceback ...\ndlg_ml_tasks.tasks.errors.BadInput: no labelled item"), RUNNING
    )
    with pytest.raises(ExecutorFailed, match=r"^no labelled item$"):
        waiting.wait(run, script)


@pytest.mark.parametrize("refuses", [False, True])
def test_a_cancelled_task_cancels_its_job_and_asks_the_job_itself_if_nobody_else_can(
    run: TaskRun, refuses: bool
) -> None:
    script = Scripted(RUNNING, TaskCancelled())
    script.refuses_to_cancel = refuses
    with pytest.raises(TaskCancelled):
        waiting.wait(run, script)
    assert script.cancelled
    assert ("dlg_ml.stop" in _tags(run)) is refuses


def test_a_task_that_nobody_waits_for_leaves_its_job_alone(run: TaskRun) -> None:
    script = Scripted(RUNNING, TaskAbandoned())
    with pytest.raises(TaskAbandoned):
        waiting.wait(run, script)
    assert not script.cancelled


def test_work_that_ends_with_who_waits_for_it_is_stopped_when_nobody_does(run: TaskRun) -> None:
    script = Scripted(RUNNING, TaskAbandoned())
    script.outlives = False
    with pytest.raises(TaskAbandoned):
        waiting.wait(run, script)
    assert script.cancelled


def test_the_log_of_the_work_is_passed_on_line_by_line(run: TaskRun, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dlg_ml_tasks")
    relay = LogRelay(run.run_id, lambda: None)
    source = logging.getLogger("elsewhere")
    source.setLevel(logging.INFO)

    def say() -> None:
        source.addHandler(relay)
        for number in range(3):
            source.info("line %d\nof two", number)
        source.removeHandler(relay)
        relay.finish()

    waiting.wait(run, Scripted(RUNNING, say, RUNNING, _finish(run), RUNNING))
    passed = [record.getMessage() for record in caplog.records if record.name.endswith("waiting")]
    assert [line for line in passed if line.startswith("line")] == [f"line {n}\nof two" for n in range(3)]
    assert "dlg_ml.log" not in _tags(run)


def test_more_log_lines_than_a_tag_holds_are_counted(run: TaskRun, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dlg_ml_tasks")
    relay = LogRelay(run.run_id, lambda: None)
    for number in range(1000):
        relay.handle(logging.makeLogRecord({"msg": f"line {number} " + "é" * 50, "levelno": logging.INFO}))
    relay.finish()
    waiting.wait(run, Scripted(RUNNING, _finish(run), RUNNING))
    passed = [record.getMessage() for record in caplog.records if record.name.endswith("waiting")]
    assert any("lines are in the run's task.log only" in line for line in passed)
    assert any(line.startswith("line 999 ") for line in passed)


def test_work_that_is_asked_to_stop_stops(run: TaskRun, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlg_ml_tasks.tracking import relay as module

    monkeypatch.setattr(module, "_SEND_SECONDS", 0.02)
    asked: list[bool] = []
    relay = LogRelay(run.run_id, lambda: asked.append(True))
    run.set_tags({"dlg_ml.stop": "cancelled"})
    while not asked:
        relay._thread.join(0.05)
    relay.finish()
    assert asked == [True]
