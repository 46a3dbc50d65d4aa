"""The choice of ports, against real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from dlg_ml_tasks.stack import StackError
from dlg_ml_tasks.stack.ports import Ports, choose_ports, holder, is_free

Remember = Callable[..., Ports]


def test_remembered_ports_are_used_again(tmp_path: Path, remember_ports: Remember) -> None:
    remembered = remember_ports(tmp_path)
    assert choose_ports(tmp_path, {}, archive_is_fixed=True) == remembered


def test_the_choice_is_remembered(tmp_path: Path) -> None:
    chosen = choose_ports(tmp_path, {}, archive_is_fixed=False)
    assert choose_ports(tmp_path, {}, archive_is_fixed=False) == chosen


def test_a_taken_usual_port_leads_to_another(tmp_path: Path) -> None:
    usual = Ports().mlflow
    with closing(socket.socket()) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # then somebody else has taken it, which is as good
            server.bind(("127.0.0.1", usual))
            server.listen()
        chosen = choose_ports(tmp_path, {}, archive_is_fixed=False)
    assert chosen.mlflow != usual
    assert is_free(chosen.mlflow)


def test_a_taken_remembered_port_leads_to_another(tmp_path: Path, remember_ports: Remember, taken_port: int) -> None:
    remembered = remember_ports(tmp_path, translator=taken_port)
    chosen = choose_ports(tmp_path, {}, archive_is_fixed=True)
    assert chosen.translator != taken_port
    assert chosen.model_copy(update={"translator": taken_port}) == remembered


def test_a_running_services_port_stays_although_it_is_taken(
    tmp_path: Path, remember_ports: Remember, taken_port: int
) -> None:
    remember_ports(tmp_path)
    assert choose_ports(tmp_path, {"ngas": taken_port}, archive_is_fixed=True).ngas == taken_port


def test_a_taken_port_in_the_databases_addresses_is_an_error_that_names_port_holder_and_remedy(
    tmp_path: Path, remember_ports: Remember, taken_port: int
) -> None:
    remember_ports(tmp_path, ngas=taken_port)
    with pytest.raises(StackError, match=rf"ngas: port {taken_port} is held by process {os.getpid()} .*Stop that"):
        choose_ports(tmp_path, {}, archive_is_fixed=True)


def test_without_a_database_the_archive_may_move(tmp_path: Path, remember_ports: Remember, taken_port: int) -> None:
    remember_ports(tmp_path, ngas=taken_port)
    assert choose_ports(tmp_path, {}, archive_is_fixed=False).ngas != taken_port


def test_no_two_services_get_one_port(
    tmp_path: Path, remember_ports: Remember, free_ports: Callable[..., list[int]]
) -> None:
    (port,) = free_ports(1)
    remember_ports(tmp_path, **dict.fromkeys(Ports.model_fields, port))
    chosen = choose_ports(tmp_path, {}, archive_is_fixed=False).model_dump().values()
    assert len(set(chosen)) == len(Ports.model_fields)


def test_further_node_managers_get_ports_of_their_own_which_are_remembered(tmp_path: Path) -> None:
    chosen = choose_ports(tmp_path, {}, archive_is_fixed=False, nodes=3)
    assert len(set(chosen.model_dump().values())) == len(Ports.model_fields) + 6
    assert choose_ports(tmp_path, {}, archive_is_fixed=False, nodes=3) == chosen
    fewer = choose_ports(tmp_path, {"node-3": chosen.of("node-3")["node-3"]}, archive_is_fixed=False, nodes=2)
    assert "node-3" not in fewer.model_dump()
    assert fewer.of("rpc-2") == chosen.of("rpc-2")


def test_a_role_that_no_service_has_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no role 'ngsa'"):
        Ports.model_validate({"ngsa": 7778})


def test_a_broken_record_of_ports_is_an_error_because_the_archives_address_must_not_be_guessed(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text('{"ngas": 0}')
    with pytest.raises(StackError, match=r"ports\.json"):
        choose_ports(tmp_path, {}, archive_is_fixed=False)


def test_a_port_with_only_lingering_connections_is_free() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        with closing(socket.create_connection(("127.0.0.1", port))):
            accepted, _ = server.accept()
            accepted.close()
    assert is_free(port)


def test_the_holder_of_a_free_port_is_not_invented(free_ports: Callable[[int], list[int]]) -> None:
    assert "another program" in holder(free_ports(1)[0])
