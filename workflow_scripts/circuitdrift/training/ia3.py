"""IA3: a trained factor for each output of the attention's linears and for each input of the MLP's.

The published share for Pythia-1.4B results from all four linears of a block, with a factor for each of 6144 + 2048
outputs and 2048 + 8192 inputs (docs/method.md#parameter-shares).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from peft import IA3Config
from transformers import PreTrainedModel

from circuitdrift.decoder.linears import BlockLinear
from circuitdrift.training.adapters import AdapterError, common_settings

ATTENTION_NAMES = frozenset({"attention", "attn", "self_attention", "self_attn"})


def ia3_config(model: PreTrainedModel, linears: Sequence[BlockLinear], base_model: tuple[str, str | None]) -> IA3Config:
    """PEFT's configuration of IA3 on every block linear.

    Args:
        model: the base model; the meta device is enough.
        linears: its block linears.
        base_model: name and revision of the base model.

    Raises:
        AdapterError: no linear lies in a known attention module, so the two kinds cannot be distinguished.
    """
    paths = {linear.name.split(f".{linear.layer}.", 1)[1] for linear in linears}
    mlp = sorted(path for path in paths if not ATTENTION_NAMES & set(path.split(".")))
    if len(mlp) == len(paths):
        raise AdapterError(
            f"{type(model).__name__}: none of the linears {sorted(paths)} lies in a module named "
            f"{sorted(ATTENTION_NAMES)}, so IA3 cannot distinguish attention and MLP; use another method"
        )
    pattern = r".*\.(?:" + "|".join(map(re.escape, mlp)) + ")"
    return IA3Config(**common_settings(model, linears, base_model), feedforward_modules=pattern)
