"""Containers: files grouped in a tree of names, listed, moved and retrieved together."""

from __future__ import annotations
