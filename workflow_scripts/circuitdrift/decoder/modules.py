"""The kinds of modules in a decoder's blocks."""

from __future__ import annotations

MODULES = ("q", "k", "v", "output", "mlp_input", "mlp_output")
"""Kinds of modules that read from or write to the residual stream, in the order in which a block computes them."""
