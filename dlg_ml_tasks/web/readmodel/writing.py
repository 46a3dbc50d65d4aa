"""The side of the read model that the refresher writes to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, NamedTuple

from dlg_ml_tasks.web.readmodel.database import Database
from dlg_ml_tasks.web.readmodel.records import Model, Run


class Item(NamedTuple):
    """A raw file, an item of a data set, an inferred item or a picture among a run's artifacts.

    kind: raw, data, result or picture. sha256: of the raw file, empty where unknown; size in bytes. detail: JSON about it.
    """

    kind: str
    name: str
    sha256: str = ""
    size: int = 0
    detail: str = "{}"

    def fact(self, name: str) -> Any:
        """Something of the detail; an empty text if it is not there."""
        return json.loads(self.detail).get(name, "")


class Edge(NamedTuple):
    """Something went from one node to another (see `database`), in the role of a port's name."""

    source: str
    target: str
    role: str


class ModelWriter:
    """Writes the read model. For one thread. `generation` grows with every change that a page may show."""

    def __init__(self, database: Database) -> None:
        self._db = database.writer
        self.generation = 0

    def put_runs(self, runs: Iterable[Run], *, seen: bool = False) -> None:
        """Add or renew runs; `seen` notes them for `drop_unseen`."""
        changed = False
        with self._transaction():
            for run in runs:
                changed |= self._put_run(run)
                if seen:
                    self._db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (run.run_id,))
        self.generation += changed

    def put_models(self, models: Sequence[Model]) -> None:
        """Make these the registered models."""
        documents = {model.name: json.dumps(asdict(model), sort_keys=True) for model in models}
        if documents == dict(self._db.execute("SELECT name, document FROM models").fetchall()):
            return
        with self._transaction():
            self._db.execute("DELETE FROM models")
            self._db.execute("DELETE FROM edges WHERE owner LIKE 'model:%'")
            self._unname("models")
            self._db.executemany("INSERT INTO models VALUES (?, ?)", documents.items())
            for model in models:
                self._name("models", "model", model.name, f"{model.name} {model.description}")
                for version in model.versions:
                    node = f"model:{version.name}/{version.version}"
                    edges = [Edge(f"run:{version.run_id}", node, "trained")]
                    if version.retrained_from:
                        edges.append(Edge(node_of(version.retrained_from), f"run:{version.run_id}", "base"))
                    self._put_edges(node, edges)
        self.generation += 1

    def put_items(self, items_of: Mapping[str, Sequence[Item]]) -> None:
        """Say what the artifacts of runs, by id, hold; a run's are read once, because what is archived does not change."""
        with self._transaction():
            for run_id, items in items_of.items():
                self._put_items(run_id, items)
        self.generation += any(items_of.values())

    def _put_items(self, run_id: str, items: Sequence[Item]) -> None:
        self._db.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?, ?)", [(run_id, *i) for i in items])
        self._db.execute("INSERT OR REPLACE INTO read_items VALUES (?)", (run_id,))
        raw = [item for item in items if item.kind == "raw"]
        self._put_edges(f"files:{run_id}", [Edge(f"file:{item.sha256}", f"run:{run_id}", "raw") for item in raw])
        for item in raw:
            self._name(run_id, "file", item.sha256, item.name)

    def put_fact(self, name: str, value: object) -> None:
        """Remember something about the whole, such as the archive's size."""
        text = json.dumps(value)
        if self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone() != (text,):
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, text))
            self.generation += 1

    def runs_without_items(self, tasks: Sequence[str], limit: int) -> list[Run]:
        """Finished runs of these tasks whose artifacts were not looked at, newest first."""
        marks = ", ".join("?" * len(tasks))
        rows = self._db.execute(
            f"SELECT document FROM runs WHERE task IN ({marks}) AND status = 'FINISHED' "
            "AND run_id NOT IN (SELECT run_id FROM read_items) ORDER BY start DESC LIMIT ?",
            (*tasks, limit),
        )
        return [Run.unpack(document) for (document,) in rows]

    def running(self) -> list[str]:
        """Ids of the runs that were under way when they were last seen."""
        return [run_id for (run_id,) in self._db.execute("SELECT run_id FROM runs WHERE status = 'RUNNING'")]

    def begin_sweep(self) -> None:
        """Forget which runs were seen."""
        self._db.execute("DELETE FROM seen")

    def drop_unseen(self, before: int) -> None:
        """Remove the runs that began before `before` (milliseconds since 1970) and were not seen since `begin_sweep`."""
        self._drop("start < ? AND run_id NOT IN (SELECT run_id FROM seen)", (before,))

    def drop_run(self, run_id: str) -> None:
        """Remove a run that MLflow no longer has."""
        self._drop("run_id = ?", (run_id,))

    def keep_experiments(self, experiments: Sequence[str]) -> None:
        """Remove the runs of all other experiments."""
        marks = ", ".join("?" * len(experiments))
        self._drop(f"experiment NOT IN ({marks})", tuple(experiments))

    def _drop(self, condition: str, values: tuple[object, ...]) -> None:
        gone = self._db.execute(f"SELECT run_id FROM runs WHERE {condition}", values).fetchall()
        if not gone:
            return
        with self._transaction():
            for (run_id,) in gone:
                for table in ("runs", "items", "read_items"):
                    self._db.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))
                self._db.execute("DELETE FROM edges WHERE owner IN (?, ?)", (f"run:{run_id}", f"files:{run_id}"))
                self._unname(run_id)
        self.generation += 1

    def _put_run(self, run: Run) -> bool:
        """Whether anything about it is new."""
        document = run.pack()
        known = self._db.execute("SELECT document FROM runs WHERE run_id = ?", (run.run_id,)).fetchone()
        if known == (document,):
            return False
        self._db.execute(
            "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(run.run_id, run.experiment, run.name, run.task, run.session, run.is_session, run.status),
                *(run.start, run.end, run.model, document),
            ),
        )
        self._put_edges(f"run:{run.run_id}", run_edges(run))
        if known is None:
            self._name(run.run_id, "run", run.run_id, f"{run.name} {run.run_id}")
        return True

    def _put_edges(self, owner: str, edges: Sequence[Edge]) -> None:
        self._db.execute("DELETE FROM edges WHERE owner = ?", (owner,))
        self._db.executemany("INSERT OR IGNORE INTO edges VALUES (?, ?, ?, ?)", [(owner, *edge) for edge in edges])

    def _name(self, owner: str, kind: str, target: str, text: str) -> None:
        row = self._db.execute("INSERT INTO names VALUES (?, ?, ?)", (text, kind, target)).lastrowid
        self._db.execute("INSERT INTO named VALUES (?, ?)", (owner, row))

    def _unname(self, owner: str) -> None:
        for (row,) in self._db.execute("SELECT row FROM named WHERE owner = ?", (owner,)).fetchall():
            self._db.execute("DELETE FROM names WHERE rowid = ?", (row,))
        self._db.execute("DELETE FROM named WHERE owner = ?", (owner,))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def run_edges(run: Run) -> list[Edge]:
    """What a run was made from."""
    target = f"run:{run.run_id}"
    edges = [Edge(node_of(each.uri), target, each.port) for each in run.inputs]
    if run.model:
        edges.append(Edge(node_of(run.model), target, "model"))
    return edges


def node_of(uri: str) -> str:
    """The node (see `database`) that a reference's URI names."""
    if uri.startswith("runs:/"):
        return f"run:{uri.removeprefix('runs:/').partition('/')[0]}"
    return f"model:{uri.removeprefix('models:/')}"
