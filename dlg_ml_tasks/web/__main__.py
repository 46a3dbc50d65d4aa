"""``python -m dlg_ml_tasks.web``: the site alone, as the stack starts it, without the other commands' imports."""

from __future__ import annotations

import argparse
import logging

from dlg_ml_tasks.web.server import serve
from dlg_ml_tasks.web.settings import SettingsError, settings_from


def main() -> None:
    """Serve the site that the environment describes. Exit code 2 for a variable that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m dlg_ml_tasks.web", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8050)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = settings_from()
    except SettingsError as error:
        parser.error(str(error))
    serve(settings, arguments.host, arguments.port)


if __name__ == "__main__":
    main()
