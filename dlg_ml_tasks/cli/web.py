"""dlg-ml web: the results site, for anyone with a browser."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from dlg_ml_tasks import stack
from dlg_ml_tasks.cli.output import console, fail

PORT = 8050


def web(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every interface.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = PORT,
) -> None:
    """Serve the results site: models, runs, inferences, lineage and files, read only.

    It shows what is in the MLflow server of MLFLOW_TRACKING_URI, or of the running embedded stack. DLG_ML_WEB_PUBLIC says what may
    be shown: `all` (default), or `tagged` for the experiments and registered models tagged `public`. docs/results-site.md
    has the other settings. Ctrl-C stops it.
    """
    from dlg_ml_tasks.web.server import serve
    from dlg_ml_tasks.web.settings import TRACKING, SettingsError, settings_from

    uri = stack.resolve(stack.home_directory()).require_tracking_uri()
    try:
        settings = settings_from({**os.environ, TRACKING: uri})
    except SettingsError as error:
        fail(str(error))
    console.print(
        f"results site: http://{host}:{port}{settings.prefix}/  (Ctrl-C stops it)", highlight=False, soft_wrap=True
    )
    serve(settings, host, port)
