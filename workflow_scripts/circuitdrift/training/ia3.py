"""IA3: one trained factor for each output of the attention's linears and for each input of the MLP's.

The published share of Pythia-1.4B is that of all four linears of a block with a factor for each of
6144 + 2048 outputs and 2048 + 8192 inputs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from peft import IA3Config
from transformers import PreTrainedModel

from circuitdrift.decoder.linears import BlockLinear
from circuitdrift.training.adapters import AdapterError, common_settings

ATTENTION_NAMES = frozenset({"attention", "attn", "self_attn"})


def ia3_config(model: PreTrainedModel, linears: Sequence[BlockLinear], base_model: tuple[str, str | None]) -> IA3Config:
    """PEFT's configuration of IA3 on every block linear.

    Args:
        model: the base model; on the meta device is enough.
        linears: its block linears.
        base_model: name and revision of the base model.

    Raises:
        AdapterError: no linear is known to belong to the attention, so that the two kinds cannot be told apart.
    """
    places = {linear.name.split(f".{linear.layer}.", 1)[1] for linear in linears}
    mlp = sorted(place for place in places if not ATTENTION_NAMES & set(place.split(".")))
    if len(mlp) == len(places):
        raise AdapterError(
            f"{type(model).__name__}: none of the linears {sorted(places)} lies in a module named "
            f"{sorted(ATTENTION_NAMES)}, so IA3 cannot tell attention and MLP apart; use another method"
        )
    pattern = r".*\.(?:" + "|".join(map(re.escape, mlp)) + ")"
    return IA3Config(**common_settings(model, linears, base_model), feedforward_modules=pattern)
