"""Verdicts on the claims of the paper, from a study's tables (docs/method.md#verdicts)."""
