"""The preprocessed form of one observation: a safetensors shard, which is read by memory map, and a JSON manifest about it.

Shard, for B waterfalls of T x F samples padded to P x Q (multiples of 16):
    whitened  float16 (B, 2, P, Q)    real and imaginary part / sigma
    sigma     float32 (B, F)          noise per channel, in the raw file's units
    valid     uint8   (B, T, F / 8)   where there is a measurement (bits packed along channels, as all masks)
    flags     uint8   (B, T, F / 8)   the raw file's own flags
and, of observations with truth, every contaminated sample as one row, because they are few:
    rfi_at    int64   (R,)            flat index into (B, T, F)
    rfi_inr   float16 (R,)
    rfi_kinds uint8   (R,)
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from dlg_ml_tasks.recipes.rfi.features import has_data, noise_sigma, pad_edges, whiten
from dlg_ml_tasks.recipes.rfi.files import replacing
from dlg_ml_tasks.recipes.rfi.observation import Mask, Observation
from dlg_ml_tasks.recipes.rfi.truth import Truth
from dlg_ml_tasks.tasks.errors import BadInput

SHARD, MANIFEST = "waterfalls.safetensors", "manifest.json"
MULTIPLE = 16
"""The network halves the resolution three times, and averages over bands of 16 channels."""


@dataclass(frozen=True)
class Waterfalls:
    """What a shard and its manifest hold, unpacked. Shapes as in the module's docstring; masks bool (B, T, F)."""

    name: str
    baselines: tuple[str, ...]
    times: npt.NDArray[np.float64]
    frequencies: npt.NDArray[np.float64]
    whitened: npt.NDArray[np.float16]
    valid: Mask
    flags: Mask
    truth: Truth | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, T, F), without padding."""
        return (len(self.baselines), self.times.size, self.frequencies.size)


def write_shard(folder: Path, name: str, observation: Observation, truth: Truth | None) -> None:
    """Whiten an observation and write shard and manifest into `folder`. Equal arguments give equal bytes.

    Raises ValueError if a waterfall holds no noise to whiten by.
    """
    valid = has_data(observation.visibilities)
    waterfalls = list(zip(observation.visibilities, valid, strict=True))
    sigma = np.stack([noise_sigma(visibilities, mask) for visibilities, mask in waterfalls])
    whitened = np.stack([whiten(v, mask, s) for (v, mask), s in zip(waterfalls, sigma, strict=True)])
    tensors: dict[str, npt.NDArray[Any]] = {
        "whitened": pad_edges(whitened, (MULTIPLE, MULTIPLE)),
        "sigma": sigma,
        "valid": np.packbits(valid, axis=-1),
        "flags": np.packbits(observation.flags, axis=-1),
    }
    if truth is not None:
        rows = np.flatnonzero(truth.inr)
        tensors |= {"rfi_at": rows, "rfi_inr": truth.inr.ravel()[rows], "rfi_kinds": truth.kinds.ravel()[rows]}
    shard = folder / SHARD
    with replacing(shard) as temporary:
        save_file(tensors, temporary)
    manifest = {
        "generator": "dlg_ml_tasks.recipes.rfi/1",
        "raw": name,
        "shape": list(observation.visibilities.shape),
        "labelled": truth is not None,
        "baselines": [str(baseline) for baseline in observation.baselines],
        "frequencies_hz": observation.frequencies.tolist(),
        "times_jd": observation.times.tolist(),
        "median_sigma": [float(np.median(row)) for row in sigma],
        "sha256": {SHARD: _sha256(shard)},
    }
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n")


def is_labelled(folder: Path) -> bool:
    """Whether the shard in `folder` carries truth."""
    return bool(_manifest(folder)["labelled"])


def read_shard(folder: Path) -> Waterfalls:
    """Read a shard. Raises BadInput if the folder does not hold an intact one."""
    manifest = _manifest(folder)
    shard = folder / SHARD
    try:
        if _sha256(shard) != manifest["sha256"][SHARD]:
            raise BadInput(f"{shard}: its bytes are not those the manifest names; run preprocess again")
        tensors = load_file(shard)
        shape = tuple(manifest["shape"])
        truth = _dense_truth(tensors, shape) if manifest["labelled"] else None
        return Waterfalls(
            name=manifest["raw"],
            baselines=tuple(manifest["baselines"]),
            times=np.array(manifest["times_jd"]),
            frequencies=np.array(manifest["frequencies_hz"]),
            whitened=tensors["whitened"],
            valid=_unpack(tensors["valid"], shape),
            flags=_unpack(tensors["flags"], shape),
            truth=truth,
        )
    except (OSError, KeyError, SafetensorError) as error:
        raise BadInput(f"{shard}: not a shard of this recipe ({error}); run preprocess again") from error


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder}: no readable {MANIFEST} ({error}); run preprocess on the raw file first") from error
    return manifest


def _dense_truth(tensors: dict[str, npt.NDArray[Any]], shape: tuple[int, ...]) -> Truth:
    inr, kinds = np.zeros(shape, np.float16), np.zeros(shape, np.uint8)
    inr.ravel()[tensors["rfi_at"]] = tensors["rfi_inr"]
    kinds.ravel()[tensors["rfi_at"]] = tensors["rfi_kinds"]
    return Truth(inr, kinds)


def _unpack(packed: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> Mask:
    return np.unpackbits(packed, axis=-1, count=shape[-1]).astype(bool)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()
