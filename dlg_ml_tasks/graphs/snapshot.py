"""A deployed graph at one moment: what the engine's states of its drops mean for its tasks."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from typing import Any, Literal

from dlg_ml_tasks.components.copies import copy_name, copy_numbers_in
from dlg_ml_tasks.components.palette import task_of
from dlg_ml_tasks.graphs.states import SUCCEEDED, UNFINISHED, DropState, ExecutionState

TaskState = Literal["waiting", "running", "reused", "finished", "failed", "skipped", "cancelled"]
DropStates = Mapping[str, Mapping[str, int]]
"""By oid: "status", and "execStatus" for applications."""
Enrichment = Mapping[str, Any]
"""What is known of a task from elsewhere: run_id, run_url, progress, reused, seconds, metrics (all optional)."""

_TASK_STATES: Mapping[int, TaskState] = {
    ExecutionState.NOT_RUN: "waiting",
    ExecutionState.RUNNING: "running",
    ExecutionState.FINISHED: "finished",
    ExecutionState.ERROR: "failed",
    ExecutionState.CANCELLED: "cancelled",
    ExecutionState.SKIPPED: "skipped",
}


@dataclass(frozen=True)
class TaskSnapshot:
    """One task (or other application) of a session at one moment. `seconds` is how long it has run, or ran.

    `node` is its name in the graph, with the copy's number in a scatter; `host` the node manager that it was placed on; `run_url`
    the page of its MLflow run, where MLflow is a server. `error` is the last line of what it raised. A task that could not run
    because one before it failed is skipped.
    """

    node: str
    task: str
    state: TaskState
    oid: str
    seconds: float = 0.0
    error: str = ""
    run_id: str = ""
    run_url: str = ""
    progress: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    host: str = ""

    def with_known(self, known: Enrichment | None) -> TaskSnapshot:
        """The same task with what else is known of it."""
        if not known:
            return self
        reused = bool(known.get("reused")) and self.state in ("running", "finished")
        seconds = float(known.get("seconds", self.seconds))
        return replace(
            self,
            state="reused" if reused else self.state,
            # Of a running task it was told some time ago.
            seconds=max(seconds, self.seconds) if self.state == "running" else seconds,
            run_id=str(known.get("run_id", "")),
            run_url=str(known.get("run_url", "")),
            progress=str(known.get("progress", "")),
            metrics=dict(known.get("metrics", {})),
        )


@dataclass(frozen=True)
class _Application:
    oid: str
    name: str
    task: str
    host: str
    inputs: tuple[str, ...]
    goes_on: bool
    """Whether it runs although batches failed (copies in a scatter), and so fails by itself if it does."""


class DeployedGraph:
    """The drops of a session as they were deployed, over all nodes."""

    def __init__(self, specifications: Mapping[str, Mapping[str, Any]]) -> None:
        self._host = {oid: str(drop.get("node", "")) for oid, drop in specifications.items()}
        self._leaves = [oid for oid, drop in specifications.items() if _is_leaf(drop)]
        depths = _depths(specifications)
        applications = [
            _Application(
                oid,
                copy_name(str(drop.get("name", oid)), drop.get("iid", "0")),
                _task_name(drop),
                self._host[oid],
                tuple(_linked(drop.get("inputs", ()))),
                goes_on=str(drop.get("max_failed_batches", "")).strip() not in ("", "0"),
            )
            for oid, drop in specifications.items()
            if _is_application(drop)
        ]
        # Each node manager lists its own drops, so the graph's order has to be found again; sorting keeps that of equals.
        self._applications = sorted(applications, key=lambda each: (depths[each.oid], _natural(each.name)))

    @property
    def hosts(self) -> frozenset[str]:
        """The node managers that hold drops of the session."""
        return frozenset(self._host.values())

    def tasks(self, drops: DropStates, lost: Container[str] = ()) -> tuple[TaskSnapshot, ...]:
        """The applications, each after those it waits for. What had not ended on a node manager in `lost` has failed."""
        return tuple(
            TaskSnapshot(each.name, each.task, self._state(each, drops, lost), each.oid, host=each.host)
            for each in self._applications
        )

    def has_succeeded(self, drops: DropStates) -> bool:
        """Whether every last drop was completed, or skipped by a branch."""
        return bool(self._leaves) and all(drops.get(oid, {}).get("status") in SUCCEEDED for oid in self._leaves)

    def is_final(self, drops: DropStates, lost: Container[str] = ()) -> bool:
        """Whether nothing is left to run on the nodes that are not lost."""
        return all(
            drops.get(oid, {}).get("status", DropState.INITIALIZED) not in UNFINISHED
            for oid, host in self._host.items()
            if host not in lost
        )

    def _state(self, application: _Application, drops: DropStates, lost: Container[str]) -> TaskState:
        drop = drops.get(application.oid, {})
        if drop.get("status") == DropState.CANCELLED:
            return "cancelled"
        state = _TASK_STATES[drop.get("execStatus", ExecutionState.NOT_RUN)]
        failed_before = [each for each in application.inputs if drops.get(each, {}).get("status") == DropState.ERROR]
        may_go_on = application.goes_on and all(map(copy_numbers_in, failed_before))
        if state == "failed" and failed_before and not may_go_on:
            return "skipped"  # the engine hands an error on to all that comes after it
        if application.host in lost and state in ("running", "waiting"):
            return "failed" if state == "running" else "skipped"
        return state


def _depths(specifications: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """For each drop, how many drops lie on the longest way to it."""
    before: dict[str, set[str]] = {oid: set() for oid in specifications}
    for oid, drop in specifications.items():
        for links in ("inputs", "producers"):
            before[oid].update(each for each in _linked(drop.get(links, ())) if each in before)
        for links in ("outputs", "consumers"):
            for each in _linked(drop.get(links, ())):
                if each in before:
                    before[each].add(oid)
    depths: dict[str, int] = {}
    for oid in TopologicalSorter(before).static_order():
        depths[oid] = 1 + max((depths[each] for each in before[oid]), default=-1)
    return depths


def _natural(name: str) -> tuple[str | int, ...]:
    """A key that sorts copy 10 after copy 9."""
    first, *numbers = name.split("/")
    return (first, *map(int, numbers)) if all(map(str.isdigit, numbers)) else (name,)


def _is_application(drop: Mapping[str, Any]) -> bool:
    return str(drop.get("categoryType", "")).lower() in ("application", "app")


def _is_leaf(drop: Mapping[str, Any]) -> bool:
    return not any(drop.get(link) for link in ("outputs", "consumers", "streamingConsumers"))


def _linked(links: Any) -> Iterator[str]:
    """The oids of a list of links, of which each is an oid or {oid: port}."""
    for each in links:
        yield from each if isinstance(each, dict) else [each]


def _task_name(drop: Mapping[str, Any]) -> str:
    task = task_of(str(drop.get("dropclass", "")))
    return task.name if task else str(drop.get("dropclass", "")).rpartition(".")[2]
