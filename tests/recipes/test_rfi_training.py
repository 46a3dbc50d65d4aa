"""The network of the recipe rfi and how it learns."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import lightning as L
import pytest
import torch

from dlg_ml_tasks.recipes.rfi import Rfi
from dlg_ml_tasks.recipes.rfi.crops import Crop
from dlg_ml_tasks.recipes.rfi.network import UNet
from dlg_ml_tasks.recipes.rfi.precision import convolution_precision
from dlg_ml_tasks.recipes.rfi.settings import RfiSettings
from dlg_ml_tasks.recipes.rfi.training import RfiModule
from dlg_ml_tasks.tasks.errors import BadInput
from dlg_ml_tasks.tasks.recipe import Item, Plan

PLAN = Plan(epochs=2, steps_per_epoch=4, batch_size=2, learning_rate=3e-3, seed=5)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"),
]


def trainer(folder: Path, epochs: int, **options: object) -> L.Trainer:
    return L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **{"enable_checkpointing": False, **options},
    )


def digest(module: RfiModule) -> str:
    weights = module.network.state_dict()
    return hashlib.sha256(b"".join(weights[name].numpy().tobytes() for name in sorted(weights))).hexdigest()


def trained(rfi: Rfi, item: Item, folder: Path, plan: Plan = PLAN) -> RfiModule:
    module = rfi.module(plan)
    trainer(folder, plan.epochs).fit(module, rfi.data([item], [], plan))
    return module


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_network_has_113_329_parameters() -> None:
    assert sum(parameter.numel() for parameter in UNet().parameters()) == 113_329


def test_a_few_steps_lower_the_loss(rfi: Rfi, train_item: Item) -> None:
    plan = replace(PLAN, epochs=1, steps_per_epoch=12)
    module, data = rfi.module(plan), rfi.data([train_item], [], plan)
    optimizer = module.configure_optimizers()["optimizer"]
    batches = list(data.train_dataloader())
    losses = []
    for whitened, truth in [*batches, *batches]:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(module.network(whitened), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])


def test_an_epoch_has_exactly_the_planned_batches(rfi: Rfi, train_item: Item) -> None:
    batches = list(rfi.data([train_item], [], PLAN).train_dataloader())
    assert len(batches) == 4
    assert batches[0][0].shape == (2, 2, 64, 256)
    assert batches[0][1].shape == (2, 64, 256)


def test_crops_depend_on_seed_and_epoch_only(rfi: Rfi, train_item: Item) -> None:
    def crops(plan: Plan, epoch: int) -> list[object]:
        sampler = rfi.data([train_item], [], plan).train_dataloader().sampler
        sampler.set_epoch(epoch)
        return list(sampler)

    assert crops(PLAN, 1) == crops(PLAN, 1)
    assert crops(PLAN, 1) != crops(PLAN, 0)
    assert crops(PLAN, 1) != crops(replace(PLAN, seed=6), 1)


def test_replay_makes_up_half_of_the_crops(rfi: Rfi, items: dict[str, Item], train_item: Item) -> None:
    plan = replace(PLAN, steps_per_epoch=10)
    sampler = rfi.data([train_item], [train_item], plan).train_dataloader().sampler
    assert [crop.waterfall >= 3 for crop in sampler] == [False, True] * 10


def test_mirrored_crops_keep_data_and_truth_aligned(rfi: Rfi, train_item: Item) -> None:
    crops = rfi.data([train_item], [], PLAN).crops
    plain, mirrored = crops[Crop(0, 0, 128, False, False)], crops[Crop(0, 0, 128, True, True)]
    assert torch.equal(plain[0].flip(1, 2), mirrored[0])
    assert torch.equal(plain[1].flip(0, 1), mirrored[1])


def test_held_back_observations_are_never_trained_on(rfi: Rfi, train_item: Item, held_back_item: Item) -> None:
    for new, replay in (([held_back_item], []), ([train_item], [held_back_item])):
        with pytest.raises(BadInput, match=r"zen\.A\.heldback\.00\.uvh5"):
            rfi.data(new, replay, PLAN)


def test_unlabelled_observations_are_refused_for_training(rfi: Rfi, items: dict[str, Item]) -> None:
    real = next(item for name, item in items.items() if "2458101" in name)
    with pytest.raises(BadInput, match="no truth to train on"):
        rfi.data([real], [], PLAN)


def test_the_learning_rate_warms_up_and_ends_near_zero(rfi: Rfi) -> None:
    plan = Plan(epochs=2, steps_per_epoch=50, batch_size=1, learning_rate=1.0)
    factor = rfi.module(plan).configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert [round(factor(step), 2) for step in (0, 9, 55, 99)] == [0.1, 1.0, 0.5, 0.0]


def test_weights_are_bit_identical_in_another_process(rfi: Rfi, train_item: Item, tmp_path: Path) -> None:
    program = """
import sys, torch, lightning as L, hashlib
from pathlib import Path
from dlg_ml_tasks.recipes.rfi import Rfi
from dlg_ml_tasks.recipes.rfi.settings import RfiSettings
from dlg_ml_tasks.tasks.recipe import Item, Plan
torch.set_num_threads(1)
plan = Plan(epochs=2, steps_per_epoch=4, batch_size=2, learning_rate=3e-3, seed=5)
recipe = Rfi(RfiSettings())
module = recipe.module(plan)
data = recipe.data([Item("train", Path(sys.argv[1]))], [], plan)
L.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
          enable_checkpointing=False, default_root_dir=sys.argv[2]).fit(module, data)
weights = module.network.state_dict()
print(hashlib.sha256(b"".join(weights[name].numpy().tobytes() for name in sorted(weights))).hexdigest())
"""
    run = subprocess.run(
        [sys.executable, "-c", program, str(train_item.folder), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.stdout.split()[-1] == digest(trained(rfi, train_item, tmp_path))


def test_a_resumed_training_ends_as_if_uninterrupted(rfi: Rfi, train_item: Item, tmp_path: Path) -> None:
    first = trainer(tmp_path, 1)
    first.fit(rfi.module(PLAN), rfi.data([train_item], [], PLAN))
    first.save_checkpoint(tmp_path / "epoch.ckpt")
    resumed = rfi.module(PLAN)
    trainer(tmp_path, 2).fit(
        resumed, rfi.data([train_item], [], PLAN), ckpt_path=tmp_path / "epoch.ckpt", weights_only=True
    )
    assert digest(resumed) == digest(trained(rfi, train_item, tmp_path))


def test_an_exported_and_reloaded_network_gives_the_same_flags(rfi: Rfi, train_item: Item, tmp_path: Path) -> None:
    module = trained(rfi, train_item, tmp_path)
    network = module.network.eval()
    batch = torch.export.Dim("batch", min=1, max=1024)
    example = rfi.example_input()
    program = torch.export.export(network, (example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "network.pt2")
    reloaded = torch.export.load(tmp_path / "network.pt2").module()
    for size in (1, 3):
        given = torch.randn((size, *example.shape[1:]), generator=torch.Generator().manual_seed(size)).half()
        with torch.inference_mode():
            assert torch.equal(network(given) > 0, reloaded(given) > 0)
            torch.testing.assert_close(network(given), reloaded(given), rtol=1e-4, atol=1e-4)


def test_folding_the_normalisation_changes_nothing(rfi: Rfi, train_item: Item, tmp_path: Path) -> None:
    network = trained(rfi, train_item, tmp_path).network.eval()
    given = rfi.example_input()
    with torch.inference_mode():
        folded = network(given)
        for part in network.modules():
            if hasattr(part, "norm"):
                part.forward = lambda x, part=part: torch.relu_(part.norm(part.conv(x)))
        torch.testing.assert_close(folded, network(given), rtol=1e-3, atol=1e-3)


def test_bfloat16_can_be_asked_for_and_gives_similar_log_odds(train_item: Item) -> None:
    network = Rfi(RfiSettings()).module(PLAN).network.eval()
    given = torch.randn((1, 2, 16, 32), generator=torch.Generator().manual_seed(0))
    assert_similar_in_bfloat16(network, given)


def test_an_exported_network_runs_in_bfloat16_too(tmp_path: Path) -> None:
    network = Rfi(RfiSettings()).module(PLAN).network.eval()
    given = torch.randn((2, 2, 16, 32), generator=torch.Generator().manual_seed(0)).half()
    batch = torch.export.Dim("batch", min=1, max=1024)
    torch.export.save(torch.export.export(network, (given,), dynamic_shapes=({0: batch},)), tmp_path / "network.pt2")
    assert_similar_in_bfloat16(torch.export.load(tmp_path / "network.pt2").module(), given[:1])


def assert_similar_in_bfloat16(network: torch.nn.Module, given: torch.Tensor) -> None:
    with torch.inference_mode():
        exact = network(given)
        with convolution_precision("bfloat16", "cpu"):
            rough = network(given)
    assert (exact.dtype, rough.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.05)
