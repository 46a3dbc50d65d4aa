"""Starts the engine's translator with its Deploy button set to one island: ``python -m dlg_ml_tasks.components.translator ARGS``.

ARGS are those of ``dlg tm``, ``--island URL`` of the data island manager as a browser sees it, and ``--island-inside HOST:PORT``
where the translator itself reaches that one under another address, as in a container.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_DEFAULT = 'const DEFAULT_URL = "http://localhost:8001/";'


def main(arguments: list[str]) -> None:
    """Run a translator until it gets SIGTERM or SIGINT. Raises RuntimeError if its page is not the one known here."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--island", required=True, metavar="URL")
    parser.add_argument("--island-inside", metavar="HOST:PORT")
    ours, translators = parser.parse_known_args(arguments)

    from dlg.dropmake.web import translator_rest, translator_utils
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    if ours.island_inside:
        host, _, port = ours.island_inside.rpartition(":")
        client = client_inside(translator_rest.CompositeManagerClient, ours.island, host, int(port))
        translator_rest.CompositeManagerClient = translator_utils.CompositeManagerClient = client

    script = page_script(Path(translator_rest.file_location) / "main.js", ours.island)

    async def main_script(_: Request) -> Response:
        return Response(script, media_type="text/javascript")

    # Ahead of the mounted folder that holds the original.
    translator_rest.app.router.routes.insert(0, Route("/static/main.js", main_script))
    translator_rest.run(None, translators)


def client_inside(engines: Any, island: str, host: str, port: int) -> Any:
    """The engine's class of manager clients, except that the island at the URL `island` is called at `host` and `port`.

    The page tells the translator the address that the browser uses, and the translator calls the island there itself.
    """
    outside = urlsplit(island)
    names = {(name, outside.port or 80) for name in (outside.hostname, "localhost", "127.0.0.1")}

    class InsideClient(engines):  # type: ignore[misc]  # the engine is untyped
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            if (kwargs.get("host"), kwargs.get("port")) in names:
                kwargs |= {"host": host, "port": port}
            super().__init__(*args, **kwargs)

    return InsideClient


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
