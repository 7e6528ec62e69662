"""Rank allocation: which layers get which LoRA rank, and what that costs in parameters."""
