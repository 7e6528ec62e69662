"""Rank allocation: the LoRA rank of each layer or module, and its cost in parameters."""
