"""One site: its settings, what it reads from, and the read model that pages are made from."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TypeVar, cast

from dlg_ml_tasks.web.readmodel.database import Database
from dlg_ml_tasks.web.readmodel.reading import ModelReader
from dlg_ml_tasks.web.readmodel.records import Run, run_from
from dlg_ml_tasks.web.readmodel.refreshing import Freshness, Refresher
from dlg_ml_tasks.web.readmodel.writing import ModelWriter
from dlg_ml_tasks.web.settings import Settings
from dlg_ml_tasks.web.sources.archive import ArchiveReader
from dlg_ml_tasks.web.sources.errors import NotThere
from dlg_ml_tasks.web.sources.mlflow import MlflowReader

T = TypeVar("T")

_MOST_COUNTED = 500
_FIRST_LOOK_S = 0.9
"""Seconds that the first page waits for MLflow; after that it says that it is still being asked."""


class Site:
    """What every page is made from. Thread safe once started."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.mlflow = MlflowReader(settings.tracking_uri)
        self.archive = ArchiveReader(settings.artifacts)
        self._temporary = tempfile.TemporaryDirectory(prefix="dlg-ml-web-") if settings.cache is None else None
        folder = settings.cache or Path(self._temporary.name if self._temporary else "")
        folder.mkdir(parents=True, exist_ok=True)
        self._database = Database(folder / "readmodel.sqlite")
        known = self._database.prepare(settings.tracking_uri, settings.public)
        self._writer = ModelWriter(self._database)
        self.model = ModelReader(self._database)
        self._refresher = Refresher(
            self._writer, self.mlflow, self.archive, tagged=settings.public == "tagged", known=known
        )

        self._lock = threading.Lock()
        self._counted: dict[Hashable, object] = {}
        self._counted_at = -1

    def start(self) -> None:
        """Begin to read."""
        self._refresher.start()

    def stop(self) -> None:
        """End the background work, and remove what was temporary."""
        self._refresher.stop()
        self._database.close()
        if self._temporary:
            self._temporary.cleanup()

    @property
    def freshness(self) -> Freshness:
        """How far the reading is, and what is down."""
        return self._refresher.freshness

    @property
    def generation(self) -> int:
        """Another number whenever something changed that a page may show."""
        return self._writer.generation

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns, remembered until something changes: for what many pages count anew."""
        generation = self.generation
        with self._lock:
            if self._counted_at != generation or len(self._counted) > _MOST_COUNTED:
                self._counted.clear()
                self._counted_at = generation
            if key in self._counted:
                return cast("T", self._counted[key])
        value = make()
        with self._lock:
            if self._counted_at == generation:
                self._counted[key] = value
        return value

    def await_first_look(self) -> None:
        """Give an empty read model a moment to fill: what follows can make a page."""
        self._refresher.ready.wait(_FIRST_LOOK_S)

    def run(self, run_id: str) -> Run:
        """A public run, from MLflow while not all runs have been read. Raises NotThere, SourceDown."""
        found = self.model.run(run_id)
        if found is not None:
            return found
        if self.freshness.complete and not self.freshness.problems:
            # What has just begun is there within seconds; asking for every made-up id would pass the load on to MLflow.
            raise NotThere(f"there is no run {run_id}")
        run = run_from(self.mlflow.run(run_id))
        if run.experiment not in (self.model.fact("experiments") or {}):
            raise NotThere(f"there is no run {run_id}")
        return run

    def experiment(self, run: Run) -> str:
        """The name of a run's experiment."""
        return str((self.model.fact("experiments") or {}).get(run.experiment, run.experiment))
