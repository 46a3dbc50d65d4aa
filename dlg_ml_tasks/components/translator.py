"""Starts the engine's translator with its Deploy button set to one island: ``python -m dlg_ml_tasks.components.translator ARGS``.

ARGS are those of ``dlg tm``, and ``--island URL`` of the data island manager as a browser sees it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

_DEFAULT = 'const DEFAULT_URL = "http://localhost:8001/";'


def main(arguments: list[str]) -> None:
    """Run a translator until it gets SIGTERM or SIGINT. Raises RuntimeError if its page is not the one known here."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--island", required=True, metavar="URL")
    ours, translators = parser.parse_known_args(arguments)

    from dlg.dropmake.web import translator_rest
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    script = page_script(Path(translator_rest.file_location) / "main.js", ours.island)

    async def main_script(_: Request) -> Response:
        return Response(script, media_type="text/javascript")

    # Ahead of the mounted folder that holds the original.
    translator_rest.app.router.routes.insert(0, Route("/static/main.js", main_script))
    translator_rest.run(None, translators)


def page_script(original: Path, island: str) -> str:
    """The page's script, deploying to `island` unless the user chooses another in the page's settings.

    The island's address is written into the script of 6.6.0, so that its Deploy button works on the default port only.
    """
    script = original.read_text(encoding="utf-8")
    if script.count(_DEFAULT) != 1:
        raise RuntimeError(f"{original} does not hold the line {_DEFAULT!r}; is this another release of the engine?")
    return script.replace(_DEFAULT, f"const DEFAULT_URL = {json.dumps(island.rstrip('/') + '/')};")


if __name__ == "__main__":
    main(sys.argv[1:])
