"""The read model by itself: what it keeps, finds and forgets, and how it is filled, with MLflow's answers made by hand."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dlg_ml_tasks.web.readmodel import refreshing
from dlg_ml_tasks.web.readmodel.database import Database
from dlg_ml_tasks.web.readmodel.reading import ModelReader, Place, RunFilter
from dlg_ml_tasks.web.readmodel.records import Input, Measured, Model, Run, Version, is_public, run_from
from dlg_ml_tasks.web.readmodel.refreshing import Refresher
from dlg_ml_tasks.web.readmodel.writing import Item, ModelWriter
from dlg_ml_tasks.web.sources.errors import NotThere, SourceDown


def run(number: int, *, start: int | None = None, **fields: Any) -> Run:
    plain = {"experiment": "1", "name": f"run {number}", "status": "FINISHED", "end": 10**6, "location": "ngas://h/x"}
    return Run(run_id=f"{number:032x}", start=number if start is None else start, **{**plain, **fields})


@pytest.fixture
def database(tmp_path: Path) -> Database:
    found = Database(tmp_path / "model.sqlite")
    assert not found.prepare("http://mlflow", "all")
    return found


@pytest.fixture
def writer(database: Database) -> ModelWriter:
    return ModelWriter(database)


@pytest.fixture
def reader(database: Database) -> ModelReader:
    return ModelReader(database)


def test_a_run_comes_back_as_it_was_kept(writer: ModelWriter, reader: ModelReader) -> None:
    kept = run(
        1,
        params={"recipe": "rfi"},
        metrics={"f1": Measured(0.5, 3)},
        tags={"dlg_ml.task": "train"},
        inputs=(Input("data", f"runs:/{0:032x}/data"),),
    )
    writer.put_runs([kept])
    assert reader.run(kept.run_id) == kept


def test_what_has_not_changed_does_not_make_pages_anew(writer: ModelWriter) -> None:
    writer.put_runs([run(1)])
    writer.put_models([Model("m", "", (Version("m", 1, "r", 0, ""),))])
    before = writer.generation
    writer.put_runs([run(1)], seen=True)
    writer.put_models([Model("m", "", (Version("m", 1, "r", 0, ""),))])
    assert writer.generation == before
    writer.put_runs([run(1, status="FAILED")])
    assert writer.generation > before


def test_runs_of_one_instant_are_paged_without_loss_both_ways(writer: ModelWriter, reader: ModelReader) -> None:
    writer.put_runs([run(number, start=number // 7) for number in range(50)])
    forward, place = [], None
    while True:
        page = reader.page(RunFilter(), 6, after=place)
        forward.append([each.run_id for each in page.runs])
        if page.older is None:
            break
        place = page.older
    ids = [each for page in forward for each in page]
    assert sorted(ids) == sorted(run(number).run_id for number in range(50))
    assert page.newer is not None
    back = reader.page(RunFilter(), 6, before=page.newer)
    assert [each.run_id for each in back.runs] == forward[-2]


def test_a_place_that_is_none_is_refused() -> None:
    assert Place.parse(str(Place(5, "a" * 32))) == Place(5, "a" * 32)
    for text in ("", "5", "x-y", "5-a'b", "5-" + "a" * 80):
        with pytest.raises(ValueError, match="no place"):
            Place.parse(text)


def test_the_pages_connection_cannot_write(database: Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        database.read("DELETE FROM runs")


def test_names_are_found_in_any_case_and_from_two_letters_on(writer: ModelWriter, reader: ModelReader) -> None:
    writer.put_runs([run(1, name="Train-Night-A")])
    writer.put_items({run(1).run_id: [Item("raw", 'zen.2458"; DROP.uvh5', "ab" * 32, 5)]})
    assert [hit.target for hit in reader.search("train-NIGHT", 9)] == [run(1).run_id]
    assert [hit.kind for hit in reader.search("ze", 9)] == ["file"]
    assert [hit.text for hit in reader.search('2458"; DROP', 9)] == ['zen.2458"; DROP.uvh5']
    assert reader.search("a\0bc", 9) == reader.search("  ", 9) == reader.search('"', 9)[1:] == []


def test_a_run_that_goes_takes_its_files_edges_and_names_along(writer: ModelWriter, reader: ModelReader) -> None:
    writer.put_runs([run(1), run(2, inputs=(Input("raw", f"runs:/{1:032x}/raw"),))])
    writer.put_items({run(1).run_id: [Item("raw", "a.uvh5", "ab" * 32, 5)]})
    assert [edge.target for edge in reader.targets(f"run:{1:032x}")] == [f"run:{2:032x}"]
    writer.drop_run(run(1).run_id)
    writer.drop_run(run(2).run_id)
    assert reader.run(run(1).run_id) is None
    assert reader.search("a.uvh5", 9) == []
    assert reader.holders("ab" * 32) == []
    assert reader.targets(f"run:{1:032x}") == reader.targets(f"file:{'ab' * 32}") == []


def test_another_server_or_another_publication_starts_an_empty_model(tmp_path: Path) -> None:
    for uri, public, known in (("a", "all", False), ("a", "all", True), ("b", "all", False), ("b", "tagged", False)):
        database = Database(tmp_path / "kept.sqlite")
        assert database.prepare(uri, public) is known
        assert ModelReader(database).count(RunFilter()) == int(known)
        ModelWriter(database).put_runs([run(1)])
        database.close()


@pytest.mark.parametrize(
    ("tags", "expected"),
    [([], False), ([("public", "yes")], True), ([("public", "")], True), ([("public", "False")], False)],
)
def test_public_is_what_has_the_tag(tags: list[tuple[str, str]], expected: bool) -> None:
    assert is_public({"tags": [{"key": key, "value": value} for key, value in tags]}) is expected


def test_a_strangers_run_is_read_as_far_as_it_goes() -> None:
    found = run_from(
        {
            "info": {"run_id": "a", "experiment_id": "0", "status": "RUNNING"},
            "data": {"metrics": [{"key": "nan", "value": "NaN", "step": 1}, {"key": "x", "value": 2}]},
            "inputs": {"dataset_inputs": [{"dataset": {"name": "iris", "source": "not json"}}]},
        }
    )
    assert (found.metrics, found.inputs, found.task) == ({"x": Measured(2.0, 0)}, (), "")


class Answers:
    """Stands in for MLflow: runs in memory, newest first, and an archive with nothing in it."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.tags: list[dict[str, str]] = [{"key": "public", "value": "yes"}]
        self.down = False
        self.looks = 0

    def experiments(self) -> list[dict[str, Any]]:
        self.looks += 1
        if self.down:
            raise SourceDown("MLflow", "cut")
        return [{"experiment_id": "1", "name": "one", "tags": self.tags, "artifact_location": "file:/x"}]

    def newest_runs(self, experiments: Sequence[str], limit: int, until: int | None = None) -> list[dict[str, Any]]:
        found = [each for each in self.runs if experiments and (until is None or each.start <= until)]
        return [self._document(each) for each in sorted(found, key=lambda each: -each.start)[:limit]]

    def cut(self, *arguments: Any) -> list[dict[str, Any]]:
        raise SourceDown("MLflow", "cut")

    def changed_runs(self, experiments: Sequence[str], since: int) -> list[dict[str, Any]]:
        return [self._document(each) for each in self.runs if each.status == "RUNNING" or (each.end or 0) >= since]

    def run(self, run_id: str) -> dict[str, Any]:
        raise NotThere(run_id)

    def models(self) -> list[dict[str, Any]]:
        return []

    def read(self, location: str, path: str, limit: int) -> bytes:
        raise NotThere(path)

    def readable(self, location: str) -> bool:
        return False

    @staticmethod
    def _document(run: Run) -> dict[str, Any]:
        info = {
            "run_id": run.run_id,
            "experiment_id": "1",
            "status": run.status,
            "start_time": run.start,
            "run_name": run.name,
        }
        return {"info": {**info, **({"end_time": run.end} if run.end else {})}, "data": {}}


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def refresher(writer: ModelWriter, answers: Any) -> Refresher:
    return Refresher(writer, answers, answers, tagged=True, known=False)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a few runs: what is otherwise done with thousands."""
    monkeypatch.setattr(refreshing, "_FIRST", 3)
    monkeypatch.setattr(refreshing, "_CHUNK", 10)


@contextmanager
def _started(refresher: Refresher) -> Iterator[None]:
    refresher.start()
    try:
        yield
    finally:
        refresher.stop()


def _look(refresher: Refresher) -> None:
    while refresher._look():
        pass


@pytest.mark.usefixtures("small_parts")
def test_all_runs_are_read_in_parts_even_when_many_began_at_once(
    refresher: Refresher, answers: Answers, reader: ModelReader
) -> None:
    answers.runs = [run(number, start=number // 8) for number in range(77)]
    assert not refresher.freshness.ready
    _look(refresher)
    assert reader.count(RunFilter()) == 77
    assert (refresher.freshness.ready, refresher.freshness.complete, refresher.freshness.problems) == (True, True, ())


def test_a_run_that_was_deleted_under_way_is_forgotten_at_the_next_look(
    refresher: Refresher, answers: Answers, reader: ModelReader
) -> None:
    answers.runs = [run(1, status="RUNNING", end=None), run(2)]
    _look(refresher)
    answers.runs = [run(2)]
    _look(refresher)
    assert [each.run_id for each in reader.page(RunFilter(), 9).runs] == [run(2).run_id]


def test_a_run_that_was_deleted_after_its_end_is_forgotten_by_the_next_sweep(
    refresher: Refresher, answers: Answers, reader: ModelReader
) -> None:
    answers.runs = [run(1), run(2)]
    _look(refresher)
    answers.runs = [run(2)]
    refresher._sweep_at = 0
    _look(refresher)
    assert reader.count(RunFilter()) == 1


def test_what_loses_its_public_tag_is_forgotten_at_the_next_look(
    refresher: Refresher, answers: Answers, reader: ModelReader
) -> None:
    answers.runs = [run(1)]
    _look(refresher)
    assert reader.count(RunFilter()) == 1
    answers.tags = []
    refresher._look()
    assert reader.count(RunFilter()) == 0


def test_with_mlflow_down_what_was_read_stays_and_the_problem_is_told(
    refresher: Refresher, answers: Answers, reader: ModelReader
) -> None:
    answers.runs = [run(1)]
    _look(refresher)
    answers.down = True
    refresher._look()
    assert reader.count(RunFilter()) == 1
    assert refresher.freshness.problems == ("MLflow: cut",)
    answers.down = False
    refresher._look()
    assert refresher.freshness.problems == ()


@pytest.mark.usefixtures("small_parts")
def test_a_reading_of_all_runs_that_broke_off_is_not_taken_for_complete(
    refresher: Refresher, answers: Answers, reader: ModelReader
) -> None:
    answers.runs = [run(number) for number in range(77)]
    refresher._look()
    newest, answers.newest_runs = answers.newest_runs, answers.cut  # type: ignore[method-assign]
    refresher._look()
    assert not refresher.freshness.complete
    answers.newest_runs = newest  # type: ignore[method-assign]
    _look(refresher)
    assert refresher.freshness.complete
    assert reader.count(RunFilter()) == 77


def test_mlflow_is_left_alone_while_nobody_looks_and_who_comes_then_sees_what_is_new(
    refresher: Refresher, answers: Answers, reader: ModelReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refreshing, "INTERVAL_S", 0.01)
    monkeypatch.setattr(refreshing, "RESTING_S", 3600.0)
    answers.runs = [run(1)]
    with _started(refresher):
        _until(lambda: refresher.freshness.complete and not refresher.current.is_set())
        before = answers.looks
        time.sleep(0.2)
        assert answers.looks == before
        answers.runs = [run(1), run(2, start=int(time.time() * 1000), end=int(time.time() * 1000))]
        assert not refresher.attend()
        assert refresher.current.wait(60)
        assert reader.count(RunFilter()) == 2
        assert refresher.attend()
        _until(lambda: answers.looks > before + 5)


@pytest.mark.usefixtures("small_parts")
def test_what_is_still_to_be_read_does_not_make_mlflow_be_asked_more_often(
    refresher: Refresher, answers: Answers, reader: ModelReader
) -> None:
    answers.runs = [run(number) for number in range(77)]
    with _started(refresher):
        _until(lambda: refresher.freshness.complete)
    assert reader.count(RunFilter()) == 77
    assert answers.looks == 1


def test_nobody_waits_for_mlflow_a_second_time_while_it_is_down(
    refresher: Refresher, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refreshing, "RESTING_S", 3600.0)
    with _started(refresher):
        _until(lambda: refresher.freshness.complete and not refresher.current.is_set())
        answers.down = True
        refresher.attend()
        assert refresher.current.wait(60)
        assert refresher.freshness.problems == ("MLflow: cut",)
        assert refresher.attend()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_tables_of_contents_that_cannot_be_kept_do_not_cost_the_others_theirs_and_all_make_pages_anew_once(
    refresher: Refresher, answers: Answers, reader: ModelReader, writer: ModelWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"good": ("a.uvh5", 5), "no-text": ("\ud800", 5), "too-large": ("b.uvh5", 2**70)}
    tables = {
        where: json.dumps({"files": [{"name": name, "sha256": "ab" * 32, "size": size, "source": "s"}]}).encode()
        for where, (name, size) in rows.items()
    }
    monkeypatch.setattr(answers, "read", lambda location, path, limit: tables[location])
    task = {"dlg_ml.task": "load_raw"}
    writer.put_runs([run(number, location=where, tags=task) for number, where in enumerate((*rows, "good"))])
    before = writer.generation
    refresher._look_at_items()
    assert writer.generation == before + 1
    assert {item.name for number in range(4) for item in reader.items(run(number).run_id, "raw")} == {"a.uvh5"}
    assert [len(reader.items(run(number).run_id, "raw")) for number in range(4)] == [1, 0, 0, 1]
    assert not writer.runs_without_items(("load_raw",), 9)
