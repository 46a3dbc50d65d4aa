from __future__ import annotations

from pathlib import Path

import pytest

from dlg_ml_tasks.stack import StackError, compose_environment


def test_the_usual_ports_lead_to_the_services(tmp_path: Path) -> None:
    assert compose_environment({"DLG_ML_COMPOSE": str(tmp_path)}) == {
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
        "DLG_ML_ISLAND": "127.0.0.1:8001",
        "DLG_ML_TRANSLATOR": "http://127.0.0.1:8084",
        "DLG_ML_NGAS_ROUTES": "ngas:7777=127.0.0.1:7777",
    }


def test_ports_are_read_where_compose_reads_them_and_the_environment_goes_first(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DLG_ML_MLFLOW_PORT=15000\nDLG_ML_NGAS_PORT=17777 # moved\n")
    found = compose_environment({"DLG_ML_COMPOSE": str(tmp_path), "DLG_ML_MLFLOW_PORT": "25000"})
    assert found["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:25000"
    assert found["DLG_ML_NGAS_ROUTES"] == "ngas:7777=127.0.0.1:17777"


def test_a_port_that_is_none_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DLG_ML_ISLAND_PORT=x\n")
    with pytest.raises(StackError, match="DLG_ML_ISLAND_PORT='x'"):
        compose_environment({"DLG_ML_COMPOSE": str(tmp_path)})
