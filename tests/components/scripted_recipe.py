"""A recipe for tests whose samples succeed, fail, hang or die as their name says."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlg_ml_tasks.tasks import BadInput, Item, Plan, Recipe


def _sleep(out: Path) -> None:
    time.sleep(120)


def _nap(out: Path) -> None:
    time.sleep(2)


def _sleep_deaf(out: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "120.25"])
    logging.getLogger("dlg_ml_tasks.scripted").info("deaf from here on")
    time.sleep(120)


def _die(out: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _bad(out: Path) -> None:
    raise BadInput(r"the sample is bad: C:\users\é; take another")


def _bug(out: Path) -> None:
    raise KeyError("nothing")


def _talk(out: Path) -> None:
    logging.getLogger("dlg_ml_tasks.scripted").info(r"reading C:\users\é")


ACTS = {"sleep": _sleep, "nap": _nap, "deaf": _sleep_deaf, "die": _die, "bad": _bad, "bug": _bug, "talk": _talk}


class Scripted(Recipe):
    """`sample:NAME` acts as ACTS say and then writes a file; any other NAME just writes it."""

    metric = "none"

    def sample(self, name: str, out: Path, seed: int) -> None:
        if name.startswith("pid"):
            logging.getLogger("dlg_ml_tasks.scripted").info("process %d", os.getpid())
        ACTS.get(name, lambda _: None)(out)
        (out / "raw.txt").write_text(f"{name} {seed}")

    def preprocess(self, raw: Path, out: Path) -> None:
        (out / "data.txt").write_text(raw.read_text())

    def is_labelled(self, item: Item) -> bool:
        return False

    def data(self, items: Sequence[Item], replay: Sequence[Item], plan: Plan) -> Any:
        raise NotImplementedError

    def module(self, plan: Plan) -> Any:
        raise NotImplementedError

    def example_input(self) -> Any:
        raise NotImplementedError

    def infer(self, predict: Any, item: Item, out: Path | None) -> dict[str, Any]:
        return {}

    def metrics(self, counts: dict[str, Any]) -> dict[str, float]:
        return {}
