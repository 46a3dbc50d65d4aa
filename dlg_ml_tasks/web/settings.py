"""What an operator sets: where MLflow is, what may be shown, and how the site is reached; from environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from dlg_ml_tasks.archive import split_url

TRACKING = "MLFLOW_TRACKING_URI"
PUBLIC = "DLG_ML_WEB_PUBLIC"
URL = "DLG_ML_WEB_URL"
ARTIFACTS = "DLG_ML_WEB_ARTIFACTS"
CACHE = "DLG_ML_WEB_CACHE"
TITLE = "DLG_ML_WEB_TITLE"


class SettingsError(ValueError):
    """A variable has a value that cannot be used; the message names it, the value and what to write."""


class Settings(BaseModel):
    """How one site is set up.

    tracking_uri: URL of the MLflow server. public: whether all experiments and models are shown, or those tagged `public`.
    url: under which the site is reached from outside, without a slash at the end; empty: as the request says. artifacts: the
    ``ngas://`` URL behind ``mlflow-artifacts:`` locations, where the MLflow server passes artifacts on; empty: there are none.
    cache: folder that keeps what was read over a restart; None: a temporary one. title: the site's name.
    """

    model_config = ConfigDict(frozen=True)

    tracking_uri: str
    public: Literal["all", "tagged"] = "all"
    url: str = ""
    artifacts: str = ""
    cache: Path | None = None
    title: str = "dlg-ml results"

    @property
    def prefix(self) -> str:
        """The path below which all pages lie: empty, or such as ``/results``."""
        return urlsplit(self.url).path.rstrip("/")


def settings_from(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings. Raises SettingsError."""
    cache = environ.get(CACHE)
    return Settings(
        tracking_uri=_http(TRACKING, environ.get(TRACKING, "")),
        public=_public(environ.get(PUBLIC) or "all"),
        url=_http(URL, environ[URL]) if environ.get(URL) else "",
        artifacts=_ngas(environ[ARTIFACTS]) if environ.get(ARTIFACTS) else "",
        cache=Path(cache).expanduser().absolute() if cache else None,
        title=environ.get(TITLE) or "dlg-ml results",
    )


def _http(variable: str, value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError(f"{variable}={value!r} is not a URL of a server, as in 'http://mlflow.example.org:5000'")
    return value.rstrip("/")


def _public(value: str) -> Literal["all", "tagged"]:
    if value == "all":
        return "all"
    if value == "tagged":
        return "tagged"
    raise SettingsError(f"{PUBLIC}={value!r}: write all, or tagged to show what has the tag 'public' only")


def _ngas(value: str) -> str:
    try:
        split_url(value)
    except ValueError as error:
        raise SettingsError(f"{ARTIFACTS}: {error}") from error
    return value.rstrip("/")
