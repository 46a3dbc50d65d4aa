"""One site: its settings, what it reads from, and the read model that pages are made from."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

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
_LOOK_S = 0.9
"""Seconds that a page waits for MLflow, the first of all and the first after a rest; then it shows what there is."""


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

    def attended(self) -> bool:
        """Somebody looks at a page; whether what was read is current, see `await_look`."""
        return self._refresher.attend()

    def await_look(self) -> None:
        """Give a read model that is empty, or was left to rest, a moment to fill: what follows can make a page."""
        if not self._refresher.attend():
            self._refresher.current.wait(_LOOK_S)

    def run(self, run_id: str) -> Run:
        """A public run, from MLflow while not all runs have been read. Raises NotThere, SourceDown."""
        self.await_look()
        found = self.model.run(run_id)
        if found is not None:
            return found
        if self.freshness.complete and not self.freshness.problems:
            # What has just begun is there within seconds; asking for every made-up id would pass the load on to MLflow.
            raise NotThere(f"there is no run {run_id}")
        document = self._document(run_id)
        if document is None:
            raise NotThere(f"there is no run {run_id}")
        return run_from(document)

    def _document(self, run_id: str) -> Mapping[str, Any] | None:
        """What MLflow says of a run; None if it has none, and likewise if that is deleted or not public."""
        try:
            document = self.mlflow.run(run_id)
        except NotThere:
            return None
        info = document["info"]
        public = str(info["experiment_id"]) in (self.model.fact("experiments") or {})
        return document if public and info.get("lifecycle_stage") != "deleted" else None

    def experiment(self, run: Run) -> str:
        """The name of a run's experiment."""
        return str((self.model.fact("experiments") or {}).get(run.experiment, run.experiment))
