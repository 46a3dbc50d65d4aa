"""The recipe of docs/recipes.md, in a module outside this package, through the tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dlg_ml_tasks.tasks import infer, load_raw, preprocess, train
from dlg_ml_tasks.tracking.files import download

EXAMPLE = Path(__file__).parents[2] / "docs" / "example"


def _write_night(folder: Path, name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(400) < 0.5
    series = rng.normal(size=(400, 128)).astype(np.float32)
    series[truth, 60:64] += 6
    np.save(folder / f"{name}.series.npy", series)
    np.save(folder / f"{name}.truth.npy", truth)


@pytest.mark.usefixtures("tracking")
def test_a_recipe_of_another_package_is_trained_and_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    recipe = {"recipe": "pulse_recipe:Pulses"}
    (tmp_path / "raw").mkdir()
    for seed, name in enumerate(("first", "second", "heldback")):
        _write_night(tmp_path / "raw", name, seed)
    raw = load_raw.run({"sources": str(tmp_path / "raw" / "*.npy")})
    data = preprocess.run(recipe, {"raw": [raw.reference]})
    assert (data.metrics["files"], data.metrics["held_back"]) == (3, 1)
    model = train.run({**recipe, "model_name": f"pulses-{tmp_path.name}"}, {"data": [data.reference]})
    assert model.metrics["accuracy"] > 0.9
    results = infer.run({**recipe, "model": model.reference.uri}, {"data": [data.reference]})
    assert (download(results.reference, tmp_path / "out") / "heldback.series.npy" / "pulses.png").exists()
