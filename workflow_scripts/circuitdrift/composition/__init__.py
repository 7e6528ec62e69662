"""How the circuit of a two-step task compares with the union of the circuits of its two steps."""
