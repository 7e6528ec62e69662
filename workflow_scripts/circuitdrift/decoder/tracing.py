"""Forward passes under observation: hooks, grouped keys and values, shared prefixes, and traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from circuitdrift.decoder.anatomy import Anatomy, AnatomyError, Block, Projection
from circuitdrift.decoder.logits import cache_of_common_tokens, last_logits

BeforeHook = Callable[[nn.Module, tuple[Tensor, ...]], object]
AfterHook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], object]


@contextmanager
def hooked(
    before: Sequence[tuple[nn.Module, BeforeHook]] = (), after: Sequence[tuple[nn.Module, AfterHook]] = ()
) -> Iterator[None]:
    """Hooks on modules' inputs (``before``) and outputs (``after``), removed on leaving.

    As in torch, the value that a hook returns replaces the input or the output, unless it is None.
    """
    with ExitStack() as stack:
        for module, before_hook in before:
            stack.callback(module.register_forward_pre_hook(before_hook).remove)
        for module, after_hook in after:
            stack.callback(module.register_forward_hook(after_hook).remove)
        yield


@contextmanager
def one_key_per_query_head(anatomy: Anatomy) -> Iterator[None]:
    """Give every query head its own copy of its group's keys and values, as if the model had no groups.

    The outputs of the key and value projections are repeated for each query head of a group, before any hook that is
    added inside, and the attention modules take groups of one head. Weights and logits do not change. Without groups
    this does nothing.
    """
    after: list[tuple[nn.Module, AfterHook]] = []
    without_groups = {
        "num_key_value_groups": 1,
        "num_key_value_heads": anatomy.graph.n_heads,
        "num_kv_heads": anatomy.graph.n_heads,
        "multi_query": False,
    }
    with ExitStack() as stack:
        for block in anatomy.blocks:
            for module, projections in block.projections_by_module.items():
                if any(projection.shared for projection in projections.values()):
                    after.append((module, _repeat_rows(list(projections.values()))))
            if any(projection.shared for projection in block.projections.values()):
                for name, value in without_groups.items():
                    if hasattr(block.attention, name):
                        stack.callback(setattr, block.attention, name, getattr(block.attention, name))
                        setattr(block.attention, name, value)
        stack.enter_context(hooked(after=after))
        yield


def _repeat_rows(projections: Sequence[Projection]) -> AfterHook:
    """Put the heads' vectors of the projections of one module in the order of the input of attention."""
    rows = projections[0].rows.new_empty(sum(projection.rows.numel() for projection in projections))
    for projection in projections:
        projection.by_head(rows).copy_(projection.rows)
    return lambda module, args, output: output[..., rows]


@contextmanager
def without_parameter_gradients(anatomy: Anatomy) -> Iterator[None]:
    """Backward passes inside reach activations only."""
    trainable = [parameter for parameter in anatomy.model.parameters() if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@dataclass(frozen=True)
class Prefix:
    """Keys and values, layer by layer, of the tokens that the clean and corrupted prompts of a batch share."""

    keys_and_values: tuple[
        tuple[Float[Tensor, "batch head prefix d_head"], Float[Tensor, "batch head prefix d_head"]], ...
    ]

    def cache(self, copies: int) -> DynamicCache | None:
        """A fresh cache for ``copies`` passes over the batch, one after the other; None if the prefix is empty."""
        if not self.keys_and_values:
            return None
        return DynamicCache(
            tuple((k.repeat(copies, 1, 1, 1), v.repeat(copies, 1, 1, 1)) for k, v in self.keys_and_values)
        )


@torch.no_grad()
def run_prefix(anatomy: Anatomy, token_ids: Int[Tensor, "batch prefix"]) -> Prefix:
    """Run the shared tokens once and keep their keys and values.

    The tokens that all prompts of the batch begin with run as a batch of one.
    """
    batch, length = token_ids.shape
    if length == 0:
        return Prefix(())
    differing = (token_ids != token_ids[0]).any(dim=0).nonzero()
    n_common = int(differing[0]) if len(differing) else length
    common = token_ids[:1, :n_common]
    cache = cache_of_common_tokens(anatomy.model, common, batch) if n_common else DynamicCache()
    if n_common < length:
        anatomy.backbone(input_ids=token_ids[:, n_common:], past_key_values=cache, use_cache=True)
    return Prefix(tuple((layer.keys, layer.values) for layer in cache.layers))


def logits_after(
    anatomy: Anatomy, prefix: Prefix, embeddings: Float[Tensor, "rows position d_model"], n_answer: int
) -> Float[Tensor, "rows answer vocabulary"]:
    """Run the model on embeddings after a prefix; logits at the last positions, which predict the answer.

    ``rows`` is a multiple of the prefix's batch: one pass over the batch after the other.
    """
    copies = len(embeddings) // len(prefix.keys_and_values[0][0]) if prefix.keys_and_values else 1
    with _embeddings_as_they_are(anatomy):
        return last_logits(anatomy.model, embeddings, prefix.cache(copies), n_answer)


@contextmanager
def _embeddings_as_they_are(anatomy: Anatomy) -> Iterator[None]:
    """Passes inside start from what node ``input`` writes, to which the norm of embeddings was applied."""
    norm = anatomy.embedding_norm
    with hooked(after=[] if norm is None else [(norm, lambda module, args, output: args[0])]):
        yield


@dataclass(frozen=True)
class Trace:
    """The activations of one forward pass.

    Attributes:
        head_values: for each layer the input of the output projection, all heads side by side.
        mlp_outputs: for each layer what the MLP writes to the residual stream.
        attention_inputs: for each layer the residual stream at the attention norm.
        mlp_inputs: for each layer the residual stream at the MLP norm.
        final_input: the residual stream at the final norm.
        logits: logits at the last positions, which predict the answer.
    """

    head_values: tuple[Float[Tensor, "batch position d_attention"], ...]
    mlp_outputs: tuple[Float[Tensor, "batch position d_model"], ...]
    attention_inputs: tuple[Float[Tensor, "batch position d_model"], ...]
    mlp_inputs: tuple[Float[Tensor, "batch position d_model"], ...]
    final_input: Float[Tensor, "batch position d_model"]
    logits: Float[Tensor, "batch answer vocabulary"]

    @property
    def embeddings(self) -> Float[Tensor, "batch position d_model"]:
        """The output of node ``input``: the residual stream before the first block.

        It includes learned positions, which the model itself adds to the token embeddings.
        """
        return self.attention_inputs[0]

    def rows(self, part: slice) -> Trace:
        """The trace of some of the batch's rows."""
        return Trace(
            head_values=tuple(layer[part] for layer in self.head_values),
            mlp_outputs=tuple(layer[part] for layer in self.mlp_outputs),
            attention_inputs=tuple(layer[part] for layer in self.attention_inputs),
            mlp_inputs=tuple(layer[part] for layer in self.mlp_inputs),
            final_input=self.final_input[part],
            logits=self.logits[part],
        )


@torch.no_grad()
def trace(
    anatomy: Anatomy, embeddings: Float[Tensor, "batch position d_model"], prefix: Prefix, n_answer: int
) -> Trace:
    """Run the model on token embeddings and keep every writer's output and every norm's input, without copies."""
    inputs: dict[nn.Module, Tensor] = {}
    outputs: dict[nn.Module, Tensor] = {}
    read = [anatomy.final_norm.module]
    for block in anatomy.blocks:
        read += [block.attention_norm.module, block.mlp_norm.module, block.output]
    with hooked(
        before=[(module, lambda module, args: inputs.update({module: args[0]})) for module in read],
        after=[(block.mlp, _keep_written(block, outputs)) for block in anatomy.blocks],
    ):
        logits = logits_after(anatomy, prefix, embeddings, n_answer)

    def stream(tensor: Tensor) -> Tensor:
        # OPT's MLP and its norm have batch and positions in one dimension.
        return tensor.reshape(*embeddings.shape[:2], tensor.shape[-1])

    return Trace(
        head_values=tuple(stream(inputs[block.output]) for block in anatomy.blocks),
        mlp_outputs=tuple(stream(outputs[block.mlp]) for block in anatomy.blocks),
        attention_inputs=tuple(stream(inputs[block.attention_norm.module]) for block in anatomy.blocks),
        mlp_inputs=tuple(stream(inputs[block.mlp_norm.module]) for block in anatomy.blocks),
        final_input=stream(inputs[anatomy.final_norm.module]),
        logits=logits,
    )


def _keep_written(block: Block, kept: dict[nn.Module, Tensor]) -> AfterHook:
    """A hook that keeps what the block's MLP writes to the residual stream."""
    return lambda module, args, output: kept.update({module: block.written_by_mlp(output)})


def written_by_heads(
    block: Block, head_values: Float[Tensor, "batch position d_attention"], n_heads: int
) -> Float[Tensor, "head batch position d_model"]:
    """Each head's output to the residual stream, without the output projection's bias, in the dtype of the values."""
    batch, position, _ = head_values.shape
    values = head_values.unflatten(-1, (n_heads, -1)).movedim(-2, 0).flatten(1, 2)
    weight = block.output_weight().to(values.dtype).unflatten(1, (n_heads, -1)).permute(1, 2, 0)
    return torch.bmm(values, weight).unflatten(1, (batch, position))


@torch.no_grad()
def check_anatomy(anatomy: Anatomy, token_ids: Int[Tensor, "batch position"]) -> None:
    """Check on a prompt that the anatomy fits the model.

    The writers' outputs and the output projections' biases must sum to the residual stream at the final norm, and the
    logits of a watched pass must equal the plain model's, each to within the model's precision.

    Raises:
        AnatomyError: they do not; the message gives the two largest differences.
    """
    plain = anatomy.model(input_ids=token_ids).logits[:, -1]
    with one_key_per_query_head(anatomy):
        watched = trace(anatomy, anatomy.embed(token_ids), Prefix(()), n_answer=1)
    dtype = anatomy.accumulation_dtype
    total = watched.embeddings.to(dtype)
    for block, values, mlp in zip(anatomy.blocks, watched.head_values, watched.mlp_outputs, strict=True):
        total = total + written_by_heads(block, values.to(dtype), anatomy.graph.n_heads).sum(dim=0) + mlp.to(dtype)
        bias = block.output_bias()
        if bias is not None:
            total = total + bias.to(dtype)
    tolerance = 100 * torch.finfo(anatomy.dtype).eps
    residual = _relative_difference(total, watched.final_input.to(dtype))
    logits = _relative_difference(watched.logits[:, -1].to(dtype), plain.to(dtype))
    if not (residual <= tolerance and logits <= tolerance):
        raise AnatomyError(
            f"{type(anatomy.model).__name__}: the declared anatomy does not fit the model: writers' outputs differ "
            f"from the residual stream by {residual:.2e} of its largest value, watched logits from the plain "
            f"model's by {logits:.2e}, and rounding explains at most {tolerance:.2e}; use a supported model"
        )


def _relative_difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny))
