"""A client of a data island manager's REST interface.

The engine's own client has no timeouts on answers, and it hides the server's error behind one of its own ("module 'dlg.exceptions'
has no attribute ..."), so this one is made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import requests

from dlg_ml_tasks.graphs.errors import EngineError, EngineRefused, EngineUnreachable

DEPLOY_TIMEOUT = 300
"""Seconds: the engine takes about one second per thousand drops."""


class Island:
    """A data island manager at ``host:port``. Every method raises EngineUnreachable or EngineRefused."""

    def __init__(self, address: str, timeout: float = 10) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise EngineError(
                f"{address!r} is no address of a data island manager; write host:port, such as 127.0.0.1:8001"
            )
        self.address = address
        self._timeout = timeout

    def nodes(self) -> list[str]:
        """The node managers, as host:port:event port:RPC port."""
        return [str(node) for node in self._call("GET", "nodes")]

    def create_session(self, session: str) -> None:
        self._call("POST", "sessions", json={"sessionId": session})

    def append_graph(self, session: str, drops: Sequence[dict[str, Any]]) -> None:
        self._call("POST", f"sessions/{quote(session)}/graph/append", json=list(drops), timeout=DEPLOY_TIMEOUT)

    def deploy(self, session: str, completed: Sequence[str]) -> None:
        """Start a session; `completed` are the drops to begin with."""
        self._call(
            "POST",
            f"sessions/{quote(session)}/deploy",
            data={"completed": ",".join(completed)} if completed else {},
            timeout=DEPLOY_TIMEOUT,
        )

    def session_states(self, session: str) -> dict[str, int | None]:
        """The state of the session on each node; None where it is not known."""
        answer: dict[str, Any] = self._call("GET", f"sessions/{quote(session)}/status")
        # A node that does not know the session answers {"Status": "Success"}, in the place of None.
        return {node: state if isinstance(state, int) else None for node, state in answer.items()}

    def graph(self, session: str) -> dict[str, dict[str, Any]]:
        """The drop specifications by oid."""
        return dict(self._call("GET", f"sessions/{quote(session)}/graph"))

    def drop_states(self, session: str) -> dict[str, dict[str, int]]:
        """{oid: {"status", and for applications "execStatus"}}; empty while the session is being deployed."""
        return dict(self._call("GET", f"sessions/{quote(session)}/graph/status"))

    def drop_logs(self, session: str, oid: str) -> list[dict[str, Any]]:
        """The log records of a drop."""
        return list(self._call("GET", f"sessions/{quote(session)}/graph/drop/{quote(oid)}").get("logs", []))

    def cancel(self, session: str) -> None:
        self._call("POST", f"sessions/{quote(session)}/cancel")

    def destroy(self, session: str) -> None:
        """Make the engine forget the session; its files stay."""
        self._call("DELETE", f"sessions/{quote(session)}")

    def session_folders(self, session: str) -> dict[str, str]:
        """The session's folder on each node."""
        answer: dict[str, Any] = self._call("GET", f"sessions/{quote(session)}/dir")
        # The engine merges the nodes' answers {"dir": folder} into one: the last node's stands for all.
        return {node.partition(":")[0]: str(answer["dir"]) for node in self.nodes() if "dir" in answer}

    def _call(self, method: str, path: str, timeout: float | None = None, **content: Any) -> Any:
        url = f"http://{self.address}/api/{path}"
        try:
            response = requests.request(method, url, timeout=timeout or self._timeout, **content)
        except requests.RequestException as error:
            raise EngineUnreachable(
                f"the data island manager at {self.address} does not answer ({type(error).__name__}); start it with 'dlg-ml up' or "
                "set DLG_ML_ISLAND to one that runs"
            ) from error
        if response.status_code != requests.codes.ok:
            raise EngineRefused(f"the data island manager refused {method} {path}: {_reason(response)}")
        return response.json() if response.content else {}


def _reason(response: requests.Response) -> str:
    try:
        error = response.json()
        return f"{error['type']} {error['args']} (its log says why)"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}"
