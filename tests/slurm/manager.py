"""Waits for one task as a node manager does; prints the log lines. Argument: the request as JSON."""

import json
import sys

from dlg_ml_tasks.components import process

if __name__ == "__main__":
    process.run(
        json.loads(sys.argv[1]),
        on_log=lambda line: print(line, flush=True),
        on_traceback=print,
        cancelled=lambda: False,
    )
