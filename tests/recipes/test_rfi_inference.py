"""Flagging, scoring and the files that inference of the recipe rfi writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pyuvdata import UVData

from dlg_ml_tasks.recipes.rfi import Rfi
from dlg_ml_tasks.recipes.rfi.inference import probabilities
from dlg_ml_tasks.recipes.rfi.scoring import count_against_pipeline, count_against_truth, metrics
from dlg_ml_tasks.recipes.rfi.settings import RfiSettings
from dlg_ml_tasks.recipes.rfi.shards import read_shard
from dlg_ml_tasks.recipes.rfi.simulate import REAL_OBSERVATION
from dlg_ml_tasks.recipes.rfi.truth import Truth
from dlg_ml_tasks.tasks.recipe import Item, add_counts
from dlg_ml_tasks.tasks.showing import Waterfall


def loud(whitened: torch.Tensor) -> torch.Tensor:
    """A stand-in for a network: log-odds grow with the amplitude, zero at 30 sigma."""
    return torch.linalg.vector_norm(whitened.float(), dim=1) - 30.0


def rfi_band(item: Item) -> list[float]:
    """First and last frequency of an item in MHz."""
    frequencies = read_shard(item.folder).frequencies
    return [frequencies[0] / 1e6, frequencies[-1] / 1e6]


def truth_of(inr: list[list[float]], kinds: list[list[int]]) -> Truth:
    return Truth(np.array([inr], np.float16), np.array([kinds], np.uint8))


def test_counts_and_metrics_of_a_hand_made_example() -> None:
    truth = truth_of([[0, 0, 0.7, 3.0], [0, 20.0, 0.2, 1.5]], [[0, 0, 1, 1], [0, 2, 0, 1]])
    probability = np.array([[[0.1, 0.9, 0.2, 0.8], [0.0, 1.0, 0.3, 0.6]]], np.float32)
    counts = count_against_truth(probability, probability >= 0.5, np.ones((1, 2, 4), bool), truth)
    assert [counts[key] for key in ("tp", "fp", "fn", "tn")] == [3, 1, 1, 3]
    found = metrics(counts)
    assert found["f1"] == found["precision"] == found["recall"] == 0.75
    assert found["iou"] == 0.6
    assert found["fpr"] == 0.25
    assert found["clean_kept"] == 0.75
    assert found["flagged_fraction"] == found["true_fraction"] == 0.5
    assert found["recall_stations"] == pytest.approx(2 / 3)
    assert found["recall_impulse"] == 1
    assert "recall_dtv" not in found
    assert [found[f"recall_inr_{edge}"] for edge in ("0.5", "1", "2", "16")] == [0, 1, 1, 1]
    assert found["residual_rfi_power"] == pytest.approx((0.7**2 + 0.2**2) / 4, rel=1e-2)
    # By descending score: hit, miss, hit, hit, (miss at .3), hit at .2.
    assert found["auprc"] == pytest.approx((1 + 2 / 3 + 3 / 4 + 4 / 6) / 4)


def test_counts_of_two_observations_add_up_to_the_counts_of_both() -> None:
    rng = np.random.default_rng(0)
    inr = rng.choice([0, 0.6, 5], size=(2, 8, 8)).astype(np.float16)
    truth = Truth(inr, (inr > 0.5).astype(np.uint8))
    probability = rng.random((2, 8, 8)).astype(np.float32)
    flags, valid = probability > 0.5, np.ones((2, 8, 8), bool)
    parts = [
        count_against_truth(probability[[i]], flags[[i]], valid[[i]], Truth(truth.inr[[i]], truth.kinds[[i]]))
        for i in range(2)
    ]
    assert metrics(add_counts(parts)) == pytest.approx(metrics(count_against_truth(probability, flags, valid, truth)))


def test_samples_without_a_measurement_are_not_scored() -> None:
    truth = truth_of([[9.0, 9.0, 0.0, 0.0]], [[1, 1, 0, 0]])
    valid = np.array([[[True, False, True, False]]])
    counts = count_against_truth(np.ones((1, 1, 4), np.float32), np.ones((1, 1, 4), bool), valid, truth)
    assert [counts[key] for key in ("tp", "fp", "fn", "tn")] == [1, 1, 0, 0]


def test_nothing_to_find_and_nothing_flagged_is_a_perfect_score() -> None:
    nothing = np.zeros((1, 4, 4))
    counts = count_against_truth(
        nothing.astype(np.float32),
        nothing > 0,
        nothing == 0,
        Truth(nothing.astype(np.float16), nothing.astype(np.uint8)),
    )
    assert metrics(counts)["f1"] == 1.0


def test_agreement_with_a_pipeline_is_scored_between_the_band_edges_only() -> None:
    flags, pipeline = np.zeros((1, 1, 1024), bool), np.zeros((1, 1, 1024), bool)
    pipeline[..., :64] = pipeline[..., 960:] = True
    flags[..., 100:104] = True
    pipeline[..., 102:110] = True
    found = metrics(count_against_pipeline(flags, np.ones_like(flags), pipeline))
    assert found["precision_pipeline"] == 0.5
    assert found["recall_pipeline"] == 0.25
    assert "f1" not in found


@pytest.mark.parametrize("shape", [(64, 1024), (56, 1000), (130, 1536)])
def test_any_size_is_flagged_in_windows_without_seams(shape: tuple[int, int]) -> None:
    whitened = np.random.default_rng(0).normal(size=(2, 2, *shape)).astype(np.float16)
    seen: list[tuple[int, ...]] = []

    def predict(batch: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(batch.shape[1:]))
        return batch[:, 0].float()

    found = probabilities(predict, whitened, RfiSettings(batch=3))[:, : shape[0], : shape[1]]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-whitened[:, 0].astype(np.float32))), rtol=1e-5)
    assert set(seen) == {(2, 64, 1024)}


def test_inference_writes_a_flagged_copy_an_archive_and_pictures(
    rfi: Rfi, held_back_item: Item, tmp_path: Path
) -> None:
    counts = rfi.infer(loud, held_back_item, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "flagged-by-channel.csv",
        "flagged-by-time.csv",
        "zen.A.heldback.00.51-52.xx.mask1.webp",
        "zen.A.heldback.00.51-52.xx.mask2.webp",
        "zen.A.heldback.00.51-52.xx.mask3.webp",
        "zen.A.heldback.00.51-52.xx.png",
        "zen.A.heldback.00.51-52.xx.values.webp",
        "zen.A.heldback.00.51-52.xx.waterfall.json",
        "zen.A.heldback.00.flags.npz",
        "zen.A.heldback.00.flags.uvh5",
    ]
    with np.load(tmp_path / "zen.A.heldback.00.flags.npz") as archive:
        flags, baselines = archive["flags"], archive["baselines"].tolist()
        assert archive["probability"].shape == flags.shape == (3, 64, 1024)
        assert archive["threshold"] == 0.5
    uvdata = UVData.from_file(tmp_path / "zen.A.heldback.00.flags.uvh5", file_type="uvh5")
    for baseline, mask in zip(baselines, flags, strict=True):
        pair, polarisation = baseline.split()
        np.testing.assert_array_equal(uvdata.get_flags((*map(int, pair.split("-")), polarisation)), mask)
    assert "dlg_ml_tasks.recipes.rfi" in uvdata.history
    found = rfi.metrics(counts)
    assert found["precision"] > 10 * found["true_fraction"]
    by_channel = np.genfromtxt(tmp_path / "flagged-by-channel.csv", delimiter=",", names=True, deletechars="")
    np.testing.assert_allclose(by_channel["flags_after"], 100 * flags.mean(axis=(0, 1)), rtol=1e-4)
    np.testing.assert_allclose(by_channel["frequency"][[0, -1]], rfi_band(held_back_item), rtol=1e-5)
    shown = Waterfall.model_validate_json((tmp_path / "zen.A.heldback.00.51-52.xx.waterfall.json").read_text())
    number = baselines.index("51-52 xx")
    assert [layer.name for layer in shown.layers] == ["flags after", "flags before", "truth"]
    assert shown.layers[0].fraction == pytest.approx(flags[number].mean())


def test_the_copy_keeps_the_visibilities(rfi: Rfi, held_back_item: Item, tmp_path: Path) -> None:
    rfi.infer(loud, held_back_item, tmp_path)
    before, after = (
        UVData.from_file(path, file_type="uvh5")
        for path in (held_back_item.raw, tmp_path / "zen.A.heldback.00.flags.uvh5")
    )
    np.testing.assert_array_equal(before.data_array, after.data_array)


def test_the_real_observation_gets_flags_and_a_picture(rfi: Rfi, items: dict[str, Item], tmp_path: Path) -> None:
    item = items[REAL_OBSERVATION]
    counts = rfi.infer(lambda whitened: loud(whitened) + 8.0, item, tmp_path)
    found = rfi.metrics(counts)
    assert "f1" not in found
    assert 0 < found["flagged_fraction_pipeline"] < 0.5
    assert 0 < found["precision_pipeline"] <= 1
    assert len(list(tmp_path.glob("*.png"))) == 1
    copy = next(tmp_path.glob("*.flags.uvh5"))
    uvdata = UVData.from_file(copy, file_type="uvh5", check_autos=False, fix_autos=False)
    original = UVData.from_file(item.raw, file_type="uvh5", check_autos=False, fix_autos=False)
    np.testing.assert_array_equal(uvdata.get_flags((53, 53)), original.get_flags((53, 53)))
    shard = read_shard(item.folder)
    assert uvdata.get_flags((53, 54))[~shard.valid[0]].all()
    with np.load(next(tmp_path.glob("*.npz"))) as archive:
        np.testing.assert_array_equal(archive["original_flags"][0], original.get_flags((53, 54)))


def test_without_a_folder_only_counts_come_back(rfi: Rfi, held_back_item: Item) -> None:
    counts = rfi.infer(loud, replace(held_back_item, raw=None), None)
    assert counts["samples"] == 3 * 64 * 1024
    assert rfi.metrics(counts)["msamples_per_second"] > 0


def test_the_threshold_decides_what_is_flagged(held_back_item: Item) -> None:
    low, high = (Rfi(RfiSettings(threshold=threshold)).infer(loud, held_back_item, None) for threshold in (0.1, 0.9))
    assert low["tp"] > high["tp"]
