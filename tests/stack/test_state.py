"""The record of a running stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlg_ml_tasks.stack import ServiceState, StackError, StackState, home_directory, load_state
from dlg_ml_tasks.stack.state import ServiceName, save_state, write_atomically


def service(name: ServiceName, **ports: int) -> ServiceState:
    return ServiceState(
        name=name, pid=4711, started=1.5e9, host="127.0.0.1", ports=ports, url="http://127.0.0.1:1", log=Path("/l")
    )


def test_a_saved_state_is_loaded_unchanged(tmp_path: Path) -> None:
    state = StackState(home=tmp_path, services=(service("ngas", ngas=7777), service("node", node=8000, rpc=6666)))
    save_state(state)
    assert load_state(tmp_path) == state
    assert state.ports == {"ngas": 7777, "node": 8000, "rpc": 6666}


def test_a_home_where_nothing_was_started_has_no_state(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None


def test_a_state_without_services_leaves_no_record(tmp_path: Path) -> None:
    save_state(StackState(home=tmp_path, services=(service("ngas"),)))
    save_state(StackState(home=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_service_replaces_the_older_one_of_its_name(tmp_path: Path) -> None:
    state = StackState(home=tmp_path, services=(service("ngas", ngas=1), service("mlflow")))
    changed = state.with_service(service("ngas", ngas=2))
    assert [s.name for s in changed.services] == ["ngas", "mlflow"]
    assert changed.ports == {"ngas": 2}


def test_node_managers_are_counted_and_kept_in_their_order(tmp_path: Path) -> None:
    names = ("island", "node-10", "node-2", "node")
    state = StackState(home=tmp_path)
    for name in names:
        state = state.with_service(service(name))
    assert [each.name for each in state.services] == ["node", "node-2", "node-10", "island"]
    assert state.nodes == 3


def test_a_broken_record_is_named_and_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text('{"home": "/x", "services": [{"pid"')
    with pytest.raises(StackError, match=r"stack\.json"):
        load_state(tmp_path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "stack.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \udc80")
    assert [p.name for p in tmp_path.iterdir()] == ["stack.json"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("environ", [{}, {"DLG_ML_HOME": ""}])
def test_the_home_is_under_the_users_own_unless_the_environment_names_another(environ: dict[str, str]) -> None:
    assert home_directory(environ) == Path.home() / ".dlg-ml"


def test_a_home_named_by_the_environment_is_made_absolute() -> None:
    assert home_directory({"DLG_ML_HOME": "~/x"}) == Path.home() / "x"
    assert home_directory({"DLG_ML_HOME": "here"}) == Path.cwd() / "here"
