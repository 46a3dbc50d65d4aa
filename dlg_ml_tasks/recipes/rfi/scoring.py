"""How good flags are: additive counts of one observation, and the metrics that follow from their sum."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dlg_ml_tasks.recipes.rfi.observation import Mask
from dlg_ml_tasks.recipes.rfi.settings import CORE_CHANNELS, KINDS
from dlg_ml_tasks.recipes.rfi.truth import Truth
from dlg_ml_tasks.tasks.recipe import Counts

INR_EDGES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Lower edges of the strength bins by which recall is told; the last is open."""

SCORE_BINS = 1000
"""Bins of probability from 0 to 1, from which the precision-recall curve is made."""


def count_against_truth(probability: npt.NDArray[np.float32], flags: Mask, valid: Mask, truth: Truth) -> Counts:
    """Counts of (B, T, F) flags against exact truth, over samples that hold a measurement."""
    contaminated = truth.contaminated & valid
    clean = ~truth.contaminated & valid
    found = flags & contaminated
    inr = truth.inr[contaminated].astype(np.float32)
    hit = flags[contaminated]
    power = np.square(truth.inr.astype(np.float64))
    edges = (*INR_EDGES, np.inf)
    counts: Counts = {
        "tp": float(found.sum()),
        "fn": float(contaminated.sum() - found.sum()),
        "fp": float((flags & clean).sum()),
        "tn": float((~flags & clean).sum()),
        "inr_total": np.histogram(inr, edges)[0].astype(np.float64),
        "inr_found": np.histogram(inr[hit], edges)[0].astype(np.float64),
        "score_rfi": _histogram(probability[contaminated]),
        "score_clean": _histogram(probability[clean]),
        "rfi_power": float(power[valid].sum()),
        "rfi_power_left": float(power[valid & ~flags].sum()),
    }
    for bit, kind in enumerate(KINDS):
        of_kind = (truth.kinds >> bit & 1).astype(bool) & valid
        counts[f"{kind}_total"] = float(of_kind.sum())
        counts[f"{kind}_found"] = float((of_kind & flags).sum())
    return counts


def count_against_pipeline(flags: Mask, valid: Mask, pipeline: Mask) -> Counts:
    """Counts of (B, T, F) flags against the flags a pipeline set, in the core channels (no truth: the pipeline also flags whole
    channels and times for other reasons than what one baseline shows)."""
    core = np.zeros(flags.shape[-1], bool)
    core[slice(*CORE_CHANNELS)] = True
    judged = valid & core
    return {
        "pipeline_samples": float(valid.sum()),
        "pipeline_flagged": float((flags & valid).sum()),
        "pipeline_both": float((flags & pipeline & judged).sum()),
        "pipeline_only": float((~flags & pipeline & judged).sum()),
        "pipeline_not": float((flags & ~pipeline & judged).sum()),
    }


def metrics(counts: Counts) -> dict[str, float]:
    """Metrics of summed counts; a ratio of nothing to nothing is left out.

    With truth: f1, precision, recall, iou, fpr, auprc, recall_<kind>, recall_inr_<edge>, flagged_fraction, true_fraction,
    clean_kept, residual_rfi_power (mean INR² of what stays unflagged). Against a pipeline: precision_pipeline,
    recall_pipeline, and flagged_fraction_pipeline. In both cases msamples_per_second of process CPU time.
    """
    ratios: dict[str, tuple[float, float]] = {}
    if "tp" in counts:
        tp, fp, fn, tn = (float(counts[key]) for key in ("tp", "fp", "fn", "tn"))
        total = tp + fp + fn + tn
        ratios |= {
            "f1": (2 * tp, 2 * tp + fp + fn),
            "precision": (tp, tp + fp),
            "recall": (tp, tp + fn),
            "iou": (tp, tp + fp + fn),
            "fpr": (fp, fp + tn),
            "flagged_fraction": (tp + fp, total),
            "true_fraction": (tp + fn, total),
            "clean_kept": (tn, fp + tn),
            "residual_rfi_power": (float(counts["rfi_power_left"]), fn + tn),
            "auprc": (_average_precision(np.asarray(counts["score_rfi"]), np.asarray(counts["score_clean"])), 1.0),
        }
        ratios |= {f"recall_{kind}": (float(counts[f"{kind}_found"]), float(counts[f"{kind}_total"])) for kind in KINDS}
        found, of = np.asarray(counts["inr_found"]), np.asarray(counts["inr_total"])
        ratios |= {
            f"recall_inr_{edge:g}": (float(f), float(n)) for edge, f, n in zip(INR_EDGES, found, of, strict=True)
        }
    if "pipeline_samples" in counts:
        both, only, not_ = (float(counts[f"pipeline_{key}"]) for key in ("both", "only", "not"))
        ratios |= {
            "precision_pipeline": (both, both + not_),
            "recall_pipeline": (both, both + only),
            "flagged_fraction_pipeline": (float(counts["pipeline_flagged"]), float(counts["pipeline_samples"])),
        }
    if "cpu_seconds" in counts:
        ratios["msamples_per_second"] = (float(counts["samples"]) / 1e6, float(counts["cpu_seconds"]))
    found_metrics = {name: part / whole for name, (part, whole) in ratios.items() if whole > 0}
    if "tp" in counts:
        # The gate's metric must exist also when nothing was flagged and nothing was there.
        found_metrics.setdefault("f1", 1.0)
    return found_metrics


def _histogram(probability: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    bins = np.minimum((probability * SCORE_BINS).astype(np.int64), SCORE_BINS - 1)
    return np.bincount(bins, minlength=SCORE_BINS).astype(np.float64)


def _average_precision(rfi: npt.NDArray[np.float64], clean: npt.NDArray[np.float64]) -> float:
    """Area under the precision-recall curve as the sum of precision x step in recall, from the highest score down."""
    if not rfi.sum():
        return 0.0
    tp, fp = np.cumsum(rfi[::-1]), np.cumsum(clean[::-1])
    precision = tp / np.maximum(tp + fp, 1)
    return float((precision * rfi[::-1]).sum() / rfi.sum())
