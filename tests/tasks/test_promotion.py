"""The gate's rule."""

from __future__ import annotations

import pytest

from dlg_ml_tasks.tasks.promotion import decide


@pytest.mark.parametrize(
    ("challenger", "promoted"),
    [
        ({"new": 0.7, "earlier": 0.8}, True),
        ({"new": 0.7, "earlier": 0.775}, True),
        ({"new": 0.7, "earlier": 0.76}, False),
        ({"new": 0.6, "earlier": 0.9}, False),
        ({"new": 0.5, "earlier": 0.8}, False),
    ],
)
def test_a_challenger_must_gain_on_new_data_and_lose_little_on_earlier(
    challenger: dict[str, float], promoted: bool
) -> None:
    decision = decide({"new": 0.6, "earlier": 0.8}, challenger, min_gain=0.0, max_loss=0.03)
    assert decision.promoted is promoted


def test_without_earlier_data_only_the_gain_counts() -> None:
    assert decide({"new": 0.6}, {"new": 0.61}, min_gain=0.0, max_loss=0.03).promoted
    assert not decide({"new": 0.6}, {"new": 0.61}, min_gain=0.05, max_loss=0.03).promoted
