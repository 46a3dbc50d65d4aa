"""The recipe class: the contract of `dlg_ml_tasks.tasks.recipe` in terms of this package's modules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from dlg_ml_tasks.recipes.rfi import scoring, shards
from dlg_ml_tasks.recipes.rfi.settings import WINDOW, RfiSettings
from dlg_ml_tasks.recipes.rfi.showing import SHOWS
from dlg_ml_tasks.recipes.rfi.simulate import NIGHTS, copy_real_observation, simulate_night
from dlg_ml_tasks.recipes.rfi.truth import read_truth, truth_path
from dlg_ml_tasks.recipes.rfi.uvh5 import read_observation
from dlg_ml_tasks.tasks.errors import BadInput
from dlg_ml_tasks.tasks.recipe import Counts, Item, Plan, Predict, Recipe, RecipeSettings
from dlg_ml_tasks.tasks.showing import Show

if TYPE_CHECKING:
    import torch

    from dlg_ml_tasks.recipes.rfi.training import RfiData, RfiModule


class Rfi(Recipe):
    """Flags interference in HERA observations (UVH5) with a U-Net trained on simulations whose truth is exact."""

    Settings: ClassVar[type[RecipeSettings]] = RfiSettings
    raw_glob: ClassVar[str] = "*.uvh5"
    needs_raw: ClassVar[bool] = True
    shows: ClassVar[tuple[Show, ...]] = SHOWS
    metric: ClassVar[str] = "f1"
    training: ClassVar[Plan] = Plan(epochs=5, steps_per_epoch=140, batch_size=4, learning_rate=8e-3)
    retraining: ClassVar[Plan] = Plan(epochs=3, steps_per_epoch=140, batch_size=4, learning_rate=4e-3)

    settings: RfiSettings

    def sample(self, name: str, out: Path, seed: int) -> None:
        """``night-A``: an H1C-like night and a real observation of that season; ``night-B``: another receiver, new interference."""
        nights = {f"night-{letter}": night for letter, night in NIGHTS.items()}
        if name not in nights:
            raise BadInput(f"recipe rfi has no sample data {name!r}; it has {', '.join(nights)}")
        simulate_night(nights[name], out, seed)
        if name == "night-A":
            copy_real_observation(out)

    def preprocess(self, raw: Path, out: Path) -> None:
        """Whiten the observation, with its truth if a truth file lies beside it, into a shard and a manifest."""
        observation = read_observation(raw)
        beside = truth_path(raw)
        truth = read_truth(beside, [str(b) for b in observation.baselines]) if beside.exists() else None
        if truth is not None and truth.inr.shape != observation.visibilities.shape:
            raise BadInput(
                f"{beside.name}: truth of {truth.inr.shape} samples, but {raw.name} has {observation.visibilities.shape}; "
                "simulate both anew"
            )
        try:
            shards.write_shard(out, raw.name, observation, truth)
        except ValueError as error:
            raise BadInput(f"{raw.name}: {error}; nothing can be flagged in it") from error

    def is_labelled(self, item: Item) -> bool:
        """Whether the truth is known; a pipeline's flags are no truth."""
        return shards.is_labelled(item.folder)

    def data(self, items: Sequence[Item], replay: Sequence[Item], plan: Plan) -> RfiData:
        """Random crops of the items; with replay, half of each batch comes from it."""
        from dlg_ml_tasks.recipes.rfi.training import RfiData

        held_back = [item.name for item in (*items, *replay) if item.held_back]
        if held_back:
            raise BadInput(f"held-back observations are for scoring only, not for training: {', '.join(held_back)}")
        return RfiData(
            [shards.read_shard(item.folder) for item in items],
            [shards.read_shard(item.folder) for item in replay],
            plan,
        )

    def module(self, plan: Plan) -> RfiModule:
        """A new U-Net with weights drawn from the plan's seed."""
        from dlg_ml_tasks.recipes.rfi.training import RfiModule

        return RfiModule(plan, self.settings.precision)

    def example_input(self) -> torch.Tensor:
        """Two windows of noise, float16 (2, 2, 64, 1024)."""
        import torch

        return torch.randn((2, 2, *WINDOW), generator=torch.Generator().manual_seed(0)).half()

    def infer(self, predict: Predict, item: Item, out: Path | None) -> Counts:
        """Flag an observation; into `out` go a flagged UVH5 copy, an archive of flags and probabilities, and pictures."""
        from dlg_ml_tasks.recipes.rfi.inference import infer

        return infer(predict, item, out, self.settings)

    def metrics(self, counts: Counts) -> dict[str, float]:
        """See `scoring.metrics`."""
        return scoring.metrics(counts)
