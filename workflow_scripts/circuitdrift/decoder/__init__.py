"""A decoder taken apart: its graph, the places of its parts in each architecture, hooks, logits, and linears."""
