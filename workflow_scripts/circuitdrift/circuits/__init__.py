"""Circuits: prompt pairs, edge attribution, selection, circuit runs, and faithfulness."""
