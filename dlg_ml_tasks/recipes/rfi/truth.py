"""The exact truth of a simulated observation: how strong the interference is in each sample, and of which kinds."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dlg_ml_tasks.recipes.rfi.files import replacing
from dlg_ml_tasks.recipes.rfi.observation import Mask
from dlg_ml_tasks.recipes.rfi.settings import TRUTH_INR
from dlg_ml_tasks.tasks.errors import BadInput


@dataclass(frozen=True)
class Truth:
    """`inr` float16 (B, T, F): |interference| / noise sigma; `kinds` uint8 (B, T, F): bit i where kind i exceeds TRUTH_INR."""

    inr: npt.NDArray[np.float16]
    kinds: npt.NDArray[np.uint8]

    @property
    def contaminated(self) -> Mask:
        """Bool (B, T, F): what a perfect flagger flags."""
        return self.inr > TRUTH_INR


def truth_path(raw: Path) -> Path:
    """Where the truth of a raw file lies: ``zen.A.train.00.uvh5`` has ``zen.A.train.00.truth.npz`` beside it."""
    return raw.with_name(f"{raw.stem}.truth.npz")


def write_truth(path: Path, truth: Truth, baselines: list[str]) -> None:
    """Write the truth, waterfalls in the order of `baselines`. Equal truths give equal bytes."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, inr=truth.inr, kinds=truth.kinds, baselines=np.array(baselines))


def read_truth(path: Path, baselines: list[str]) -> Truth:
    """Read the truth of the waterfalls `baselines`, in that order. Raises BadInput if it is unreadable or of other waterfalls."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            rows = {str(name): row for row, name in enumerate(archive["baselines"])}
            order = [rows[name] for name in baselines]
            return Truth(archive["inr"][order], archive["kinds"][order])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BadInput(
            f"{path.name}: not the truth of its observation ({error}); simulate both anew or remove it"
        ) from error
