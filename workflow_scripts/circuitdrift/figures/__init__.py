"""Figures, tables and the interactive explorer: each is drawn from one tidy table that is kept beside it."""
