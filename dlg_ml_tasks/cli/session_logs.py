"""Where a task's log is: among the artifacts of its MLflow run once it has ended, in the engine's records before that."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dlg_ml_tasks.archive import NgasError
from dlg_ml_tasks.cli.live import TRACKING_ERRORS, the_island
from dlg_ml_tasks.graphs.errors import EngineError
from dlg_ml_tasks.graphs.snapshot import TaskSnapshot
from dlg_ml_tasks.tracking.files import download_artifact


def task_log(session: str, task: TaskSnapshot) -> list[str]:
    """The lines of a task's log; empty for a task that has not begun.

    The engine's own logs of a session over REST are broken (it looks for the file in another folder than it writes it to).
    """
    if task.run_id:
        try:
            with tempfile.TemporaryDirectory() as folder:
                found = download_artifact(task.run_id, "task.log", Path(folder))
                if found is not None:
                    return found.read_text(encoding="utf-8").splitlines()
        except (*TRACKING_ERRORS, NgasError):
            # The archive or MLflow is down: what the engine has is better than nothing.
            return list(_records(session, task))
    return list(_records(session, task))


def _records(session: str, task: TaskSnapshot) -> Iterator[str]:
    if not task.oid:
        return
    try:
        records = the_island().drop_logs(session, task.oid)
    except EngineError as error:
        yield f"(the engine's records of it cannot be had: {error})"
        return
    for record in records:
        text = re.sub(r"</?pre>", "", str(record.get("Message", ""))).strip()
        for line in text.splitlines():
            yield f"{record.get('time', '')} {record.get('Level', '')}: {line}"
