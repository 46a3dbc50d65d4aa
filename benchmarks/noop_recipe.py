"""A recipe that does nothing but pass a small file on: what is left is the cost of everything around the work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlg_ml_tasks.tasks import Item, Plan, Recipe


class Noop(Recipe):
    """Raw files are any `.txt`; preprocessing copies one."""

    raw_glob = "*.txt"
    metric = "none"

    def sample(self, name: str, out: Path, seed: int) -> None:
        """One file."""
        (out / f"{name}.txt").write_text(f"{name} {seed}")

    def preprocess(self, raw: Path, out: Path) -> None:
        """A copy."""
        (out / "data.txt").write_bytes(raw.read_bytes())

    def is_labelled(self, item: Item) -> bool:
        """Never."""
        return False

    def data(self, items: Sequence[Item], replay: Sequence[Item], plan: Plan) -> Any:
        """Nothing trains on it."""
        raise NotImplementedError

    def module(self, plan: Plan) -> Any:
        """Nothing trains on it."""
        raise NotImplementedError

    def example_input(self) -> Any:
        """Nothing trains on it."""
        raise NotImplementedError

    def infer(self, predict: Any, item: Item, out: Path | None) -> dict[str, Any]:
        """Nothing."""
        return {}

    def metrics(self, counts: dict[str, Any]) -> dict[str, float]:
        """None."""
        return {}
