"""Starts the engine's data island manager for the translator's page: ``python -m dlg_ml_tasks.components.island_manager ARGS``.

ARGS are those of ``dlg dim``, and ``--translator URL`` for each address under which a browser opens the translator's page.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

_READING = ("GET", "HEAD", "OPTIONS")
_ENGINES_CLIENT = "http://dlg-tm.localhost"
"""What the engine's own REST client, which the translator uses, says it was called from."""


def main(arguments: list[str]) -> None:
    """Run a data island manager until it gets SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--translator", action="append", default=[], metavar="URL")
    ours, engines = parser.parse_known_args(arguments)
    origins = frozenset(url.rstrip("/") for url in ours.translator)

    import optparse

    import bottle
    import dlg.runtime  # noqa: F401  # before any other engine module, or its errors never reach a drop's log
    from dlg.manager import cmdline

    class GuardedRestServer(cmdline.CompositeManagerRestServer):  # type: ignore[misc]  # the engine is untyped
        """The engine's REST server, which answers pages of the translator and does nothing for those of strangers."""

        def initializeSpecifics(self, app: Any) -> None:  # noqa: N802  # the engine's name
            super().initializeSpecifics(app)
            app.add_hook("before_request", self._refuse_strangers)
            app.add_hook("after_request", self._allow_translator)

        def _refuse_strangers(self) -> None:
            # Without a login, any page that the user happens to visit could send a graph here, and a graph is a program.
            origin = bottle.request.headers.get("Origin")
            own = f"http://{bottle.request.headers.get('Host')}"
            if origin not in (None, own, _ENGINES_CLIENT, *origins) and bottle.request.method not in _READING:
                bottle.abort(403, f"pages of {origin} may not change sessions here")

        def _allow_translator(self) -> None:
            # The engine answers every page of this machine that only http://localhost:8084 may read the answer: at any other
            # address the page takes the island for dead, and its Deploy button does nothing.
            origin = bottle.request.headers.get("Origin")
            if origin in origins:
                bottle.response.headers["Access-Control-Allow-Origin"] = origin

    class QuickIslandManager(cmdline.DataIslandManager):  # type: ignore[misc]  # the engine is untyped
        """The engine's island manager, except that no call waits longer for an absent node than --dmCheckTimeout says."""

        def check_dm(self, host: Any, port: int | None = None, timeout: float = 10) -> bool:
            return bool(super().check_dm(host, port, min(timeout, self._dmCheckTimeout)))

    # The engine's command has no option for the classes.
    cmdline.DataIslandManager = QuickIslandManager
    cmdline.CompositeManagerRestServer = GuardedRestServer
    cmdline.dlgDIM(optparse.OptionParser(description="DALiuGE data island manager"), engines)


if __name__ == "__main__":
    main(sys.argv[1:])
