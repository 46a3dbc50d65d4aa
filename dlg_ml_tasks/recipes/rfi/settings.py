"""What a user may change about the recipe, and the few numbers its modules share."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from dlg_ml_tasks.tasks.recipe import RecipeSettings

WINDOW: Final = (64, 1024)
"""Times and channels that the network sees at once in inference; an exported model is fixed to it, its batch axis is free."""

CROP: Final = (64, 256)
"""Largest training crop, times and channels."""

TRUTH_INR: Final = 0.5
"""A sample is contaminated when the interference exceeds this many noise standard deviations (per real component)."""

KINDS: Final = ("stations", "impulse", "scatter", "dtv", "burst")
"""Kinds of interference; kind i is bit i of the truth's `kinds` mask."""

CORE_CHANNELS: Final = (64, 960)
"""The channels between the band edges, which the HERA pipeline flags a priori; agreement with its flags is scored here."""


class RfiSettings(RecipeSettings):
    """Settings of the recipe. The defaults are the ones that `benchmarks/rfi.py` measures."""

    threshold: float = Field(0.5, gt=0, lt=1, description="Probability above which a sample is flagged.")
    pictures: int = Field(3, ge=0, description="Waterfalls drawn per observation.")
    batch: int = Field(1, ge=1, description="Windows of 64 x 1024 samples given to the network at once.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Arithmetic of the convolutions; auto takes bfloat16 where the processor has instructions for it.",
    )
