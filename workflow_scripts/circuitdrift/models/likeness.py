"""Whether a model has the graph and the tokens of a base model, so that circuits can be compared. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuitdrift.models.folder import read_object
from circuitdrift.models.shapes import GROUPS, HEADS, LAYERS, MLP_WIDTH, WIDTH, is_parallel

SIZES: Mapping[str, tuple[str, ...]] = {
    "layers": LAYERS,
    "heads": HEADS,
    "heads of keys and values": GROUPS,
    "width of a head": ("head_dim",),
    "width": WIDTH,
    "width of the MLP": MLP_WIDTH,
    "tokens": ("vocab_size",),
}
"""What two models must share, by the names that architectures give to it in config.json."""


def difference_of_models(base: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """How a model's shape differs from the base model's, by the entries of their config.json; None if it does not.

    A size that either file leaves out is not compared. Options that leave the graph as it is may differ, such as the
    base of rotary positions: each model runs with its own.
    """
    types = base.get("model_type"), other.get("model_type")
    if types[0] != types[1]:
        return f"model_type {types[1]}, the base model {types[0]}"
    for size, names in SIZES.items():
        numbers = _first(base, names), _first(other, names)
        if None not in numbers and numbers[0] != numbers[1]:
            return f"{numbers[1]} {size}, the base model {numbers[0]}"
    if is_parallel(base) != is_parallel(other):
        return "attention and MLP in another order than the base model (one after the other, or side by side)"
    return None


def _first(settings: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((settings[name] for name in names if settings.get(name) is not None), None)


def difference_of_tokens(base: Path, other: Path) -> str | None:
    """How the tokens of the tokenizer in one folder differ from those in the base model's; None if they do not.

    Prompts are tokenised by the base model's tokenizer, so a token id must mean the same in both. Tokens that only one
    of them adds, such as those of a chat template, are left out of the comparison, and so is a folder without a
    tokenizer, or with one of another format.
    """
    ours, theirs = _tokens(base), _tokens(other)
    changed = sorted(token for token in ours.keys() & theirs.keys() if ours[token] != theirs[token])
    if changed:
        token = changed[0]
        return f"other ids for {len(changed)} tokens, the first is {token!r} ({theirs[token]}, not {ours[token]})"
    if ours and theirs and (lost := sorted(ours.keys() - theirs.keys())):
        return f"no entry for {len(lost)} tokens of the base model's, the first is {lost[0]!r}"
    return None


def _tokens(folder: Path) -> dict[str, int]:
    """The ids of a tokenizer's own tokens; none where the folder has no list of them in JSON."""
    whole, plain = folder / "tokenizer.json", folder / "vocab.json"
    if whole.is_file() and isinstance(model := (read_object(whole) or {}).get("model"), dict):
        vocabulary = model.get("vocab")
        if isinstance(vocabulary, list):  # Unigram: pairs of a token and its score, in the order of ids
            return {str(entry[0]): number for number, entry in enumerate(vocabulary)}
        return vocabulary if isinstance(vocabulary, dict) else {}
    return read_object(plain) or {} if plain.is_file() else {}
