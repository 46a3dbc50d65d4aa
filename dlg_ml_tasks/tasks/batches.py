"""Batches: the parts in which a survey's files are loaded, and what a task does that gathers them when some did not come."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from dlg_ml_tasks.tasks.errors import BatchesFailed
from dlg_ml_tasks.tracking.failures import failures

if TYPE_CHECKING:
    from dlg_ml_tasks.tasks.execution import Context

BATCH_FILE = "dlg-ml-batch.json"
"""Stands among the raw files of a batch; with them, so that a batch without any is something too."""

_REASONS_SHOWN = 5

log = logging.getLogger(__name__)


class Batch(BaseModel):
    """Which batch a data set is: `number` (from 1) `of` so many into which the files of `sources` were divided."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    of: int
    sources: tuple[str, ...]


def write_batch(raw: Path, batch: Batch) -> None:
    """Say beside the raw files in the folder `raw` which batch they are."""
    (raw / BATCH_FILE).write_text(batch.model_dump_json())


def read_batch(raw: Path) -> Batch | None:
    """Which batch the raw files in the folder `raw` are, if any."""
    file = raw / BATCH_FILE
    return Batch.model_validate_json(file.read_text()) if file.exists() else None


@dataclass(frozen=True)
class Lost:
    """An input that will not come, because the copy of a scatter that should have made it failed; copies are counted from 1."""

    port: str
    copy: int


def refuse_if_too_many(lost: Sequence[Lost], arrived: int, allowed: int, session: str | None) -> None:
    """Raise BatchesFailed, naming each with the reason, if more batches were lost than the task's `max_failed_batches` allows."""
    failed = max(Counter(each.port for each in lost).values())
    if failed > allowed:
        _refuse(failed, _reasons({each.copy for each in lost}, session), arrived + len(lost), allowed)


def account(context: Context, port: str, batches: Iterable[Batch | None], allowed: int) -> None:
    """Note in the run which batches came by an input port, which did not, and why (tag, table and metrics).

    `batches` says of each data set which one it is, None for one that is no part of a survey. A batch is missing if its input was
    lost, or if the others say that it exists and it is not there: a scatter with fewer copies than batches would otherwise leave
    files out without a word. Raises BatchesFailed if more are missing than `allowed`.
    """
    came = [batch for batch in batches if batch is not None]
    lost = [each.copy for each in context.lost if each.port == port]
    if not came and not lost:
        return
    expected = {(batch.sources, batch.of) for batch in came}
    there = {(batch.sources, batch.number) for batch in came}
    never = [(sources, n) for sources, of in expected for n in range(1, of + 1) if (sources, n) not in there]
    # Usually both name the same ones; data that is no part of a survey can only be lost.
    failed = max(len(never), len(lost))
    total = max(sum(of for _, of in expected), len(came) + failed)
    reasons = _reasons({*lost, *(n for _, n in never)}, context.session)
    if failed > allowed:
        _refuse(failed, reasons, total, allowed)
    # The port is named where it is not the main one.
    prefix = "" if port == "data" else f"{port}_"
    if reasons:
        log.warning("going on without %s", _listed(reasons))
        context.run.set_tags({f"dlg_ml.{prefix}left_out": _listed(reasons)})
    table = context.records / f"{prefix}batches.json"
    rows = [batch.model_dump() for batch in sorted(came, key=lambda batch: (batch.sources, batch.number))]
    table.write_text(json.dumps({"used": rows, "left_out": {str(n): why for n, why in reasons.items()}}, indent=2))
    context.run.log_metrics({f"{prefix}batches": float(total), f"{prefix}batches_failed": float(failed)})


def _reasons(copies: Collection[int], session: str | None) -> dict[int, str]:
    """Why each batch is not there: the last line of what its task said, found among the session's runs."""
    failed: Mapping[str, str] = failures(session) if session and copies else {}
    return {
        copy: "; ".join(f"{node}: {why}" for node, why in failed.items() if node.endswith(f"/{copy}"))
        or "no task of it left a reason: either its process was lost, or the scatter has fewer copies than load_raw's batches"
        for copy in sorted(copies)
    }


def _refuse(failed: int, reasons: Mapping[int, str], total: int, allowed: int) -> None:
    raise BatchesFailed(
        f"{failed} of {total} batches failed, max_failed_batches allows {allowed}: {_listed(reasons)}; mend them and submit the "
        "graph again (what is finished is reused), or allow more"
    )


def _listed(reasons: Mapping[int, str]) -> str:
    """The numbers of all, the reasons of the first: thousands may fail of one cause."""
    first = [f"batch {number} ({why})" for number, why in list(reasons.items())[:_REASONS_SHOWN]]
    rest = [str(number) for number in list(reasons)[_REASONS_SHOWN:]]
    return "; ".join([*first, *([f"and {', '.join(rest)}"] if rest else [])])
