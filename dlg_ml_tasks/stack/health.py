"""Whether a service does its work, asked over HTTP in a way that a server which merely listens cannot answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException
from urllib.parse import quote

from dlg_ml_tasks.stack.ports import LOOPBACK

ANSWER_WITHIN_S = 5.0


class Unhealthy(Exception):
    """A service does not answer as it should; the message says how."""


def check(name: str, ports: Mapping[str, int]) -> None:
    """Ask the service called `name` on its `ports`.

    Raises:
        Unhealthy: it does not answer, or not as a working service would.
    """
    _CHECKS[name.partition("-")[0]](ports)


def _ngas(ports: Mapping[str, int]) -> None:
    reply = _ask(ports["ngas"], "GET", "/STATUS")
    if b'Status="SUCCESS"' not in reply:
        raise Unhealthy(f"STATUS does not report success: {reply[:200]!r}")


def _mlflow(ports: Mapping[str, int]) -> None:
    # /health answers before the database is usable; a search goes through it.
    _ask(ports["mlflow"], "POST", "/api/2.0/mlflow/experiments/search", {"max_results": 1})


def _node(ports: Mapping[str, int]) -> None:
    port = next(port for role, port in ports.items() if role.startswith("node"))
    _ask(port, "GET", "/api")


def _island(ports: Mapping[str, int]) -> None:
    # The island manager answers for itself whether or not its nodes exist, so ask through it.
    reply = _ask(ports["island"], "GET", "/api/nodes")
    try:
        nodes: list[str] = json.loads(reply)
    except ValueError as error:
        raise Unhealthy(f"its list of nodes is not JSON: {reply[:200]!r}") from error
    if not nodes:
        raise Unhealthy("it manages no node")
    for node in nodes:
        _ask(ports["island"], "GET", f"/api/node/{quote(node)}/sessions")


def _translator(ports: Mapping[str, int]) -> None:
    # A translator with the wrong web libraries starts and listens, and fails on every page it renders.
    _ask(ports["translator"], "GET", "/")


def _web(ports: Mapping[str, int]) -> None:
    # A page and not its health: the page is made from what it read.
    _ask(ports["web"], "GET", "/overview.json")


_CHECKS: dict[str, Callable[[Mapping[str, int]], None]] = {
    "ngas": _ngas,
    "mlflow": _mlflow,
    "node": _node,
    "island": _island,
    "translator": _translator,
    "web": _web,
}


def _ask(port: int, method: str, path: str, body: object = None) -> bytes:
    # http.client and not requests: a proxy in the environment has no business between here and loopback.
    connection = HTTPConnection(LOOPBACK, port, timeout=ANSWER_WITHIN_S)
    address = f"http://{LOOPBACK}:{port}{path}"
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
