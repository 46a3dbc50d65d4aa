"""The tasks on a GPU: training takes one where there is one, and what comes out does not depend on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dlg_ml_tasks.tasks import infer, load_raw, preprocess, promote, retrain, train
from dlg_ml_tasks.tracking import Reference, registry

pytestmark = [
    pytest.mark.usefixtures("tracking"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]
DIGITS = {"recipe": "digits"}


def _data(night: str) -> Reference:
    raw = load_raw.run({"sources": f"sample:{night}", **DIGITS})
    return preprocess.run(DIGITS, {"raw": [raw.reference]}).reference


def test_the_same_seed_gives_the_same_weights_on_the_same_gpu() -> None:
    data = _data("night-A")
    torch.cuda.reset_peak_memory_stats()
    first, second = (train.run({**DIGITS, "model_name": name}, {"data": [data]}) for name in ("gpu-1", "gpu-2"))
    assert torch.cuda.max_memory_allocated() > 0
    assert first.reference.digest == second.reference.digest
    assert first.metrics["accuracy"] > 0.8


def test_a_model_trained_on_a_gpu_is_retrained_promoted_and_applied(tmp_path: Path) -> None:
    model = {**DIGITS, "model_name": "gpu-lifecycle"}
    a, b = _data("night-A"), _data("night-B")
    first = train.run(model, {"data": [a]})
    second = retrain.run(model, {"data": [b], "replay": [a], "model": [first.reference]})
    promote.run(model, {"model": [second.reference], "data": [b], "earlier": [a]})
    assert registry.resolve("models:/gpu-lifecycle@champion") == second.reference
    weights = registry.load(second.reference, tmp_path / "model").weights
    assert {tensor.device.type for tensor in weights.values()} == {"cpu"}
    results = infer.run({**DIGITS, "model": "models:/gpu-lifecycle@champion"}, {"data": [a, b]})
    assert results.metrics["accuracy"] > 0.6
