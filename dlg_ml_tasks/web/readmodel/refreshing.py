"""Keeps the read model fresh: one background thread asks MLflow and the archive, gently, and says how far it is."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dlg_ml_tasks.web.readmodel.records import Run, is_public, model_from, run_from
from dlg_ml_tasks.web.readmodel.writing import Item, ModelWriter
from dlg_ml_tasks.web.sources.archive import ArchiveReader
from dlg_ml_tasks.web.sources.errors import NotThere, SourceDown
from dlg_ml_tasks.web.sources.mlflow import MlflowReader

log = logging.getLogger(__name__)

INTERVAL_S = 5.0
"""Seconds between two looks at MLflow while people look at pages."""
RESTING_S = 60.0
"""The same while nobody does, and how long after the last page that begins: each look costs MLflow as much as a small task."""
SWEEP_EVERY_S = 3600.0
"""Seconds between two readings of all runs, which find what was deleted or edited after its end; more where one takes long."""

_SWEEPS_SHARE = 0.02  # of the time, at most, is spent on readings of all runs
_FIRST = 100  # runs read before the first page is made
_CHUNK = 500  # runs read at a time after that
_ITEMS_AT_ONCE = 50  # runs whose artifacts are looked at in one round
_CLOCKS_MS = 10_000  # clocks of the machines that end runs may differ
_SIZE_EVERY_S = 300.0
_LARGEST_TABLE = 8 << 20  # bytes of a table of contents; of a larger one nothing is kept
_WITH_ITEMS: Mapping[str, str] = {
    "load_raw": "sources.json",
    "preprocess": "data/dataset.json",
    "infer": "results/metrics.json",
}


@dataclass(frozen=True)
class Freshness:
    """How the last look went.

    ready: pages can be made. complete: all runs were read at least once. asked: when MLflow answered last, in seconds since
    1970; None if it never has. problems: what is down, by source, in words.
    """

    ready: bool = False
    complete: bool = False
    asked: float | None = None
    problems: tuple[str, ...] = ()


class Refresher:
    """Fills and renews the read model until it is stopped. `freshness`, `attend` and `current` are for any thread.

    current: set while what was read is of the last seconds, or as new as it can be.
    """

    def __init__(
        self, writer: ModelWriter, mlflow: MlflowReader, archive: ArchiveReader, *, tagged: bool, known: bool
    ) -> None:
        self._writer = writer
        self._mlflow = mlflow
        self._archive = archive
        self._tagged = tagged
        self.freshness = Freshness(ready=known)
        self.current = threading.Event()
        if known:
            self.current.set()
        self._attended = -RESTING_S
        self._wanted = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refresher", daemon=True)
        self._experiments: Sequence[Mapping[str, Any]] = ()
        self._since = 0
        self._sweep: Iterator[None] | None = None
        self._sweep_began = self._sweep_at = 0.0
        self._sized = -_SIZE_EVERY_S

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for it."""
        self._stop.set()
        self._wanted.set()
        self._thread.join()

    def attend(self) -> bool:
        """Somebody looks at pages; whether they show what is current. Otherwise a look begins at once, or is under way."""
        self._attended = time.monotonic()
        if self.current.is_set():
            return True
        self._wanted.set()
        return False

    def _run(self) -> None:
        busy, looked = False, 0.0
        while not self._stop.is_set():
            began = time.monotonic()
            anew = not busy or began - looked >= INTERVAL_S
            if anew:
                looked = began
            try:
                busy = self._look(anew=anew)
            except Exception:  # a fault of this code must not leave the pages standing still without a word
                log.exception("a look at MLflow and the archive failed")
                self._tell(problems=("this site's own refreshing: failed",))
                busy = False
            if self.freshness.ready:
                self.current.set()  # also where MLflow is down: there is nothing newer to wait for
            if busy:
                # There is something to catch up with; the servers have others to serve, too.
                self._stop.wait(min(max(time.monotonic() - began, 0.05), INTERVAL_S))
            elif not self.freshness.ready or time.monotonic() - self._attended < RESTING_S:
                self._stop.wait(INTERVAL_S)
            else:
                self.current.clear()
                self._wanted.wait(RESTING_S)
                self._wanted.clear()

    def _look(self, *, anew: bool = True) -> bool:
        """One round; whether more is to be read at once. anew: MLflow is asked what has changed, too."""
        problems: list[str] = []
        busy = False
        try:
            if anew:
                self._look_at_experiments()
                self._look_at_runs()
                self._look_at_models()
                self._tell(ready=True, asked=time.time())
                self.current.set()  # nobody waits for what is read now
            busy = self._go_on_sweeping()
        except SourceDown as error:
            problems.append(str(error))
        try:
            busy |= self._look_at_items()
            self._look_at_size()
        except SourceDown as error:
            problems.append(str(error))
            busy = False
        for problem in problems:
            if problem not in self.freshness.problems:
                log.warning("%s; pages show what was read before", problem)
        self._tell(problems=tuple(problems))
        return busy and not problems

    def _tell(self, **changes: Any) -> None:
        self.freshness = replace(self.freshness, **changes)

    def _look_at_experiments(self) -> None:
        found = [each for each in self._mlflow.experiments() if is_public(each) or not self._tagged]
        if [each["experiment_id"] for each in found] != self._ids():
            self._sweep_at = 0.0
            self._sweep = None
        self._experiments = found
        self._writer.keep_experiments(self._ids())
        self._writer.put_fact("experiments", {each["experiment_id"]: each["name"] for each in found})

    def _ids(self) -> list[str]:
        return [str(each["experiment_id"]) for each in self._experiments]

    def _look_at_runs(self) -> None:
        began = int(time.time() * 1000)
        if not self._since:
            self._writer.put_runs(map(run_from, self._mlflow.newest_runs(self._ids(), _FIRST)))
        elif self._experiments:
            before = set(self._writer.running())
            changed = [run_from(each) for each in self._mlflow.changed_runs(self._ids(), self._since)]
            self._writer.put_runs(changed)
            # A run that was deleted while it was under way is neither running nor ended.
            for run_id in before - {run.run_id for run in changed}:
                self._look_again(run_id)
        self._since = began - _CLOCKS_MS

    def _look_again(self, run_id: str) -> None:
        try:
            document = self._mlflow.run(run_id)
        except NotThere:
            self._writer.drop_run(run_id)
            return
        if document["info"].get("lifecycle_stage") == "deleted":
            self._writer.drop_run(run_id)
        else:
            self._writer.put_runs([run_from(document)])

    def _look_at_models(self) -> None:
        public = [each for each in self._mlflow.models() if is_public(each) or not self._tagged]
        versions: dict[str, list[Mapping[str, Any]]] = {str(each["name"]): [] for each in public}
        for version in self._mlflow.versions() if public else ():
            if version["name"] in versions:
                versions[version["name"]].append(version)
        models = [model_from(each, versions[str(each["name"])]) for each in public]
        self._writer.put_models(models)

    def _go_on_sweeping(self) -> bool:
        """Read the next part of all runs, if it is time to; whether there is more."""
        if self._sweep is None:
            self._sweep_began = time.monotonic()
            if self._sweep_began < self._sweep_at:
                return False
            self._sweep = self._all_runs()
        try:
            next(self._sweep)
        except SourceDown:
            self._sweep = None  # a generator that has failed ends, and must not be taken for a complete reading
            raise
        except StopIteration:
            self._sweep = None
            took = time.monotonic() - self._sweep_began
            self._sweep_at = time.monotonic() + max(SWEEP_EVERY_S, took / _SWEEPS_SHARE)
            self._tell(complete=True)
            return False
        return True

    def _all_runs(self) -> Iterator[None]:
        """Reads all runs, newest first, by their start and not by MLflow's page tokens, which are offsets and get slower."""
        began = int(time.time() * 1000)
        self._writer.begin_sweep()
        until: int | None = None
        last: set[str] = set()
        while True:
            documents = self._mlflow.newest_runs(self._ids(), _CHUNK, until)
            runs = [run_from(each) for each in documents]
            self._writer.put_runs(runs, seen=True)
            if len(runs) < _CHUNK:
                break
            # Runs that began in the same millisecond may lie on both sides of the boundary, so it is asked for twice.
            ids = {run.run_id for run in runs}
            until = runs[-1].start - (ids == last)
            last = ids
            yield
        self._writer.drop_unseen(began)

    def _look_at_items(self) -> bool:
        """Read the tables of contents of some finished runs; whether there are more."""
        runs = self._writer.runs_without_items(tuple(_WITH_ITEMS), _ITEMS_AT_ONCE)
        found: dict[str, list[Item]] = {}
        try:
            for run in runs:
                if self._stop.is_set():
                    return False
                found[run.run_id] = self._readable_items(run)
        finally:
            # At once, because pages are made anew with each change.
            self._writer.put_items(found)
        return len(runs) == _ITEMS_AT_ONCE

    def _readable_items(self, run: Run) -> list[Item]:
        """What a run's table of contents says. Any program may have written it; a bad one must not stop the others."""
        try:
            items = self._items(run)
            _require_storable(items)
            return items
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            log.warning("run %s: its %s cannot be read (%r)", run.run_id, _WITH_ITEMS[run.task], error)
            return []

    def _items(self, run: Run) -> list[Item]:
        try:
            content = self._archive.read(run.location, _WITH_ITEMS[run.task], _LARGEST_TABLE)
        except NotThere:
            return []
        items = _ITEMS[run.task](json.loads(content))
        return items + self._first_picture(run, items) if run.task == "infer" else items

    def _first_picture(self, run: Run, items: list[Item]) -> list[Item]:
        """A picture that stands for an inference in lists and on the cards of shared links."""
        if not items:
            return []
        folder = f"results/{items[0].name}"
        pictures = [each for each in self._archive.list(run.location, folder) if each.name.endswith(".png")]
        return [Item("picture", f"{folder}/{pictures[0].name}")] if pictures else []

    def _look_at_size(self) -> None:
        if self._tagged:
            return  # an archive counts everybody's files, and not only what is public
        if time.monotonic() - self._sized < _SIZE_EVERY_S:
            return
        locations = [str(each.get("artifact_location", "")) for each in self._experiments]
        readable = sorted({location for location in locations if self._archive.readable(location)})
        sizes = {self._archive.host(location): self._archive.size(location) for location in readable}
        if sizes:
            files, size = (sum(each) for each in zip(*sizes.values(), strict=True))
            self._writer.put_fact("archive", {"files": files, "bytes": size})
        self._sized = time.monotonic()


def _require_storable(items: list[Item]) -> None:
    """Raises UnicodeEncodeError or OverflowError for what the database does not take: it must not cost the other runs theirs."""
    for kind, name, sha256, size, detail in items:
        for text in (kind, name, sha256, detail):
            text.encode()
        size.to_bytes(8, "big", signed=True)


def _raw_files(table: Any) -> list[Item]:
    return [
        Item("raw", str(row["name"]), str(row["sha256"]), int(row["size"]), json.dumps({"source": str(row["source"])}))
        for row in table["files"]
    ]


def _data_items(table: Any) -> list[Item]:
    return [
        Item("data", str(each["raw"]), str(each["raw_sha256"]), 0, json.dumps({"held_back": bool(each["held_back"])}))
        for each in table["entries"]
    ]


def _results(table: Any) -> list[Item]:
    return [Item("result", str(name), "", 0, json.dumps(_finite(metrics))) for name, metrics in table["items"].items()]


def _finite(metrics: Any) -> dict[str, float]:
    """The metrics that are numbers; JSON has no others."""
    numbers = {str(name): value for name, value in metrics.items() if isinstance(value, (int, float))}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


_ITEMS = {"load_raw": _raw_files, "preprocess": _data_items, "infer": _results}
