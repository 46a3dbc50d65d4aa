"""The Dockerfiles and what goes into the images, without building any."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
DOCKERFILES = sorted((TOP / "deploy").glob("*/Dockerfile"))

each_file = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)


@each_file
def test_the_linter_has_nothing_to_say(path: Path) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, "--no-color", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@each_file
def test_the_final_stage_builds_nothing_and_runs_as_a_user_with_labels_and_a_health_check(path: Path) -> None:
    text = path.read_text()
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    assert len(stages) > 1
    assert all(stage.startswith("python:3.11-slim-bookworm") for stage in stages)
    final = stages[-1]
    assert not re.search(r"pip install|gcc|build-essential|-dev\b", final)
    assert re.search(r"^USER [1-9]\d+$", final, re.MULTILINE)
    assert "HEALTHCHECK" in final
    assert "org.opencontainers.image.version" in final
    assert "constraints.txt" in text


def test_the_server_images_requirements_are_among_the_packages_own() -> None:
    constraints = {line.split("==")[0].lower() for line in (TOP / "constraints.txt").read_text().splitlines()}
    for line in (TOP / "deploy/mlflow/requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            assert line.split("[")[0] in constraints


def test_the_build_context_lets_in_what_the_images_need_and_no_secret() -> None:
    rules = (TOP / ".dockerignore").read_text().splitlines()
    assert rules[1] == "*"
    assert "deploy/secrets" in rules[rules.index("!deploy") :]


def test_the_engines_image_installs_what_the_project_says() -> None:
    program = TOP / "deploy/daliuge/dependencies.py"
    if sys.version_info < (3, 11):
        pytest.skip("tomllib came with Python 3.11, which is the image's")
    done = subprocess.run([sys.executable, program], cwd=TOP, capture_output=True, text=True, check=True)
    assert "daliuge-engine==6.6.0" in done.stdout.splitlines()


@pytest.mark.parametrize("state", ["new", "made before"])
def test_secrets_are_made_once_and_only_their_owner_reaches_them(tmp_path: Path, state: str) -> None:
    (tmp_path / "secrets").mkdir()
    shutil.copy(TOP / "deploy/make-secrets.sh", tmp_path)
    secret = tmp_path / "secrets" / "postgres_password"
    if state != "new":
        secret.write_text("kept\n")
    subprocess.run(["sh", tmp_path / "make-secrets.sh"], check=True)
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    content = secret.read_text()
    assert content == "kept\n" if state != "new" else re.fullmatch(r"\S{40,}\n", content)
