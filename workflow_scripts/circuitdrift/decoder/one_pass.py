"""Sequences with common first tokens in one pass: the common tokens once, then the other tokens of each sequence.

The tokens of all sequences lie in one row, so that each linear map of the model runs once for all of them. Attention
alone tells the sequences apart. A pass over the common tokens and a second one over the rest, which reads the keys and
values of the first (:func:`circuitdrift.decoder.logits.cache_of_common_tokens`), multiplies the same numbers but starts
twice as many operations. For short sequences and small models, starting an operation takes as long as the operation.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

ATTENTION = "common_tokens_first"
"""The name under which transformers' models find :func:`attend_after_common_tokens`."""


def runs_in_one_pass(model: PreTrainedModel, length: int) -> bool:
    """Whether a model can run sequences of some length in one pass.

    The model must take its attention from transformers' interface, which GPT-Neo does not, and every token must see all
    tokens before it. The fused attention of a GPU is left alone.
    """
    window = getattr(model.config, "sliding_window", None)
    replaceable = model._supports_attention_backend and model.config._attn_implementation == "eager"
    return replaceable and (window is None or window >= length)


def logits_in_one_pass(
    model: PreTrainedModel, tokens: Int[Tensor, "sequence position"], n_common: int, n_last: int
) -> Float[Tensor, "sequence last_position vocabulary"]:
    """Logits at the last positions of sequences of one length.

    Args:
        model: a model of which :func:`runs_in_one_pass` is true.
        tokens: the sequences.
        n_common: number of first tokens that all sequences share; fewer than the tokens before the last positions.
        n_last: number of last positions.
    """
    n_sequences, length = tokens.shape
    position = torch.arange(length, device=tokens.device)
    in_row = torch.cat([tokens[0, :n_common], tokens[:, n_common:].flatten()])
    positions = torch.cat([position[:n_common], position[n_common:].repeat(n_sequences)])
    ends = n_common + (length - n_common) * torch.arange(1, n_sequences + 1, device=tokens.device)
    last = (ends[:, None] - n_last + position[:n_last]).flatten()
    dtype = next(model.parameters()).dtype
    causal = torch.full((length, length), torch.finfo(dtype).min, dtype=dtype, device=tokens.device).triu(1)
    own_attention = model.config._attn_implementation
    model.config._attn_implementation = ATTENTION
    try:
        logits: Tensor = model(
            input_ids=in_row[None],
            position_ids=positions[None],
            attention_mask=causal[None, None],
            use_cache=False,
            logits_to_keep=last,
            n_common=n_common,
        ).logits
    finally:
        model.config._attn_implementation = own_attention
    return logits.view(n_sequences, n_last, -1)


def attend_after_common_tokens(
    module: nn.Module,
    query: Float[Tensor, "1 head token d_head"],
    key: Float[Tensor, "1 key_head token d_head"],
    value: Float[Tensor, "1 key_head token d_head"],
    attention_mask: Float[Tensor, "1 1 position position"],
    scaling: float,
    dropout: float = 0.0,
    *,
    n_common: int,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "1 token head d_head"], None]:
    """Attention of common tokens and, after them, of the other tokens of each sequence, all in one row.

    Common tokens attend to one another, the others to the common tokens and to those of their own sequence.

    Args:
        module: the attention module.
        query: queries of the row.
        key: keys of the row; a group of query heads may share a head of keys.
        value: values of the row.
        attention_mask: what to add to the scores of a single sequence.
        scaling: factor of the scores.
        dropout: share of the weights to drop in training.
        n_common: number of common tokens.
        softcap: bound that a hyperbolic tangent puts on the scores, in Gemma 2; None for none.

    Returns:
        The heads' outputs, and no weights.
    """
    n_heads, n_tokens, _d_head = query.shape[1:]
    n_own = attention_mask.shape[-1] - n_common
    n_sequences = (n_tokens - n_common) // n_own
    groups = n_heads // key.shape[1]
    queries, keys, values = query[0], key[0].repeat_interleave(groups, 0), value[0].repeat_interleave(groups, 0)
    mask = attention_mask[0, 0]

    def attend(q: Tensor, k: Tensor, v: Tensor, added: Tensor) -> Tensor:
        if softcap is None:
            scores = torch.baddbmm(added, q, k.mT, alpha=scaling)
        else:
            scores = torch.tanh(torch.bmm(q, k.mT) * (scaling / softcap)) * softcap + added
        weights = functional.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
        if dropout:
            weights = functional.dropout(weights, p=dropout, training=module.training)
        return torch.bmm(weights, v)

    def own(of_row: Tensor) -> Tensor:
        return of_row[:, n_common:].unflatten(1, (n_sequences, n_own))

    def whole(of_row: Tensor) -> Tensor:
        common = of_row[:, None, :n_common].expand(-1, n_sequences, -1, -1)
        return torch.cat([common, own(of_row)], dim=2).flatten(0, 1)

    common = attend(queries[:, :n_common], keys[:, :n_common], values[:, :n_common], mask[:n_common, :n_common])
    others = attend(own(queries).flatten(0, 1), whole(keys), whole(values), mask[n_common:])
    outputs = torch.cat([common, others.reshape(n_heads, -1, others.shape[-1])], dim=1)
    return outputs.transpose(0, 1)[None], None


AttentionInterface.register(ATTENTION, attend_after_common_tokens)
