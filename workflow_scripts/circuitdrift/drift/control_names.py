"""What the table of controls calls things, for those who write it and those who read it. No torch."""

from __future__ import annotations

BASE_SEED = -1
"""Stands for the seed in rows of the base model."""

NO_CHECKPOINT = "none"
"""Stands for the checkpoint in rows of random circuits, whose seeds are draws."""

KIND = "kind: "
"""The controls of kinds are named after the two kinds, such as ``kind: + and -``."""
