"""A client of a data island manager's REST interface.

The engine's own client has no timeouts on answers, and it hides the server's error behind one of its own ("module 'dlg.exceptions'
has no attribute ..."), so this one is made here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import requests

from dlg_ml_tasks.graphs.errors import EngineError, EngineRefused, EngineUnreachable

DEPLOY_TIMEOUT = 300
"""Seconds: the engine takes about one second per thousand drops."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class NodeStates:
    """What the island's node managers say of a session.

    `states` holds the session's state on each node that has it; `forgotten` are the nodes that answer and do not have it (they were
    started again since, or never had it), `silent` those that do not answer.
    """

    states: Mapping[str, int]
    forgotten: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()


class Island:
    """A data island manager at ``host:port``. Every method raises EngineUnreachable or EngineRefused."""

    def __init__(self, address: str, timeout: float = 30) -> None:
        # An island manager of the engine waits 10 s for a node manager that is not there before it answers.
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise EngineError(
                f"{address!r} is no address of a data island manager; write host:port, such as 127.0.0.1:8001"
            )
        self.address = address
        self._timeout = timeout
        self._appended: dict[str, dict[str, dict[str, Any]]] = {}

    def nodes(self) -> list[str]:
        """The node managers, as host:port:event port:RPC port."""
        return [str(node) for node in self._call("GET", "nodes")]

    def create_session(self, session: str) -> None:
        self._call("POST", "sessions", json={"sessionId": session})

    def append_graph(self, session: str, drops: Sequence[dict[str, Any]]) -> None:
        self._call("POST", f"sessions/{quote(session)}/graph/append", json=list(drops), timeout=DEPLOY_TIMEOUT)
        self._appended.setdefault(session, {}).update((drop["oid"], drop) for drop in drops)

    def deploy(self, session: str, completed: Sequence[str]) -> None:
        """Start a session; `completed` are the drops to begin with."""
        self._call(
            "POST",
            f"sessions/{quote(session)}/deploy",
            data={"completed": ",".join(completed)} if completed else {},
            timeout=DEPLOY_TIMEOUT,
        )

    def session_states(self, session: str) -> NodeStates:
        """The state of the session on each node."""
        try:
            answer: dict[str, Any] = self._call("GET", f"sessions/{quote(session)}/status")
        except EngineRefused:
            # The island manager's answer for all fails with any one node's.
            answers = self._ask_each_node(lambda node: self.node_sessions(node).get(session))
            silent = frozenset(self.nodes()) - set(answers)
        else:
            # A node that does not know the session answers {"Status": "Success"}, in the place of None.
            answers = {node: state if isinstance(state, int) else None for node, state in answer.items()}
            silent = frozenset()
        states = {node: state for node, state in answers.items() if state is not None}
        return NodeStates(states, frozenset(answers) - set(states), silent)

    def node_sessions(self, node: str) -> dict[str, int]:
        """All sessions of one node manager with their states."""
        return {each["sessionId"]: each["status"] for each in self._call("GET", f"node/{quote(node)}/sessions")}

    def sessions(self) -> dict[str, NodeStates]:
        """All sessions that any node manager knows.

        The nodes are asked because the island manager itself forgets the sessions when it is started again.
        """
        by_node = self._ask_each_node(self.node_sessions)
        silent = frozenset(self.nodes()) - set(by_node)
        found: dict[str, dict[str, int]] = {}
        for node, sessions in by_node.items():
            for session, state in sessions.items():
                found.setdefault(session, {})[node] = state
        return {
            session: NodeStates(states, frozenset(by_node) - set(states), silent) for session, states in found.items()
        }

    def graph(self, session: str) -> dict[str, dict[str, Any]]:
        """The drop specifications by oid; the engine, which takes seconds for thousands, is asked for those of others only."""
        if session in self._appended:
            return dict(self._appended[session])
        try:
            return dict(self._call("GET", f"sessions/{quote(session)}/graph", timeout=DEPLOY_TIMEOUT))
        except EngineRefused:
            # Also where the island manager was started again; what links the nodes is missing then.
            return self._merged(lambda node: self._call("GET", f"node/{quote(node)}/sessions/{quote(session)}/graph"))

    def drop_states(self, session: str) -> dict[str, dict[str, int]]:
        """{oid: {"status", and for applications "execStatus"}} of all nodes that answer and have the session."""
        try:
            return dict(self._call("GET", f"sessions/{quote(session)}/graph/status", timeout=DEPLOY_TIMEOUT))
        except EngineRefused:
            path = f"sessions/{quote(session)}/graph/status"
            return self._merged(lambda node: self._call("GET", f"node/{quote(node)}/{path}"))

    def drop_logs(self, session: str, oid: str) -> list[dict[str, Any]]:
        """The log records of a drop."""
        return list(self._call("GET", f"sessions/{quote(session)}/graph/drop/{quote(oid)}").get("logs", []))

    def cancel(self, session: str) -> None:
        self._call("POST", f"sessions/{quote(session)}/cancel")

    def destroy(self, session: str) -> None:
        """Make the engine forget the session; its files stay."""
        self._appended.pop(session, None)
        self._call("DELETE", f"sessions/{quote(session)}")

    def session_folder(self, session: str, node: str) -> str:
        """The session's folder on a node; the aggregated answer of an island names only one of them."""
        return str(self._call("GET", f"node/{quote(node)}/sessions/{quote(session)}")["dir"]["dir"])

    def _merged(self, ask: Callable[[str], Mapping[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
        return {oid: each for answer in self._ask_each_node(ask).values() for oid, each in answer.items()}

    def _ask_each_node(self, ask: Callable[[str], _T]) -> dict[str, _T]:
        """The answers of the nodes that give one. Raises EngineUnreachable only if the island manager itself gives none."""

        def answer(node: str) -> tuple[str, _T] | None:
            try:
                return node, ask(node)
            except EngineRefused:
                return None

        nodes = self.nodes()
        with ThreadPoolExecutor(max(1, min(len(nodes), 16))) as pool:
            return dict(filter(None, pool.map(answer, nodes)))

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
        if isinstance(error["args"], dict):  # by node; the engine replaces the reasons by a dummy
            nodes = ", ".join(f"{node} ({each['type']})" for node, each in sorted(error["args"].items()))
            return f"it failed on the node managers {nodes}; do they run? Their logs say why"
        return f"{error['type']} {error['args']} (its log says why)"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}"
