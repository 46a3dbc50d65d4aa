"""What a component makes of being one copy of a scatter, and of inputs that failed; without any engine around it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from dlg.data.drops.memory import InMemoryDROP
from dlg.ddap_protocol import AppDROPStates, DROPStates

from dlg_ml_tasks.components import LoadRawApp, PreprocessApp, TrainApp
from dlg_ml_tasks.components import process as processes
from dlg_ml_tasks.components.copies import copy_name, copy_numbers, copy_numbers_in
from dlg_ml_tasks.tracking import Reference

LOAD = {"sources": "x", "recipe": "digits"}
TRAIN = {"recipe": "digits", "model_name": "m"}
DONE, FAILED = DROPStates.COMPLETED, DROPStates.ERROR


def reference(number: int) -> Reference:
    digest = f"{number % 16:x}" * 64
    return Reference(kind="files", uri=f"runs:/{'a' * 32}/data", run_id="a" * 32, digest=digest, fingerprint="f" * 64)


@pytest.mark.parametrize(
    ("iid", "numbers", "name"), [("0", (), "load"), ("0-0", (1,), "load/1"), ("0-11-2", (12, 3), "load/12/3")]
)
def test_copies_are_counted_from_one(iid: str, numbers: tuple[int, ...], name: str) -> None:
    assert copy_numbers(iid) == numbers
    assert copy_name("load", iid) == name
    assert copy_numbers_in(f"my_session-2_1f3a-77_{iid}") == numbers


def test_an_object_id_of_another_form_names_no_copy() -> None:
    assert copy_numbers_in("hand-made-1") == ()


@pytest.mark.parametrize(("batches", "iid", "batch"), [(3, "0-2", 3), (1, "0", None), (1, "0-0", 1)])
def test_each_copy_loads_the_batch_of_its_number(batches: int, iid: str, batch: int | None) -> None:
    app = LoadRawApp("a", "a", **LOAD, batches=batches, iid=iid)
    assert app._params.model_dump()["batch"] == batch


def test_a_batch_that_is_given_stays() -> None:
    assert LoadRawApp("a", "a", **LOAD, batches=5, batch="4", iid="0-0")._params.model_dump()["batch"] == 4


@pytest.mark.parametrize(
    ("iid", "reason"), [("0-3", "copy 4 of a scatter, but batches=3"), ("0-1-1", "scatter within a scatter")]
)
def test_a_copy_without_a_batch_of_its_own_is_refused_when_it_is_deployed(iid: str, reason: str) -> None:
    assert reason in str(LoadRawApp("a", "a", **LOAD, batches=3, iid=iid).exception)


@pytest.mark.parametrize(
    ("connected", "reason"),
    [
        ([], "nothing is connected to its required port 'raw'"),
        (["data"], "nothing is connected to its required port 'raw'"),
        (["raw", "raw"], "port 'raw' takes one input, but 2 are connected"),
    ],
)
def test_ports_are_checked_when_a_task_is_deployed(connected: list[str], reason: str) -> None:
    ports = [{"name": name, "oid": f"d{index}", "direction": "input"} for index, name in enumerate(connected)]
    assert reason in str(PreprocessApp("p", "p", recipe="digits", ports=ports).exception)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What tasks are asked to do; none is done."""
    requests: list[dict[str, Any]] = []

    def run(request: dict[str, Any], **_: object) -> processes.Finished:
        requests.append(request)
        return processes.Finished(reference(0), False, 0.0)

    monkeypatch.setattr(processes, "run", run)
    return requests


def train(states: dict[str, dict[str, DROPStates]], allowed: int) -> TrainApp:
    """A training with drops connected to its ports, by object id; the engine tells it their states one after the other."""
    ports = [{"name": port, "oid": oid, "direction": "input"} for port, drops in states.items() for oid in drops]
    app = TrainApp("t", "t", **TRAIN, max_failed_batches=allowed, ports=ports)
    drops = {oid: InMemoryDROP(oid, oid) for port in states.values() for oid in port}
    for drop in drops.values():
        app.addInput(drop)
    for port in states.values():
        for number, (oid, state) in enumerate(port.items(), 1):
            if state == DROPStates.COMPLETED:
                drops[oid].write(reference(number).model_dump_json().encode())
                drops[oid].setCompleted()
            else:
                drops[oid].setError()
    return app


def wait_for(app: TrainApp) -> AppDROPStates:
    """How the application ended; the engine runs it in a thread."""
    deadline = time.monotonic() + 30
    while app.execStatus in (AppDROPStates.NOT_RUN, AppDROPStates.RUNNING):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return app.execStatus


def test_failed_copies_are_told_and_the_others_come_in_the_order_of_their_numbers(asked: list[dict[str, Any]]) -> None:
    drops = {"s_d_0-10": DONE, "s_d_0-2": DONE, "s_d_0-1": FAILED, "s_d_0-0": DONE}
    assert wait_for(train({"data": drops}, 1)) == AppDROPStates.FINISHED
    assert asked[0]["lost"] == [{"port": "data", "copy": 2}]
    assert [each["digest"][0] for each in asked[0]["inputs"]["data"]] == ["4", "2", "1"]


@pytest.mark.parametrize(
    ("states", "allowed"),
    [
        pytest.param({"data": {"s_d_0-0": DONE, "s_d_0-1": FAILED}}, 0, id="none may fail"),
        pytest.param({"data": {f"s_d_0-{n}": DONE if n else FAILED for n in range(201)}}, 0, id="one of very many"),
        pytest.param({"data": {"s_d_0-0": DONE, "s_other_0": FAILED}}, 2, id="not a batch"),
        pytest.param({"data": {"s_other_0": FAILED, "s_d_0-1": FAILED, "s_d_0-0": DONE}}, 2, id="not only a batch"),
        pytest.param({"data": {"s_d_0-0": DONE}, "after": {"s_e_0-1": FAILED}}, 2, id="what it waits for"),
    ],
)
def test_a_task_is_not_started_where_it_cannot_do_without_an_input(
    asked: list[dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
    states: dict[str, dict[str, DROPStates]],
    allowed: int,
) -> None:
    assert wait_for(train(states, allowed)) == AppDROPStates.ERROR
    assert asked == []
    assert "Error while executing" not in caplog.text
