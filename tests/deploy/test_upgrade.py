"""MLflow's database of an older version, brought to the schema of this one as docs/operations.md says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests

from tests.deploy.conftest import Deployment, pull_unless_at_hand

if TYPE_CHECKING:
    from pathlib import Path

    import docker

pytestmark = pytest.mark.deploy

OLDER = "0584bdc529eb"
"""The last revision of MLflow 2's schema (2.22): without logged models, assessments, spans and what came after."""

MADE_BY_OLDER = f"""
import os, sys
sys.path.insert(0, "/opt")
import serve
serve.write_passfile(serve.read_secret())
os.environ["PGPASSFILE"] = str(serve.PASSFILE)
serve.wait_for_database()

from alembic import command
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base
from sqlalchemy import create_engine, text

engine = create_engine(serve.URI)
Base.metadata.create_all(engine)
config = _get_alembic_config(serve.URI)
with engine.begin() as connection:
    config.attributes["connection"] = connection
    command.upgrade(config, "{OLDER}")
with engine.begin() as connection:
    connection.execute(text(
        "INSERT INTO experiments (name, artifact_location, lifecycle_stage) VALUES ('of-old', 'ngas://ngas:7777/of-old', 'active')"
    ))
"""


def test_the_database_of_an_older_mlflow_is_upgraded_and_keeps_what_it_holds(
    engine: docker.DockerClient, images: dict[str, str], tmp_path: Path
) -> None:
    pull_unless_at_hand(engine, "postgres:15-bookworm")
    running = Deployment("embedded", tmp_path, engine)
    try:
        running.compose("run", "--rm", "--entrypoint", "python", "mlflow", "-c", MADE_BY_OLDER)
        assert _revision(running) == OLDER
        running.compose("run", "--rm", "mlflow", "upgrade")
        assert _revision(running) != OLDER
        running.compose("up", "--detach", "--wait", "--no-build", "mlflow")
        asked = (
            f"http://127.0.0.1:{running.ports['MLFLOW']}/api/2.0/mlflow/experiments/get-by-name?experiment_name=of-old"
        )
        experiment = requests.get(asked, timeout=60).json()["experiment"]
        assert experiment["artifact_location"] == "ngas://ngas:7777/of-old"
    finally:
        running.down(volumes=True)


def _revision(running: Deployment) -> str:
    asked = ("psql", "-U", "mlflow", "-d", "mlflow", "-Atc", "SELECT version_num FROM alembic_version")
    return running.compose("exec", "-T", "postgres", *asked).stdout.strip()
