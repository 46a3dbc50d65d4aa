"""Starts the fork server of the tasks and then the engine's node manager: ``python -m dlg_ml_tasks.components.node_manager ARGS``.

ARGS are those of ``dlg nm``. multiprocessing imports a program's main module again in each child, so this one stays light: the
engine is imported by `main` only.
"""

from __future__ import annotations

import sys

from dlg_ml_tasks.components import process


def main(arguments: list[str]) -> None:
    """Run a node manager until it gets SIGTERM or SIGINT. Running tasks are then stopped."""
    process.start_server()

    import optparse

    from dlg.manager import cmdline

    class TaskNodeManager(cmdline.NodeManager):  # type: ignore[misc]  # the engine is untyped
        """The engine's node manager, except that at its end it stops running tasks instead of waiting hours for them."""

        def shutdown(self) -> None:
            process.stop_all()
            super().shutdown()

    # The engine's command has no option for the class.
    cmdline.NodeManager = TaskNodeManager
    cmdline.dlgNM(optparse.OptionParser(description="DALiuGE node manager with ML tasks"), arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
