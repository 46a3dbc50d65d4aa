"""Translates a logical graph into drops and deploys them as a session of the engine."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from dlg_ml_tasks.components.copies import copy_name
from dlg_ml_tasks.components.palette import task_of
from dlg_ml_tasks.graphs.check import check
from dlg_ml_tasks.graphs.errors import EngineRefused
from dlg_ml_tasks.graphs.island import Island
from dlg_ml_tasks.tasks import BadInput

FILE_DROP = "dlg.data.drops.file.FileDROP"
MEMORY_DROP = "dlg.data.drops.memory.InMemoryDROP"

_FOR_EDITORS = ("applicationArgs", "componentParams", "constraintParams", "fields")
"""What a component's drop carries besides its values: names, texts and defaults, nine tenths of it."""

UNIQUE_FILE = "{uid}"
"""File name, filled in by the engine. Without one, it looks for the file in the folder of whichever session was made last, each
time the drop is opened, and the name that it makes up keeps 4 characters of the node's id."""


def new_session_id(graph: dict[str, Any]) -> str:
    """A session's name: the graph's, and the time (UTC), since the engine accepts a name only once."""
    stem = str(graph.get("modelData", {}).get("filePath", "")).rpartition("/")[2].removesuffix(".graph")
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-") or "graph"
    return f"{name}-{datetime.now(timezone.utc):%Y%m%dT%H%M%S%f}"


def translate(graph: dict[str, Any], session: str, nodes: list[str]) -> list[dict[str, Any]]:
    """The drops of a logical graph, placed on the nodes (`choose_nodes`). Raises BadInput if the translator does not take it."""
    from dlg.dropmake import pg_generator  # half a second of imports, only for those who submit
    from dlg.dropmake.dm_utils import GraphException

    # It warns of graphs without configurations, which are as good as others.
    logging.getLogger("dlg.dlg.dropmake").setLevel(logging.ERROR)
    try:
        # The translator changes what it is given. The session's name goes into the drops' ids; the default has colons in it.
        template = pg_generator.unroll(copy.deepcopy(graph), oid_prefix=session)
        template = pg_generator.partition(template, algo="metis", num_partitions=len(nodes), num_islands=1)
        drops = pg_generator.resource_map(template, [nodes[0], *nodes], num_islands=1, co_host_dim=True)
    except (GraphException, KeyError, ValueError, TypeError) as error:
        raise BadInput(f"the translator cannot unroll the graph: {type(error).__name__}: {error}") from error
    drops = [drop for drop in drops if drop]
    for drop in drops:
        _prepare(drop)
    return drops


def choose_nodes(available: Sequence[str], wanted: str | None) -> list[str]:
    """The nodes (`Island.nodes`) to place a graph on: all, the first so many ("2"), or those of a list ("host:port,host:port").

    Raises BadInput for more nodes than there are, or for one that is not there, listing those that are.
    """
    if not available:
        raise BadInput("there is no node manager to place the graph on; start one with 'dlg-ml up'")
    if wanted is None:
        return list(available)
    names = ", ".join(":".join(node.split(":")[:2]) for node in available)
    if wanted.strip().isdigit():
        count = int(wanted)
        if not 0 < count <= len(available):
            raise BadInput(f"the graph cannot be placed on {count} nodes; there are {len(available)}: {names}")
        return list(available[:count])
    chosen = []
    for each in dict.fromkeys(part.strip() for part in wanted.split(",") if part.strip()):
        found = [node for node in available if node == each or node.startswith(f"{each}:")]
        if len(found) != 1:
            raise BadInput(
                f"{each!r} names {len(found)} of the island's nodes; write a number or host:port of: {names}"
            )
        chosen += found
    if not chosen:
        raise BadInput(f"{wanted!r} names no node; write a number or host:port of: {names}")
    return chosen


def submit(graph: dict[str, Any], island: Island, *, session: str | None = None, nodes: str | None = None) -> str:
    """Check, translate and deploy a logical graph; returns the session's name.

    `nodes`: see `choose_nodes`. Raises BadInput, naming each problem, for a graph that could not run; EngineUnreachable or
    EngineRefused for the engine's part.
    """
    if problems := check(graph):
        raise BadInput("the graph cannot run: " + "; ".join(map(str, problems)))
    from dlg import droputils

    session = session or new_session_id(graph)
    drops = translate(graph, session, choose_nodes(island.nodes(), nodes))
    island.create_session(session)
    try:
        island.append_graph(session, drops)
        island.deploy(session, sorted(droputils.get_roots(drops)))
    except EngineRefused:
        island.destroy(session)
        raise
    return session


def _prepare(drop: dict[str, Any]) -> None:
    """Make the translator's drop one that the engine runs well."""
    # Left in, the empty reproducibility data stops the engine's events, and the session hangs.
    drop.pop("reprodata", None)
    if drop.get("dropclass") == FILE_DROP and not drop.get("filepath"):
        drop["filepath"] = UNIQUE_FILE
        drop.get("applicationArgs", {}).get("filepath", {})["value"] = UNIQUE_FILE
    is_task = bool(task_of(str(drop.get("dropclass", ""))))
    if is_task:
        # The engine's own key keeps 4 characters of the node's id, and drops of the same key get each other's log records.
        drop["humanReadableKey"] = copy_name(str(drop.get("name", "")), drop.get("iid", "0"))
    if is_task or drop.get("dropclass") == MEMORY_DROP:
        for field in _FOR_EDITORS:
            drop.pop(field, None)
