"""The site's environment variables: what they mean, and one line for what cannot be used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlg_ml_tasks.web.settings import SettingsError, settings_from

MLFLOW = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000/"}


def test_on_a_laptop_everything_is_public_and_nothing_is_kept() -> None:
    found = settings_from(MLFLOW)
    assert (found.tracking_uri, found.public, found.cache, found.prefix) == ("http://127.0.0.1:5000", "all", None, "")


def test_a_path_in_the_outside_address_is_the_prefix_of_all_pages() -> None:
    assert settings_from({**MLFLOW, "DLG_ML_WEB_URL": "https://obs.example.org/results/"}).prefix == "/results"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"),
        ("DLG_ML_WEB_PUBLIC", "some"),
        ("DLG_ML_WEB_URL", "obs.example.org"),
        ("DLG_ML_WEB_ARTIFACTS", "s3://bucket"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable) as caught:
        settings_from({**MLFLOW, variable: value})
    assert value in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dlg_ml_tasks.cli.main", "web"],
        env={**os.environ, **MLFLOW, "DLG_ML_HOME": str(tmp_path), "DLG_ML_WEB_PUBLIC": "some"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert (
        done.stderr == "error: DLG_ML_WEB_PUBLIC='some': write all, or tagged to show what has the tag 'public' only\n"
    )
