"""Measure the recipe `rfi` against AOFlagger on the same held-back observations: F1 before and after retraining, and speed.

    OMP_NUM_THREADS=1 python benchmarks/rfi.py --out bench-results --seeds 0 1 2

Each seed is another sky, another noise and another initial network. Times are process CPU seconds of one thread, without reading
and writing files. AOFlagger is a peer and no dependency: pip install 'dlg-ml-tasks[bench]'.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import platform
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from dlg_ml_tasks.recipes.rfi import Rfi
from dlg_ml_tasks.recipes.rfi.features import has_data, noise_sigma, whiten
from dlg_ml_tasks.recipes.rfi.inference import probabilities
from dlg_ml_tasks.recipes.rfi.scoring import count_against_truth, metrics
from dlg_ml_tasks.recipes.rfi.settings import RfiSettings
from dlg_ml_tasks.recipes.rfi.simulate import REAL_OBSERVATION
from dlg_ml_tasks.recipes.rfi.truth import read_truth, truth_path
from dlg_ml_tasks.recipes.rfi.uvh5 import read_observation
from dlg_ml_tasks.tasks.recipe import Counts, Item, Plan, add_counts


@dataclass(frozen=True)
class Setting:
    """How AOFlagger is run: one of its shipped strategies, its base threshold, and on what amplitude."""

    strategy: str
    threshold: float
    whitened: bool

    def __str__(self) -> str:
        return f"{self.strategy}, {'|V|/sigma(f)' if self.whitened else '|V|'}, threshold {self.threshold:g}"


SETTINGS = tuple(Setting("generic-default", threshold, whitened=False) for threshold in (1.0, 2.0, 3.0))
"""AOFlagger on the amplitudes that a telescope delivers; the best of these is what the ratios compare with."""

WHITENED = tuple(Setting("lofar-hba-wideband", threshold, whitened=True) for threshold in (1.0, 1.25, 1.5))
"""AOFlagger given our whitening too, the best of its strategies on it: how much of the gain is the features, not the network."""


def main() -> None:
    """Run the benchmark and write `rfi.json` and `rfi.md`."""
    options = parse()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    options.out.mkdir(parents=True, exist_ok=True)
    results = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(seed, Path(folder), [*SETTINGS, *WHITENED]))
    report = {"machine": machine(), "seeds": results}
    (options.out / "rfi.json").write_text(json.dumps(report, indent=1) + "\n")
    text = table(report)
    (options.out / "rfi.md").write_text(text)
    print(text)


def parse() -> argparse.Namespace:
    """Command-line options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="folder for rfi.json and rfi.md")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds to measure")
    return parser.parse_args()


def measure(seed: int, folder: Path, settings: Sequence[Setting]) -> dict[str, Any]:
    """Everything about one seed."""
    recipe = Rfi(RfiSettings())
    seconds: dict[str, float] = {}
    items: dict[str, list[Item]] = {}
    for night in "AB":
        raw = folder / f"raw-{night}"
        raw.mkdir()
        with timed(seconds, f"simulate {night}"):
            recipe.sample(f"night-{night}", raw, seed)
        with timed(seconds, f"preprocess {night}"):
            items[night] = list(preprocess(recipe, raw, folder / f"preprocessed-{night}"))
    train = {
        night: [item for item in items[night] if not item.held_back and recipe.is_labelled(item)] for night in "AB"
    }
    test = {night: [item for item in items[night] if item.held_back] for night in "AB"}

    plan = replace(recipe.training, seed=seed)
    with timed(seconds, "train"):
        network = fit(recipe, plan, train["A"], [])
    ours = {"before": {night: score(recipe, network, test[night]) for night in "AB"}}
    plan = replace(recipe.retraining, seed=seed)
    with timed(seconds, "retrain"):
        network = fit(recipe, plan, train["B"], train["A"], start=network)
    ours["after"] = {night: score(recipe, network, test[night]) for night in "AB"}
    real = [item for item in items["A"] if item.name == REAL_OBSERVATION]
    ours["after"]["real"] = score(recipe, network, real)
    return {
        "seed": seed,
        "seconds": seconds,
        "ours": ours,
        "ours_msamples_per_second": speed(network_flagger(recipe, network), test["A"]),
        "aoflagger": [run_aoflagger(setting, test) for setting in settings],
    }


class timed:  # noqa: N801 - reads as a verb in `with timed(...)`
    """Store the CPU seconds of a block under a name."""

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self.seconds, self.name = seconds, name

    def __enter__(self) -> None:
        self.started = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.name] = round(time.process_time() - self.started, 2)


def preprocess(recipe: Rfi, raw: Path, out: Path) -> Iterator[Item]:
    """Preprocess every observation of a folder."""
    for path in sorted(raw.glob(recipe.raw_glob)):
        folder = out / path.name
        folder.mkdir(parents=True)
        recipe.preprocess(path, folder)
        yield Item(path.name, folder, held_back="heldback" in path.name, raw=path)


def fit(
    recipe: Rfi, plan: Plan, items: Sequence[Item], replay: Sequence[Item], start: torch.nn.Module | None = None
) -> torch.nn.Module:
    """Train, from `start` if given; returns the network in inference mode."""
    module = recipe.module(plan)
    if start is not None:
        module.network.load_state_dict(copy.deepcopy(start.state_dict()))
    trainer = L.Trainer(
        max_epochs=plan.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, recipe.data(items, replay, plan))
    network: torch.nn.Module = module.network.eval()
    return network


def score(recipe: Rfi, network: torch.nn.Module, items: Sequence[Item]) -> dict[str, float]:
    """Metrics over some observations."""
    return recipe.metrics(add_counts([recipe.infer(network, item, None) for item in items]))


Flagger = Callable[[np.ndarray], np.ndarray]
"""Raw visibilities complex64 (T, F) to flags bool (T, F)."""


def network_flagger(recipe: Rfi, network: torch.nn.Module) -> Flagger:
    """The whole of our work on one waterfall: noise level, whitening, network, threshold."""

    def flag(visibilities: np.ndarray) -> np.ndarray:
        valid = has_data(visibilities)
        whitened = whiten(visibilities, valid, noise_sigma(visibilities, valid))
        return probabilities(network, whitened[None], recipe.settings)[0] >= recipe.settings.threshold

    return flag


def aoflagger_flagger(setting: Setting, folder: Path) -> Flagger:
    """AOFlagger on one waterfall; its threshold is a line of the strategy's Lua program."""
    import aoflagger

    shipped = (
        Path(aoflagger.__file__).parent / "aoflagger.libs" / "aoflagger" / "strategies" / f"{setting.strategy}.lua"
    )
    program, found = re.subn(
        r"local base_threshold = [\d.]+", f"local base_threshold = {setting.threshold}", shipped.read_text()
    )
    if found != 1:
        raise SystemExit(f"{shipped} has no line 'local base_threshold = ...'; aoflagger 3.5.post0 is expected")
    edited = folder / shipped.name
    edited.write_text(program)
    flagger = aoflagger.AOFlagger()
    strategy = flagger.load_strategy_file(str(edited))

    def flag(visibilities: np.ndarray) -> np.ndarray:
        amplitude = np.abs(visibilities)
        if setting.whitened:
            amplitude = amplitude / noise_sigma(visibilities, has_data(visibilities))
        times, channels = amplitude.shape
        images = flagger.make_image_set(times, channels, 1)
        images.set_image_buffer(0, np.ascontiguousarray(amplitude.T, np.float64))
        return strategy.run(images).get_buffer().T

    return flag


def run_aoflagger(setting: Setting, test: dict[str, list[Item]]) -> dict[str, Any]:
    """Metrics of AOFlagger on both nights and its speed."""
    with tempfile.TemporaryDirectory() as folder:
        flag = aoflagger_flagger(setting, Path(folder))
        return {
            "setting": str(setting),
            "whitened": setting.whitened,
            "msamples_per_second": speed(flag, test["A"]),
            **{night: metrics(add_counts([count(flag, item) for item in test[night]])) for night in "AB"},
        }


def count(flag: Flagger, item: Item) -> Counts:
    """Counts of a flagger on one observation."""
    observation = read_observation(item.raw)
    truth = read_truth(truth_path(item.raw), [str(baseline) for baseline in observation.baselines])
    flags = np.stack([flag(visibilities) for visibilities in observation.visibilities])
    return count_against_truth(flags.astype(np.float32), flags, has_data(observation.visibilities), truth)


def speed(flag: Flagger, items: Sequence[Item]) -> float:
    """Million samples per second of one core, by process CPU time: the median of the observations."""
    flag(read_observation(items[0].raw).visibilities[0])
    found = []
    for item in items:
        visibilities = read_observation(item.raw).visibilities
        started = time.process_time()
        for waterfall in visibilities:
            flag(waterfall)
        found.append(visibilities.size / 1e6 / (time.process_time() - started))
    return float(np.median(found))


def machine() -> dict[str, Any]:
    """What the numbers belong to."""
    cpu = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", cpu.read_text()) if cpu.exists() else [platform.processor()]
    packages = ("torch", "numpy", "lightning", "hera_sim", "pyuvdata", "aoflagger")
    return {"cpu": models[0], "threads": 1, "versions": {name: version(name) for name in packages}}


def table(report: dict[str, Any]) -> str:
    """The results as Markdown: one line per seed, then the mean."""
    lines = [
        f"Held-back observations, one thread of {report['machine']['cpu']}. Truth: INR > 0.5. AOFlagger: the best of",
        "; ".join(str(setting) for setting in SETTINGS) + ".",
        "",
        "| seed | A | AOFlagger A | ratio | B before | B after | AOFlagger B | ratio | A after | Msamples/s | AOFlagger | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = [row(result) for result in report["seeds"]]
    lines += [
        "| " + " | ".join([str(result["seed"]), *(f"{x:.3f}" for x in r)]) + " |"
        for result, r in zip(report["seeds"], rows, strict=True)
    ]
    lines.append("| mean | " + " | ".join(f"{x:.3f}" for x in np.mean(rows, axis=0)) + " |")
    lines += [
        "",
        "AOFlagger given our whitening too, the best of " + "; ".join(str(setting) for setting in WHITENED) + ":",
        "",
    ]
    for result in report["seeds"]:
        ours = {"A": result["ours"]["before"]["A"]["f1"], "B": result["ours"]["after"]["B"]["f1"]}
        peer = {night: best(result, night, whitened=True)[night]["f1"] for night in "AB"}
        parts = [f"{night} {peer[night]:.3f}, ratio {ours[night] / peer[night]:.3f}" for night in "AB"]
        lines.append(f"- seed {result['seed']}: {'; '.join(parts)}")
    lines += [
        "",
        "CPU seconds: "
        + ", ".join(f"{name} {value:.0f}" for name, value in report["seeds"][0]["seconds"].items())
        + ".",
    ]
    return "\n".join(lines) + "\n"


def row(result: dict[str, Any]) -> list[float]:
    """The numbers of one seed, in the order of the table's columns."""
    before, after = result["ours"]["before"], result["ours"]["after"]
    peer = {night: best(result, night) for night in "AB"}
    f1 = {night: peer[night][night]["f1"] for night in "AB"}
    ours, theirs = result["ours_msamples_per_second"], peer["A"]["msamples_per_second"]
    return [
        *(before["A"]["f1"], f1["A"], before["A"]["f1"] / f1["A"]),
        *(before["B"]["f1"], after["B"]["f1"], f1["B"], after["B"]["f1"] / f1["B"]),
        *(after["A"]["f1"], ours, theirs, ours / theirs),
    ]


def best(result: dict[str, Any], night: str, whitened: bool = False) -> dict[str, Any]:
    """AOFlagger's result of highest F1 on a night, on delivered or on whitened amplitudes."""
    entries: list[dict[str, Any]] = [entry for entry in result["aoflagger"] if entry["whitened"] == whitened]
    return max(entries, key=lambda entry: entry[night]["f1"])


if __name__ == "__main__":
    main()
