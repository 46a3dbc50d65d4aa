"""`python -m dlg_ml_tasks.archive.server`: serve an archive until interrupted."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from . import DEFAULT_PORT, ServerStartError, serve


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and serve; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m dlg_ml_tasks.archive.server",
        description="Serve an NGAS-compatible archive from a directory, until SIGTERM or Ctrl-C.",
        epilog="For laptops and tests: one disk, no authentication. Use a real NGAS for an observatory's archive.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--root", type=Path, required=True, metavar="DIR", help="where the archive is kept; created if missing"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; anything but loopback, as 0.0.0.0, opens the archive to everybody on the network",
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port to listen on, 0 for any free one")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        serve(options.root, options.host, options.port)
    except ServerStartError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
