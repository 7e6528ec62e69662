"""Predictions of a decoder: logits at the last positions, and the divergence between two predictions.

Circuits and training share these functions. Both run the tokens that prompts have in common once, and both apply the
head, the largest matrix of a small model, only at positions that predict a token of the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def cache_of_common_tokens(model: PreTrainedModel, tokens: Int[Tensor, "1 common"], n_sequences: int) -> DynamicCache:
    """Keys and values of the tokens that several sequences begin with, run once and repeated for each sequence."""
    cache = DynamicCache()
    model.base_model(input_ids=tokens, past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(n_sequences)
    return cache


def last_logits(
    model: PreTrainedModel,
    inputs: Int[Tensor, "sequence position"] | Float[Tensor, "sequence position d_model"],
    cache: DynamicCache | None,
    n_last: int,
) -> Float[Tensor, "sequence last_position vocabulary"]:
    """Run a model on tokens or on embeddings; logits at the last positions, to which alone the head is applied.

    The whole model is called rather than its backbone and its head: a sharded model gathers the weights of its head
    in its own forward pass.

    Args:
        model: the model.
        inputs: token ids, or embeddings in their place.
        cache: keys and values of the tokens before the inputs, which the pass extends; None without such tokens.
        n_last: number of last positions.
    """
    # Indices gather the positions into one block. A count gives a slice with gaps, whose rows torch would multiply one
    # by one, reading the whole head for each.
    last = torch.arange(inputs.shape[1] - n_last, inputs.shape[1], device=inputs.device)
    named = {"inputs_embeds" if inputs.is_floating_point() else "input_ids": inputs}
    logits: Tensor = model(**named, past_key_values=cache, use_cache=cache is not None, logits_to_keep=last).logits
    return logits


def log_probabilities(logits: Float[Tensor, "*rows vocabulary"]) -> Float[Tensor, "*rows vocabulary"]:
    """Natural logarithms of the probabilities, in float32 or the logits' wider dtype."""
    return functional.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)


def kl_divergence(
    expected: Float[Tensor, "*rows vocabulary"], found: Float[Tensor, "*rows vocabulary"]
) -> Float[Tensor, "*rows"]:
    """KL(expected || found) in nats, summed over the vocabulary, from the log-probabilities of both."""
    return (expected.exp() * (expected - found)).sum(dim=-1)
