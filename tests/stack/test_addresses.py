"""Which address goes before which."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from dlg_ml_tasks.stack import ServiceState, StackError, StackState, resolve
from dlg_ml_tasks.stack.state import ServiceName, save_state

ENVIRON = {
    "MLFLOW_TRACKING_URI": "https://mlflow.example.org",
    "DLG_ML_ISLAND": "dim.example.org:9001",
    "DLG_ML_TRANSLATOR": "http://tm.example.org:9084/",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose services are, as far as the record tells, this very process."""
    me = psutil.Process(os.getpid())

    def service(name: ServiceName, port: int, started: float) -> ServiceState:
        return ServiceState(
            name=name,
            pid=me.pid,
            started=started,
            host="127.0.0.1",
            ports={name: port},
            url=f"http://127.0.0.1:{port}",
            log=tmp_path / "log",
        )

    running = me.create_time()
    died_long_ago = running - 1000
    services = (service("mlflow", 5001, running), service("island", 8011, running))
    save_state(StackState(home=tmp_path, services=(*services, service("translator", 8094, died_long_ago))))
    return tmp_path


def test_the_running_stack_gives_the_addresses(home: Path) -> None:
    addresses = resolve(home, {})
    assert addresses.require_tracking_uri() == "http://127.0.0.1:5001"
    assert addresses.require_island() == ("127.0.0.1", 8011)


def test_a_dead_service_has_no_address(home: Path) -> None:
    with pytest.raises(StackError, match=r"dlg-ml up.*DLG_ML_TRANSLATOR"):
        resolve(home, {}).require_translator()


def test_the_environment_goes_before_the_stack(home: Path) -> None:
    addresses = resolve(home, ENVIRON)
    assert addresses.require_tracking_uri() == "https://mlflow.example.org"
    assert addresses.require_island() == ("dim.example.org", 9001)
    assert addresses.require_translator() == "http://tm.example.org:9084"


def test_without_stack_and_environment_there_is_no_address(tmp_path: Path) -> None:
    addresses = resolve(tmp_path, {})
    with pytest.raises(StackError, match="MLFLOW_TRACKING_URI"):
        addresses.require_tracking_uri()
    with pytest.raises(StackError, match="DLG_ML_ISLAND"):
        addresses.require_island()


def test_an_ipv6_island_is_understood(tmp_path: Path) -> None:
    assert resolve(tmp_path, {"DLG_ML_ISLAND": "[::1]:8001"}).island == ("::1", 8001)


@pytest.mark.parametrize("value", ["dim", "dim:", "dim:0", "dim:70000", "http://dim:8001", "dim:8001/x", "a b:8001"])
def test_a_malformed_island_is_refused_with_its_value(tmp_path: Path, value: str) -> None:
    with pytest.raises(StackError, match=value):
        resolve(tmp_path, {"DLG_ML_ISLAND": value})


@pytest.mark.parametrize("value", ["tm:8084", "ftp://tm", "http://", "http://[::1", "http://tm:x"])
def test_a_malformed_translator_is_refused_with_its_value(tmp_path: Path, value: str) -> None:
    with pytest.raises(StackError, match="DLG_ML_TRANSLATOR"):
        resolve(tmp_path, {"DLG_ML_TRANSLATOR": value})
