"""Simulation, reading, whitening and shards of the recipe rfi."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pyuvdata import UVData

from dlg_ml_tasks.recipes.rfi import Rfi, simulate
from dlg_ml_tasks.recipes.rfi.features import has_data, noise_sigma, whiten
from dlg_ml_tasks.recipes.rfi.interference import draw_interference
from dlg_ml_tasks.recipes.rfi.settings import KINDS
from dlg_ml_tasks.recipes.rfi.shards import MANIFEST, SHARD, read_shard
from dlg_ml_tasks.recipes.rfi.simulate import NIGHTS, REAL_OBSERVATION, simulate_night
from dlg_ml_tasks.recipes.rfi.truth import read_truth, truth_path
from dlg_ml_tasks.recipes.rfi.uvh5 import read_observation
from dlg_ml_tasks.tasks.errors import BadInput
from dlg_ml_tasks.tasks.recipe import Item, load_recipe

TRAIN = "zen.A.train.00.uvh5"


def noise(shape: tuple[int, int], sigma: float = 1.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (sigma * (rng.normal(size=shape) + 1j * rng.normal(size=shape))).astype(np.complex64)


def test_the_recipe_is_found_by_its_short_name() -> None:
    assert isinstance(load_recipe("rfi", {"threshold": 0.4}), Rfi)


def test_the_same_seed_writes_the_same_bytes(night: Path, tmp_path: Path) -> None:
    written = simulate_night(NIGHTS["A"], tmp_path, seed=3, train_files=1, held_back_files=0, baselines=3)
    assert [path.name for path in written] == [TRAIN]
    for name in (TRAIN, "zen.A.train.00.truth.npz"):
        assert (tmp_path / name).read_bytes() == (night / name).read_bytes()


def test_pyuvdata_reads_a_simulated_file_with_all_checks_on(night: Path) -> None:
    uvdata = UVData.from_file(night / TRAIN, file_type="uvh5", run_check=True, strict_uvw_antpos_check=True)
    assert uvdata.telescope.name == "HERA"
    assert (uvdata.Ntimes, uvdata.Nfreqs, uvdata.Nbls) == (64, 1024, 3)
    assert uvdata.freq_array[0] == 100e6
    positions = dict(zip(uvdata.telescope.antenna_numbers, uvdata.telescope.get_enu_antpos(), strict=True))
    assert np.linalg.norm(positions[54] - positions[53]) == pytest.approx(14.6, abs=0.1)


def test_the_truth_lies_where_the_strong_interference_is_on_every_baseline(night: Path) -> None:
    for raw in night.glob("zen.A.*.uvh5"):
        observation = read_observation(raw)
        truth = read_truth(truth_path(raw), [str(baseline) for baseline in observation.baselines])
        for visibilities, inr in zip(observation.visibilities, truth.inr, strict=True):
            sigma = noise_sigma(visibilities, has_data(visibilities))
            amplitude = np.abs(visibilities) / sigma
            assert np.median(amplitude[inr > 100]) > 5 * np.median(amplitude[inr == 0])


def test_held_back_observations_are_of_other_baselines_and_hours(night: Path) -> None:
    train, held_back = (read_observation(night / f"zen.A.{role}.00.uvh5") for role in ("train", "heldback"))
    assert not set(train.baselines) & set(held_back.baselines)
    assert train.times[-1] < held_back.times[0]
    assert not set(simulate.BASELINES["train"]) & set(simulate.BASELINES["heldback"])


@pytest.mark.parametrize(("letter", "fraction", "television"), [("A", 0.04, False), ("B", 0.08, True)])
def test_each_night_has_its_own_interference(letter: str, fraction: float, television: bool) -> None:
    ghz, lsts = simulate.FREQUENCIES / 1e9, 1.0 + np.arange(64) * 7.8e-4
    drawn = [
        draw_interference(NIGHTS[letter].interference, lsts, ghz, np.random.default_rng(seed)) for seed in range(40)
    ]
    inr = np.abs([signal for signal, _ in drawn])
    kinds = np.array([kinds for _, kinds in drawn])
    assert (inr > 0.5).mean() == pytest.approx(fraction, rel=0.4)
    present = {kind for bit, kind in enumerate(KINDS) if (kinds >> bit & 1).any()}
    assert present == set(KINDS) - (set() if television else {"dtv"})


def test_an_unknown_sample_name_is_refused_with_the_known_ones(rfi: Rfi, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"night-C.*night-A, night-B"):
        rfi.sample("night-C", tmp_path, 0)


@pytest.mark.parametrize("sigma", [0.01, 1.0, 3e4])
def test_sigma_of_pure_noise_is_found_within_a_few_percent(sigma: float) -> None:
    visibilities = noise((64, 1024), sigma)
    found = noise_sigma(visibilities, has_data(visibilities))
    assert found == pytest.approx(sigma, rel=0.2)
    assert found.mean() == pytest.approx(sigma, rel=0.02)


def test_sigma_is_hardly_moved_by_a_strong_fast_sky_and_by_interference() -> None:
    times, channels = np.mgrid[:64, :1024]
    sky = 20 * np.exp(2j * np.pi * (times / 50 + channels / 70))
    visibilities = (noise((64, 1024)) + sky).astype(np.complex64)
    visibilities[10] += 300
    visibilities[:, 500:503] += 1000 * np.random.default_rng(1).normal(size=(64, 3))
    visibilities[::3, 700:950] += 10
    found = noise_sigma(visibilities, has_data(visibilities))
    assert found == pytest.approx(1.0, rel=0.25)
    assert found.mean() == pytest.approx(1.0, rel=0.05)


def test_sigma_follows_a_bandpass_down_to_its_steep_edges() -> None:
    position = (np.arange(1024) + 3) / 1030
    bandpass = (4 * position * (1 - position)) ** 2
    visibilities = (noise((64, 1024)) * bandpass).astype(np.complex64)
    ratio = noise_sigma(visibilities, has_data(visibilities)) / bandpass
    # The first and the last channel have no two neighbours to compare with.
    assert ratio[1:-1] == pytest.approx(1.0, rel=0.4)
    assert ratio.mean() == pytest.approx(1.0, rel=0.03)


def test_dropped_samples_do_not_enter_sigma_and_become_zero() -> None:
    visibilities = noise((60, 1024))
    visibilities[:25] = 0
    visibilities[:, 100:110] = np.nan
    valid = has_data(visibilities)
    sigma = noise_sigma(visibilities, valid)
    assert sigma.mean() == pytest.approx(1.0, rel=0.03)
    whitened = whiten(visibilities, valid, sigma)
    assert not whitened[:, ~valid].any()
    assert whitened[:, valid].astype(np.float32).std() == pytest.approx(1.0, rel=0.05)


def test_data_without_noise_cannot_be_whitened() -> None:
    constant = np.ones((8, 64), np.complex64)
    with pytest.raises(ValueError, match="no channel with noise"):
        noise_sigma(constant, has_data(constant))


def test_preprocessing_twice_writes_the_same_bytes(rfi: Rfi, train_item: Item, tmp_path: Path) -> None:
    assert train_item.raw is not None
    rfi.preprocess(train_item.raw, tmp_path)
    for name in (SHARD, MANIFEST):
        assert (tmp_path / name).read_bytes() == (train_item.folder / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [MANIFEST, SHARD]


def test_a_shard_gives_back_data_truth_and_axes(rfi: Rfi, train_item: Item) -> None:
    assert train_item.raw is not None
    observation, shard = read_observation(train_item.raw), read_shard(train_item.folder)
    truth = read_truth(truth_path(train_item.raw), list(shard.baselines))
    assert rfi.is_labelled(train_item)
    assert shard.truth is not None
    np.testing.assert_array_equal(shard.truth.inr, truth.inr)
    np.testing.assert_array_equal(shard.truth.kinds, truth.kinds)
    np.testing.assert_array_equal(shard.times, observation.times)
    np.testing.assert_array_equal(shard.frequencies, observation.frequencies)
    assert shard.baselines == tuple(map(str, observation.baselines))
    phase = np.angle(shard.whitened[:, 0].astype(float) + 1j * shard.whitened[:, 1])
    strong = np.abs(shard.whitened[:, 0]) > 1
    np.testing.assert_allclose(phase[strong], np.angle(observation.visibilities)[strong], atol=2e-3)


def test_the_real_observation_is_padded_and_its_flags_are_no_truth(rfi: Rfi, items: dict[str, Item]) -> None:
    item = items[REAL_OBSERVATION]
    shard = read_shard(item.folder)
    assert not rfi.is_labelled(item)
    assert shard.baselines == ("53-54 xx",)
    assert shard.shape == (1, 60, 1024)
    assert shard.whitened.shape == (1, 2, 64, 1024)
    assert shard.flags.mean() == pytest.approx(0.2, abs=0.1)
    assert 0.9 < shard.valid.mean() < 1


def test_an_unreadable_file_is_named(rfi: Rfi, tmp_path: Path) -> None:
    broken = tmp_path / "zen.broken.uvh5"
    broken.write_bytes(b"not HDF5")
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match=r"zen\.broken\.uvh5"):
        rfi.preprocess(broken, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_truncated_observation_is_named(rfi: Rfi, night: Path, tmp_path: Path) -> None:
    cut = tmp_path / "zen.cut.uvh5"
    cut.write_bytes((night / TRAIN).read_bytes()[:200_000])
    with pytest.raises(BadInput, match=r"zen\.cut\.uvh5"):
        rfi.preprocess(cut, tmp_path)


def test_truth_of_another_observation_is_refused(rfi: Rfi, night: Path, tmp_path: Path) -> None:
    raw = tmp_path / TRAIN
    raw.write_bytes((night / TRAIN).read_bytes())
    truth_path(raw).write_bytes((night / "zen.A.heldback.00.truth.npz").read_bytes())
    with pytest.raises(BadInput, match="not the truth of its observation"):
        rfi.preprocess(raw, tmp_path)


def test_a_shard_with_changed_bytes_is_refused(rfi: Rfi, train_item: Item, tmp_path: Path) -> None:
    for name in (SHARD, MANIFEST):
        (tmp_path / name).write_bytes((train_item.folder / name).read_bytes())
    content = bytearray((tmp_path / SHARD).read_bytes())
    content[-1] ^= 1
    (tmp_path / SHARD).write_bytes(content)
    with pytest.raises(BadInput, match="run preprocess again"):
        read_shard(tmp_path)


def test_the_manifest_tells_what_the_shard_holds(train_item: Item) -> None:
    manifest = json.loads((train_item.folder / MANIFEST).read_text())
    assert manifest["shape"] == [3, 64, 1024]
    assert manifest["baselines"] == ["53-54 xx", "53-55 xx", "38-53 xx"]
    assert manifest["labelled"] is True
