"""`python -m dlg_ml_tasks.archive.server` and `dlg-ml ngas serve`: serve an archive until interrupted."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from pathlib import Path

from . import DEFAULT_PORT, Access, Limits, ServerStartError, serve
from .hosts import AllowedHosts

_DESCRIPTION = """\
Serve an NGAS-compatible archive from a directory, until SIGTERM or Ctrl-C.

Files, their versions and checksums are safe on disk before an upload is answered. For a laptop, a group or a test;
an observatory's archive runs a real NGAS, which speaks the same protocol.
"""
_EXAMPLES = """\
examples:
  # For yourself; nobody but this machine gets in.
  %(prog)s --root ~/archive

  # For a group, with passwords: ann may do everything, bob only read. They pass the network unencrypted,
  # so put a TLS proxy in front of one that you do not trust.
  dlg-ml ngas user users.json ann
  dlg-ml ngas user users.json bob --commands RETRIEVE,STATUS,QUERY
  %(prog)s --root /data/archive --host 0.0.0.0 --users users.json --capacity 2TB

SIZE is in bytes, or with kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024).
HOST is an exact name or address, with :PORT if only one port is meant.
"""
_UNITS = {"": 1} | {
    f"{letter}{suffix}": base**power
    for suffix, base in (("B", 1000), ("iB", 1024))
    for power, letter in enumerate(("", "K", "M", "G", "T"))
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def main(arguments: list[str] | None = None, prog: str = "python -m dlg_ml_tasks.archive.server") -> int:
    """Parse the command line and serve; gives the exit code."""
    options = _parser(prog).parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    limits = Limits(capacity_bytes=options.capacity, max_requests=options.max_requests)
    access = Access(
        users=options.users,
        open_to_network=options.open_to_network,
        pull_hosts=AllowedHosts(frozenset(options.pull_hosts)),
        subscriber_hosts=None
        if options.subscriber_hosts is None
        else AllowedHosts(frozenset(options.subscriber_hosts)),
    )
    try:
        serve(options.root, options.host, options.port, limits, access, volumes=options.volumes)
    except ServerStartError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root", type=Path, required=True, metavar="DIR", help="where the archive is kept; created if missing"
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=DEFAULT_PORT,
        help=f"port to listen on, 0 for any free one (default {DEFAULT_PORT})",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default 127.0.0.1: this machine only); any other needs --users or --open-to-network",
    )
    who = parser.add_argument_group("who may use it")
    who.add_argument(
        "--users", type=Path, metavar="FILE", help="names, passwords and commands, made by: dlg-ml ngas user"
    )
    who.add_argument(
        "--open-to-network",
        action="store_true",
        help="with another --host and without --users: whoever reaches the port may read, add and discard files",
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--capacity", type=byte_count, metavar="SIZE", help="refuse files beyond it (default: the disk's)"
    )
    limits.add_argument(
        "--volumes",
        type=_positive,
        default=1,
        metavar="N",
        help="directories below DIR that count as disks (default 1)",
    )
    limits.add_argument(
        "--max-requests",
        type=_positive,
        metavar="N",
        help="answer 503 when so many are being served (default: no limit)",
    )
    whom = parser.add_argument_group("whom it calls itself")
    whom.add_argument(
        "--pull-hosts",
        type=_host,
        nargs="+",
        default=[],
        metavar="HOST",
        help="fetch files from there when told to: GET /ARCHIVE?filename=http://HOST/... (default: from nowhere)",
    )
    whom.add_argument(
        "--subscriber-hosts",
        type=_host,
        nargs="*",
        metavar="HOST",
        help="send new files there when told to by SUBSCRIBE (default: to this machine if --host is, else nowhere)",
    )
    return parser


def byte_count(text: str) -> int:
    """`10GB`, `1.5TiB` or `4096` in bytes. Raises argparse.ArgumentTypeError."""
    match = _SIZE.fullmatch(text.strip())
    unit = match[2].replace("k", "K") if match else ""
    if match is None or unit not in _UNITS or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write for example 500MB, 10GB or 1.5TiB")
    return int(float(match[1]) * _UNITS[unit])


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number above 0")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} must be a port from 0 to 65535")
    return int(text)


def _host(text: str) -> tuple[str, int | None]:
    try:
        return AllowedHosts.entry(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
