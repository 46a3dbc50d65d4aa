"""The side of the read model that pages are made from. Thread safe; nothing here waits for anybody."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dlg_ml_tasks.web.readmodel.database import Database
from dlg_ml_tasks.web.readmodel.records import Model, Run, Version
from dlg_ml_tasks.web.readmodel.writing import Edge, Item

_DAY_MS = 86_400_000
_MOST_EDGES = 5000
_SHORTEST_INDEXED = 3  # characters: the full-text index is of trigrams


@dataclass(frozen=True)
class RunFilter:
    """Which runs: empty fields do not restrict. `since` and `until` are milliseconds since 1970, of the start."""

    task: str = ""
    session: str = ""
    status: str = ""
    model: str = ""
    since: int | None = None
    until: int | None = None

    def condition(self) -> tuple[str, list[object]]:
        """As SQL with its values."""
        parts: list[str] = ["1"]
        values: list[object] = []
        for column, wanted in (("session", self.session), ("status", self.status), ("model", self.model)):
            if wanted:
                parts.append(f"{column} = ?")
                values.append(wanted)
        if self.task == "session":
            parts.append("is_session")
        elif self.task:
            parts.append("task = ?")
            values.append(self.task)
        for sign, bound in ((">=", self.since), ("<", self.until)):
            if bound is not None:
                parts.append(f"start {sign} ?")
                values.append(bound)
        return " AND ".join(parts), values


class Place(NamedTuple):
    """Where a page of runs begins or ends: a run's start and id."""

    start: int
    run_id: str

    def __str__(self) -> str:
        return f"{self.start}-{self.run_id}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read what `str` wrote. Raises ValueError."""
        match = re.fullmatch(r"(\d{1,15})-([0-9a-zA-Z_-]{1,64})", text)
        if match is None:
            raise ValueError(f"{text!r} is no place in the list of runs")
        return cls(int(match[1]), match[2])


class Page(NamedTuple):
    """Some runs, newest first, with where the page before and the page after begin; None at the ends."""

    runs: list[Run]
    newer: Place | None
    older: Place | None


class Hit(NamedTuple):
    """Something that a search found: its kind (run, model or file), what names it, and its text."""

    kind: str
    target: str
    text: str


class ModelReader:
    """Reads the read model."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- runs ---

    def run(self, run_id: str) -> Run | None:
        """A run by its id."""
        row = self._one("SELECT document FROM runs WHERE run_id = ?", run_id)
        return Run.unpack(row["document"]) if row else None

    def runs_by_id(self, run_ids: Sequence[str]) -> dict[str, Run]:
        """Those of the runs that are known."""
        marks = ", ".join("?" * len(run_ids))
        rows = self._all(f"SELECT document FROM runs WHERE run_id IN ({marks})", *run_ids)
        return {run.run_id: run for run in (Run.unpack(row["document"]) for row in rows)}

    def page(self, wanted: RunFilter, limit: int, *, after: Place | None = None, before: Place | None = None) -> Page:
        """A page of runs: the newest, those after (older than) a place, or those before (newer than) it."""
        condition, values = wanted.condition()
        place, sign, order = (before, ">", "ASC") if before else (after, "<", "DESC")
        if place:
            condition += f" AND (start, run_id) {sign} (?, ?)"
            values += place
        rows = self._all(
            f"SELECT document FROM runs WHERE {condition} ORDER BY start {order}, run_id {order} LIMIT ?",
            *values,
            limit + 1,
        )
        more = len(rows) > limit
        runs = [Run.unpack(row["document"]) for row in rows[:limit]]
        if before:
            runs.reverse()
        if not runs:
            return Page([], None, None)
        newest, oldest = (Place(run.start, run.run_id) for run in (runs[0], runs[-1]))
        return Page(
            runs,
            newer=newest if (more if before else after is not None) else None,
            older=oldest if (more or before is not None) else None,
        )

    def count(self, wanted: RunFilter) -> int:
        """How many runs there are."""
        condition, values = wanted.condition()
        row = self._one(f"SELECT count(*) AS n FROM runs WHERE {condition}", *values)
        return int(row["n"]) if row else 0

    def count_by_status(self) -> dict[str, int]:
        """How many task runs there are in each state."""
        rows = self._all("SELECT status, count(*) AS n FROM runs WHERE NOT is_session GROUP BY status")
        return {row["status"]: row["n"] for row in rows}

    def tasks(self) -> list[str]:
        """The names of all tasks that ran."""
        return [row["task"] for row in self._all("SELECT DISTINCT task FROM runs WHERE task != '' ORDER BY task")]

    def sessions(self, limit: int) -> list[Run]:
        """The newest graph sessions."""
        return self.page(RunFilter(task="session"), limit).runs

    def activity(self, until: int, days: int) -> list[dict[str, Any]]:
        """Task runs that began on each of the last `days` days before `until` (ms since 1970): day, finished, failed, other."""
        last = until // _DAY_MS
        rows = self._all(
            "SELECT start / ? AS day, sum(status = 'FINISHED') AS finished, sum(status = 'FAILED') AS failed, "
            "sum(status NOT IN ('FINISHED', 'FAILED')) AS other FROM runs WHERE start >= ? AND NOT is_session GROUP BY day",
            _DAY_MS,
            (last - days + 1) * _DAY_MS,
        )
        found = {row["day"]: row for row in rows}
        return [
            {
                "day": day * _DAY_MS,
                **{name: (found[day][name] if day in found else 0) for name in ("finished", "failed", "other")},
            }
            for day in range(last - days + 1, last + 1)
        ]

    # --- models ---

    def models(self) -> list[Model]:
        """Every registered model, by name."""
        return [_model(row["document"]) for row in self._all("SELECT document FROM models ORDER BY name")]

    def model(self, name: str) -> Model | None:
        """A model by its name."""
        row = self._one("SELECT document FROM models WHERE name = ?", name)
        return _model(row["document"]) if row else None

    # --- where things come from ---

    def sources(self, node: str) -> list[Edge]:
        """What went into a node (see `database`)."""
        rows = self._all(
            "SELECT DISTINCT source, target, role FROM edges WHERE target = ? ORDER BY role, source LIMIT ?",
            node,
            _MOST_EDGES,
        )
        return [Edge(*row) for row in rows]

    def targets(self, node: str) -> list[Edge]:
        """What came of a node."""
        rows = self._all(
            "SELECT DISTINCT source, target, role FROM edges WHERE source = ? ORDER BY role, target LIMIT ?",
            node,
            _MOST_EDGES,
        )
        return [Edge(*row) for row in rows]

    def users(self, node: str, task: str, limit: int = 100) -> list[Run]:
        """The newest runs of a task that a node went into."""
        rows = self._all(
            "SELECT DISTINCT document, start FROM edges JOIN runs ON run_id = substr(target, 5) "
            "WHERE source = ? AND target LIKE 'run:%' AND task = ? ORDER BY start DESC LIMIT ?",
            node,
            task,
            limit,
        )
        return [Run.unpack(row["document"]) for row in rows]

    def tasks_of(self, run_ids: Sequence[str]) -> dict[str, str]:
        """The task of each of the runs that are known."""
        marks = ", ".join("?" * len(run_ids))
        rows = self._all(f"SELECT run_id, task FROM runs WHERE run_id IN ({marks})", *run_ids)
        return {row["run_id"]: row["task"] for row in rows}

    # --- files ---

    def items(self, run_id: str, kind: str) -> list[Item]:
        """What a run's artifacts hold of one kind, by name."""
        rows = self._all(
            "SELECT kind, name, sha256, size, detail FROM items WHERE run_id = ? AND kind = ? ORDER BY name",
            run_id,
            kind,
        )
        return [Item(*row) for row in rows]

    def holders(self, sha256: str) -> list[tuple[str, Item]]:
        """The runs that hold a raw file by its content, with what they hold of it."""
        rows = self._all(
            "SELECT run_id, kind, name, sha256, size, detail FROM items WHERE sha256 = ? AND sha256 != ''", sha256
        )
        return [(row["run_id"], Item(*tuple(row)[1:])) for row in rows]

    def search(self, text: str, limit: int) -> list[Hit]:
        """What has `text` in its name, any case: models first, then files and runs, the newest first."""
        text = text.strip()
        order = "ORDER BY kind = 'run', kind = 'file', rowid DESC LIMIT ?"
        if len(text) >= _SHORTEST_INDEXED:
            phrase = '"' + text.replace('"', '""') + '"'
            rows = self._all(f"SELECT kind, target, text FROM names WHERE names MATCH ? {order}", phrase, limit)
        else:
            rows = self._all(
                f"SELECT kind, target, text FROM names WHERE instr(lower(text), ?) {order}",
                text.lower(),
                limit,
            )
        return [Hit(*row) for row in rows] if text else []

    def fact(self, name: str) -> Any:
        """What was remembered under a name; None for nothing."""
        row = self._one("SELECT value FROM facts WHERE name = ?", name)
        return json.loads(row["value"]) if row else None

    def _all(self, sql: str, *values: object) -> list[Any]:
        return self._database.read(sql, values)

    def _one(self, sql: str, *values: object) -> Any:
        return next(iter(self._database.read(sql, values)), None)


def _model(document: str) -> Model:
    fields = json.loads(document)
    versions = tuple(Version(**{**each, "aliases": tuple(each["aliases"])}) for each in fields.pop("versions"))
    return Model(**fields, versions=versions)
