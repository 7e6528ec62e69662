"""A decoder taken apart: its graph of nodes and edges, where each architecture keeps its parts, hooks, and linears."""
