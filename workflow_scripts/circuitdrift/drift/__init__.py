"""How a circuit changes: between checkpoints, layer by layer, and between circuits that ought to be the same."""
