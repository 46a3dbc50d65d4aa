"""Starts the fork server of the tasks and then the engine's node manager: ``python -m dlg_ml_tasks.components.node_manager ARGS``.

ARGS are those of ``dlg nm``. multiprocessing imports a program's main module again in each child, so this one stays light: the
engine is imported by `main` only.
"""

from __future__ import annotations

import os
import queue
import sys
from typing import Any

from dlg_ml_tasks.components import process

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Where Lightning looks for the number of its process among those that train together."""


class _Patient(queue.Queue[Any]):
    """A queue that waits a moment before it says that it is empty, and so wakes its reader when something comes."""

    def get_nowait(self) -> Any:
        return self.get(timeout=0.5)


def main(arguments: list[str]) -> None:
    """Run a node manager until it gets SIGTERM or SIGINT. Running tasks are then stopped."""
    for rank in _RANKS:
        # It is the node manager's among its like. A task trains alone, and its random numbers depend on this one.
        os.environ.pop(rank, None)
    process.start_server()

    import logging
    import optparse

    # First of all: only loggers made after it mark their records with the running drop, and without the mark the engine's own
    # "Error while executing ..." does not reach the drop's log.
    import dlg.runtime  # noqa: F401
    import gevent
    from dlg.manager import cmdline
    from dlg.manager.session import track_current_session

    from dlg_ml_tasks.components.drop_logs import DropLogs
    from dlg_ml_tasks.components.session_ends import SessionEnds
    from dlg_ml_tasks.components.unknown import mark_unknown

    def current_session() -> str:
        session = getattr(track_current_session.tlocal, "session", None)
        return session.sessionId if session else ""

    logs = DropLogs(current_session)
    # The engine calls each link to another node an error, of which a graph cut in two may have thousands.
    logging.getLogger("dlg.dlg.graph_loader").addFilter(lambda record: record.msg != "OID: %s not found!")

    class TaskNodeManager(cmdline.NodeManager):  # type: ignore[misc]  # the engine is untyped
        """The engine's node manager, except that it forgets no drops but all of a session that is removed, says what is wrong with
        a graph, tells MLflow when a session has ended, and at its end stops running tasks instead of waiting for them for hours.
        """

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            logs.install()  # not earlier: the engine's command clears the root logger's handlers first
            super().__init__(*args, **kwargs)
            # Every 10 s the engine looks for lost files. It takes those that are not written yet for lost and forgets their drops,
            # and then every task that reads one fails with a KeyError.
            self._dlm.deleteLostDrops = lambda: None
            self._ends = SessionEnds(lambda: dict(self.sessions), process.settle_session, on_end=logs.rest)
            self._ends.start()

        def addGraphSpec(self, sessionId: str, graphSpec: list[dict[str, Any]]) -> None:  # noqa: N802, N803
            mark_unknown(graphSpec)
            super().addGraphSpec(sessionId, graphSpec)

        def destroySession(self, sessionId: str) -> None:  # noqa: N802, N803  # the engine's names
            super().destroySession(sessionId)
            logs.forget(sessionId)

        def stop_zrpcserver(self) -> None:
            # The engine looks a hundred times a second whether it is to end.
            while self.rpc_running:
                gevent.sleep(0.2)
            super().stop_zrpcserver()

        def start(self) -> None:
            super().start()
            # The engine looks a hundred times a second whether there is an event, in each of two threads.
            self._events_in, self._events_out = _Patient(), _Patient()

        def shutdown(self) -> None:
            self._ends.stop()
            process.stop_all()
            super().shutdown()

    # The engine's command has no option for the class.
    cmdline.NodeManager = TaskNodeManager
    cmdline.dlgNM(optparse.OptionParser(description="DALiuGE node manager with ML tasks"), arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
