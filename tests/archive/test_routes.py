from __future__ import annotations

import pytest

from dlg_ml_tasks.archive import Address, NgasClient
from dlg_ml_tasks.archive.routes import route_to
from dlg_ml_tasks.archive.server import EmbeddedNgas


def test_an_archive_is_reached_where_the_route_says_and_keeps_its_name(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedNgas(tmp_path_factory.mktemp("ngas")) as server:
        monkeypatch.setenv("DLG_ML_NGAS_ROUTES", f"archive-{server.port}.invalid=127.0.0.1:{server.port}")
        client = NgasClient(f"archive-{server.port}.invalid")
        assert client.server_status().success
        assert str(client.address) == f"archive-{server.port}.invalid:7777"


def test_an_archive_without_a_route_is_reached_at_its_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLG_ML_NGAS_ROUTES", " ngas=127.0.0.1:1 , ")
    assert route_to(Address("ngas", 7777)) == Address("127.0.0.1", 1)
    assert route_to(Address("ngas", 7778)) == Address("ngas", 7778)


@pytest.mark.parametrize("routes", ["ngas", "ngas=", "=x", "ngas=user@x"])
def test_routes_that_cannot_be_read_are_refused(monkeypatch: pytest.MonkeyPatch, routes: str) -> None:
    monkeypatch.setenv("DLG_ML_NGAS_ROUTES", routes)
    with pytest.raises(ValueError, match="DLG_ML_NGAS_ROUTES"):
        route_to(Address("ngas", 7777))
