"""Command lines and environments."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlg_ml_tasks.stack.ports import Ports
from dlg_ml_tasks.stack.services import Service, services

PORTS = Ports()


def named(name: str, environ: dict[str, str], home: Path = Path("/h")) -> Service:
    return next(service for service in services(home, PORTS, environ) if service.name == name)


@pytest.mark.parametrize("name", ["ngas", "mlflow", "node", "island", "translator", "web"])
def test_every_service_is_told_its_ports_and_the_loopback_address(name: str) -> None:
    command = named(name, {}).command
    assert "127.0.0.1" in command
    assert {str(port) for port in named(name, {}).ports.values()} <= set(command)


@pytest.mark.parametrize("nodes", [1, 3])
def test_every_role_belongs_to_exactly_one_service(nodes: int) -> None:
    ports = Ports.usual(nodes)
    roles = [role for service in services(Path("/h"), ports, {}, nodes=nodes) for role in service.ports]
    assert sorted(roles) == sorted(ports.model_dump())


def test_the_island_knows_every_node_manager_and_each_has_a_root_of_its_own() -> None:
    found = {service.name: service for service in services(Path("/h"), Ports.usual(3), {}, nodes=3)}
    assert list(found) == ["ngas", "mlflow", "node", "node-2", "node-3", "island", "translator", "web"]
    command = found["island"].command
    assert command[command.index("-N") + 1] == (
        "127.0.0.1:8000:5555:6666,127.0.0.1:8010:5556:6667,127.0.0.1:8020:5557:6668"
    )
    roots = {found[name].environment["DLG_ROOT"] for name in ("node", "node-2", "node-3")}
    assert roots == {"/h/dlg", "/h/dlg-2", "/h/dlg-3"}


def test_a_service_says_which_other_ports_it_was_told() -> None:
    for service in services(Path("/h"), PORTS, {}):
        told = " ".join((*service.command, *service.environment.values()))
        for role in set(Ports.model_fields) - set(service.ports):
            assert (str(getattr(PORTS, role)) in told) == (role in service.needs), (service.name, role)


def test_what_the_user_set_for_an_mlflow_client_does_not_change_the_server() -> None:
    environ = {"MLFLOW_TRACKING_URI": "http://elsewhere", "MLFLOW_STATIC_PREFIX": "/x", "_MLFLOW_STATIC_PREFIX": "/x"}
    environment = named("mlflow", environ).environment
    assert not set(environ) & set(environment)
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "http://127.0.0.1:5000"),
        ({"MLFLOW_TRACKING_URI": ""}, "http://127.0.0.1:5000"),
        ({"MLFLOW_TRACKING_URI": "https://mlflow.example.org"}, "https://mlflow.example.org"),
    ],
)
def test_tasks_record_in_the_embedded_server_unless_the_user_names_another(
    environ: dict[str, str], expected: str
) -> None:
    assert named("node", environ).environment["MLFLOW_TRACKING_URI"] == expected


def test_a_user_name_is_set_where_the_environment_has_none() -> None:
    assert named("node", {}).environment["USER"]
    assert named("node", {"USER": "vera"}).environment["USER"] == "vera"


def test_a_proxy_is_kept_away_from_loopback() -> None:
    environment = named("node", {"no_proxy": "intranet", "http_proxy": "http://proxy:3128"}).environment
    assert environment["no_proxy"].split(",") == ["intranet", "127.0.0.1", "localhost"]


def test_at_least_two_tasks_run_side_by_side() -> None:
    command = named("node", {}).command
    assert int(command[command.index("-t") + 1]) >= 2


def test_a_secret_in_the_environment_is_not_shown_with_the_service() -> None:
    assert "hush" not in repr(services(Path("/h"), PORTS, {"DLG_ML_NGAS_PASSWORD": "hush"}))
