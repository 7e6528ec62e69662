"""Circuits: the graph of a decoder, edge attribution, selection, and runs with all other edges ablated."""
