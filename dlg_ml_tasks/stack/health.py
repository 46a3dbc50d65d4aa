"""Whether a service does its work, asked over HTTP in a way that a server which merely listens cannot answer.

A container asks about itself: ``python -I -S health.py NAME HOST:PORT``, exit code 0 if it is well. As that happens twice a
minute in each, this file imports nothing but the standard library, and can be run by itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException
from urllib.parse import quote

ANSWER_WITHIN_S = 5.0


class Unhealthy(Exception):
    """A service does not answer as it should; the message says how."""


def check(name: str, host: str, ports: Mapping[str, int]) -> None:
    """Ask the service called `name` on its `ports` of `host`.

    Raises:
        Unhealthy: it does not answer, or not as a working service would.
    """
    role = name.partition("-")[0]
    _CHECKS[role](host, next(port for key, port in ports.items() if key.startswith(role)))


def main(arguments: list[str]) -> int:
    """Ask the service named by the first argument at HOST:PORT, the second; the exit code."""
    name, address = arguments
    host, _, port = address.rpartition(":")
    try:
        _CHECKS[name](host, int(port))
    except Unhealthy as problem:
        print(problem)
        return 1
    return 0


def _ngas(host: str, port: int) -> None:
    reply = _ask(host, port, "GET", "/STATUS")
    if b'Status="SUCCESS"' not in reply or b'State="ONLINE"' not in reply:
        raise Unhealthy(f"STATUS does not report success and ONLINE: {reply[:400]!r}")


def _mlflow(host: str, port: int) -> None:
    # /health answers before the database is usable; a search goes through it.
    _ask(host, port, "POST", "/api/2.0/mlflow/experiments/search", {"max_results": 1})


def _mlflow_with_archive(host: str, port: int) -> None:
    _mlflow(host, port)
    # Where the server hands out artifacts itself, this lists the top of its archive.
    _ask(host, port, "GET", "/api/2.0/mlflow-artifacts/artifacts")


def _node(host: str, port: int) -> None:
    _ask(host, port, "GET", "/api")


def _island(host: str, port: int) -> None:
    # The island manager answers for itself whether or not its nodes exist, so ask through it.
    reply = _ask(host, port, "GET", "/api/nodes")
    try:
        nodes: list[str] = json.loads(reply)
    except ValueError as error:
        raise Unhealthy(f"its list of nodes is not JSON: {reply[:200]!r}") from error
    if not nodes:
        raise Unhealthy("it manages no node")
    for node in nodes:
        _ask(host, port, "GET", f"/api/node/{quote(node)}/sessions")


def _translator(host: str, port: int) -> None:
    # A translator with the wrong web libraries starts and listens, and fails on every page it renders.
    _ask(host, port, "GET", "/")


def _web(host: str, port: int) -> None:
    # A page and not its health: the page is made from what it read.
    _ask(host, port, "GET", "/overview.json")


_CHECKS: dict[str, Callable[[str, int], None]] = {
    "ngas": _ngas,
    "mlflow": _mlflow,
    "mlflow-with-archive": _mlflow_with_archive,
    "node": _node,
    "island": _island,
    "translator": _translator,
    "web": _web,
}


def _ask(host: str, port: int, method: str, path: str, body: object = None) -> bytes:
    # http.client and not requests: a proxy in the environment has no business between here and the service.
    connection = HTTPConnection(host, port, timeout=ANSWER_WITHIN_S)
    address = f"http://{host}:{port}{path}"
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"} if content else {})
        response = connection.getresponse()
        reply = response.read()
    except (OSError, HTTPException) as error:
        raise Unhealthy(f"{address} does not answer ({error or type(error).__name__})") from error
    finally:
        connection.close()
    if response.status != 200:
        raise Unhealthy(f"{address} answers {response.status}: {reply[:200].decode(errors='replace')}")
    return reply


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
