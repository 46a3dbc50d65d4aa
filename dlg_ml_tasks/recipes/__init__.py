"""Recipes that ship: `digits` (seconds; tests and the tutorial) and `rfi` (radio-frequency-interference flagging)."""
