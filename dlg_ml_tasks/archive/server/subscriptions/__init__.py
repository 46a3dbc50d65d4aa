"""Subscriptions: other archives that are sent every new file."""

from __future__ import annotations
