"""Waiting for work that is done elsewhere: its log is passed on, lost work is started again, and it is stopped with us.

Slurm or the tracking server may be away for a while: then the work is not, and waiting goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from dlg_ml_tasks.tasks.errors import ExecutorFailed, TaskAbandoned, TaskError
from dlg_ml_tasks.tasks.executors.executor import Executor, ExecutorSilent, State, Verdict
from dlg_ml_tasks.tracking import Reference
from dlg_ml_tasks.tracking.relay import UNREACHABLE, RunWatch, Seen
from dlg_ml_tasks.tracking.runs import TaskRun
from dlg_ml_tasks.tracking.tags import EPOCHS, JOB, PROGRESS, STOP

_LOOK_SECONDS = 1.0
_SHORTEST, _LONGEST = 2.0, 15.0
"""Seconds between two questions to the executor: a cluster's controller has many to answer, and a long job can wait for its."""
_UNREACHABLE_SECONDS = 900.0
"""How long the tracking server may be away once the work is over."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """What the work left: the reference, and the run's metrics."""

    reference: Reference
    metrics: Mapping[str, float]


def wait(run: TaskRun, executor: Executor) -> Finished:
    """Have the work of a run done, and wait until the run has finished; returns what it left.

    Raises TaskError if the work failed or cannot be done. TaskCancelled, raised here by a signal, stops the work first, except for
    TaskAbandoned where the work outlives who waits: it goes on, and who asks for it next finds it.
    """
    try:
        finished = _Waiting(run, executor).until_finished()
    except TaskError:
        executor.release()
        raise
    except BaseException as error:
        if isinstance(error, TaskAbandoned) and executor.outlives:
            log.info("nobody waits any more; the work goes on")
        else:
            _stop(run, executor)
        raise
    executor.release()
    return finished


def _stop(run: TaskRun, executor: Executor) -> None:
    try:
        executor.cancel()
    except ExecutorSilent as error:
        # The work looks for this tag itself.
        log.warning("it could not be cancelled (%s); the run asks it to stop", error)
        run.set_tags({STOP: "cancelled"})


class _Waiting:
    def __init__(self, run: TaskRun, executor: Executor) -> None:
        self._run = run
        self._executor = executor
        self._watch = RunWatch(run.run_id)
        self._seen = Seen("RUNNING", ())
        self._epochs = 0.0
        self._idle_starts = 0
        self._over: State | None = None
        self._said = ""
        self._told: Mapping[str, str] = {}
        self._silent_since: float | None = None
        self._unseen_since: float | None = None

    def until_finished(self) -> Finished:
        self._look_at_run()
        self._submit()
        began = asked = time.monotonic()
        while True:
            self._look_at_run()
            if self._seen.output is not None and self._seen.status == "FINISHED":
                self._watch.forget_log()
                return Finished(self._seen.output, self._seen.metrics)
            if self._seen.status == "FAILED":
                self._watch.forget_log()
                raise ExecutorFailed(self._seen.reason)
            now = time.monotonic()
            if now - asked >= min(_LONGEST, max(_SHORTEST, (now - began) / 20)):
                asked = now
                self._look_at_work()
            time.sleep(_LOOK_SECONDS)

    def _submit(self) -> None:
        self._epochs = self._seen.metrics.get(EPOCHS, 0.0)
        while True:
            try:
                text = self._executor.submit()
            except ExecutorSilent as error:
                self._be_silent(error)
                time.sleep(_SHORTEST)
            else:
                break
        self._silent_since = None
        log.info("%s", text)
        self._tell({JOB: text})

    def _look_at_run(self) -> None:
        try:
            self._seen = self._watch.look()
            self._unseen_since = None
        except UNREACHABLE as error:
            now = time.monotonic()
            if self._unseen_since is None:
                self._unseen_since = now
                log.warning("the tracking server does not answer (%s); waiting goes on", type(error).__name__)
            if self._over is not None and now - self._unseen_since > _UNREACHABLE_SECONDS:
                raise
            return
        for line in self._seen.lines:
            log.info("%s", line)

    def _look_at_work(self) -> None:
        try:
            state = self._executor.look()
        except ExecutorSilent as error:
            self._be_silent(error)
            return
        self._silent_since = None
        if not state.is_over:
            self._over = None
            self._say(state)
        elif self._over is None:
            # Asked once more: its last word may be on its way, and a job that is requeued looks ended for a moment.
            self._over = state
        elif self._unseen_since is None:
            self._over = None
            self._begin_again(state)

    def _begin_again(self, state: State) -> None:
        further = self._seen.metrics.get(EPOCHS, 0.0) > self._epochs
        self._idle_starts = 0 if further else self._idle_starts + 1
        allowed = further or (state.verdict == Verdict.AGAIN and self._idle_starts <= self._executor.resubmissions)
        if state.verdict == Verdict.NEVER or not allowed:
            further_words = (
                "" if further or state.verdict == Verdict.NEVER else ", and no epoch was finished since it was started"
            )
            raise ExecutorFailed(f"{state.text}{further_words}")
        log.warning("%s; it is started again", state.text)
        self._submit()

    def _say(self, state: State) -> None:
        if state.text != self._said:
            self._said = state.text
            log.info("%s", state.text)
        if state.waits:
            self._tell({PROGRESS: state.text})

    def _be_silent(self, error: ExecutorSilent) -> None:
        if self._silent_since is None:
            self._silent_since = time.monotonic()
            log.warning("%s does not answer: %s; waiting goes on", self._executor.name, error)
        minutes = (time.monotonic() - self._silent_since) / 60
        if minutes >= 1:
            self._tell({PROGRESS: f"{self._executor.name} has not answered for {minutes:.0f} min"})

    def _tell(self, tags: Mapping[str, str]) -> None:
        """What is good to know, and no reason to give up if it cannot be told."""
        if tags == self._told:
            return
        try:
            self._run.set_tags(tags)
        except UNREACHABLE as error:
            log.warning("the tracking server does not answer (%s)", type(error).__name__)
        else:
            self._told = tags
