r"""Rules that replace derivatives in the backward pass; the forward pass is the model's own (docs/method.md#rules).

====================  ======================================  =========================================================
rule                  in place of                             used by
====================  ======================================  =========================================================
frozen norms          the derivative of a norm                RelP (LN-rule), GIM: the norm's scale counts as a constant
identity              the derivative of an activation f       RelP: f(x) / x, and 0 where x is 0
halves                both derivatives of a gated MLP's       RelP, GIM: half of each
                      product
softmax temperature   the derivative of softmax at x          GIM: that of the softmax's Jacobian at x / 2
shares                the derivatives by q, k and v           GIM: a quarter of those by q and k, half of that by v
====================  ======================================  =========================================================

Sources: RelP, Rezaei Jafari et al. 2025 (arXiv 2508.21258) and https://github.com/FarnoushRJ/RelP; GIM, Edin et al.
2025 (arXiv 2505.17630) and https://github.com/corticph/gim.

Hooks of modules and of torch's functions apply the rules, so they hold for every supported architecture. A module is
recognised by its type and its shape, never by its name. Where that fails, the model is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.pytorch_utils import Conv1D

from circuitdrift.decoder.anatomy import Anatomy, AnatomyError, Block, Norm, oriented_weight
from circuitdrift.decoder.tracing import AfterHook, BeforeHook

SOFTMAX_TEMPERATURE = 2.0
"""GIM's, from its authors' code."""

SHARES_IN_ATTENTION: Mapping[str, float] = {"q": 0.25, "k": 0.25, "v": 0.5}
"""GIM's: half for each factor of weights times values, and half of that for each factor of queries times keys."""


@dataclass(frozen=True)
class BackwardRules:
    """Hooks that change derivatives and no value.

    Attributes:
        before: hooks on modules' inputs.
        after: hooks on modules' outputs, which come before the gradients of readers are taken there.
        after_readers: hooks on modules' outputs which act between a reader's output and what uses it.
        norms_are_frozen: whether a norm's scale counts as a constant.
        softmax_temperature: of the derivative of softmax; None leaves it alone.
    """

    before: Sequence[tuple[nn.Module, BeforeHook]] = ()
    after: Sequence[tuple[nn.Module, AfterHook]] = ()
    after_readers: Sequence[tuple[nn.Module, AfterHook]] = ()
    norms_are_frozen: bool = False
    softmax_temperature: float | None = None

    @contextmanager
    def in_attention(self, anatomy: Anatomy) -> Iterator[None]:
        """Apply the softmax's derivative at this temperature inside, in the attention that computes its weights.

        Raises:
            AnatomyError: the model's attention does not call torch's softmax once in each block.
        """
        if self.softmax_temperature is None:
            yield
            return
        config = anatomy.model.config
        own_attention = config._attn_implementation
        config._attn_implementation = "eager"  # fused attention has no softmax to change
        mode = _SoftmaxAtTemperature(self.softmax_temperature)
        try:
            with mode:
                yield
        finally:
            config._attn_implementation = own_attention
        if mode.n_softmaxes != len(anatomy.blocks):
            raise AnatomyError(
                f"{type(anatomy.model).__name__}: the softmax rule of attribution gim applies to torch's softmax in "
                f"the attention of each of {len(anatomy.blocks)} blocks, but the model called it {mode.n_softmaxes} "
                "times; use another attribution, such as eap"
            )


PLAIN_GRADIENTS = BackwardRules()
"""No rule: the derivatives of calculus."""


def relevance_rules(anatomy: Anatomy) -> BackwardRules:
    """The rules of RelP: frozen norms, identity for activations, halves for gated MLPs.

    The rule for attention (AH-rule: attention weights count as constants) is left out, as in the authors' example: by
    it every edge into q and k would score zero.

    Raises:
        AnatomyError: the model has a module to which a rule cannot be applied.
    """
    activations = [module for layer in _layers(anatomy) for module in _activations(anatomy, layer)]
    return BackwardRules(
        before=_halves(anatomy, "relp"),
        after=[*_frozen_norms(anatomy, "relp"), *((module, _as_identity) for module in activations)],
        norms_are_frozen=True,
    )


def interaction_rules(anatomy: Anatomy) -> BackwardRules:
    """The rules of GIM: frozen norms, softmax at a temperature, halves for gated MLPs, shares of q, k and v.

    Raises:
        AnatomyError: the model has a module to which a rule cannot be applied.
    """
    return BackwardRules(
        before=_halves(anatomy, "gim"),
        after=_frozen_norms(anatomy, "gim"),
        after_readers=[hook for block in anatomy.blocks for hook in _shares(block)],
        norms_are_frozen=True,
        softmax_temperature=SOFTMAX_TEMPERATURE,
    )


class _TimesFactor(torch.autograd.Function):
    """The value of ``output``; its gradient by ``x`` is the incoming gradient times a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, output: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (factor,) = ctx.saved_tensors
        return gradients[0] * factor.to(gradients[0].dtype), None, None


def _times_factor(x: Tensor, output: Tensor, factor: Tensor) -> Tensor:
    return cast(Tensor, _TimesFactor.apply(x, output.detach(), factor.detach()))  # type: ignore[no-untyped-call]


# ------------------------------------------------------------------------------------------------------- norms


def _frozen_norms(anatomy: Anatomy, attribution: str) -> list[tuple[nn.Module, AfterHook]]:
    norms = anatomy.norms()
    known = {norm.module for norm in norms}
    for path, module in anatomy.backbone.named_modules():
        if "norm" in type(module).__name__.lower() and not any(part in known for part in module.modules()):
            raise AnatomyError(
                f"{type(anatomy.model).__name__}: attribution {attribution} freezes the scale of every norm, but that "
                f"of {path} ({type(module).__name__}) is unknown; use another attribution, such as eap"
            )
    return [(norm.module, _frozen(norm)) for norm in norms]


def _frozen(norm: Norm) -> AfterHook:
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = args[0]
        _, reciprocal = norm.standardise(x.detach().to(torch.promote_types(x.dtype, torch.float32)))
        centred = x - x.mean(dim=-1, keepdim=True) if norm.centred else x
        return _times_factor(centred, output, reciprocal * norm.gain)

    return hook


# -------------------------------------------------------------------------------------------------------- MLPs

_ACTIVATIONS = {"torch.nn.modules.activation", "transformers.activations"}
"""The Python modules that define activation functions as torch modules."""


def _layers(anatomy: Anatomy) -> list[nn.Module]:
    """The model's blocks as modules: the parts of a block's anatomy may have no module in common but this."""
    owners = [
        module
        for module in anatomy.backbone.modules()
        if isinstance(module, nn.ModuleList) and len(module) == len(anatomy.blocks)
    ]
    layers = next(
        list(owner)
        for owner in owners
        if all(block.mlp in set(layer.modules()) for layer, block in zip(owner, anatomy.blocks, strict=True))
    )
    return layers


def _activations(anatomy: Anatomy, layer: nn.Module) -> list[nn.Module]:
    """The activation functions of a block.

    Raises:
        AnatomyError: none is a module of torch or transformers, or one is not zero at zero, so that f(x) / x diverges.
    """
    found = [module for module in layer.modules() if type(module).__module__ in _ACTIVATIONS]
    zero = torch.zeros(1, dtype=anatomy.dtype, device=anatomy.device)
    with torch.no_grad():
        unfit = [type(module).__name__ for module in found if bool(module(zero) != 0)]
    if not found or unfit:
        reason = f"{unfit[0]} is not zero at zero" if unfit else "a block has none of torch or transformers as a module"
        raise AnatomyError(
            f"{type(anatomy.model).__name__}: attribution relp takes f(x) / x as the derivative of each activation "
            f"function f, but {reason}; use another attribution, such as eap"
        )
    return found


def _as_identity(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    x = args[0].detach()
    return _times_factor(args[0], output, output.detach() / torch.where(x == 0, 1, x))


def _halves(anatomy: Anatomy, attribution: str) -> list[tuple[nn.Module, BeforeHook]]:
    """Hooks on what the last linear map of each gated MLP reads: the product of gate and input."""
    return [
        (_mlp_linears(layer, block)[-1], _halved)
        for layer, block in zip(_layers(anatomy), anatomy.blocks, strict=True)
        if _is_gated(anatomy, layer, block, attribution)
    ]


def _is_gated(anatomy: Anatomy, layer: nn.Module, block: Block, attribution: str) -> bool:
    """Whether an MLP multiplies two vectors: its input maps make twice what its output map reads.

    Raises:
        AnatomyError: they make neither once nor twice as much.
    """
    *inputs, output = _mlp_linears(layer, block)
    made = sum(len(oriented_weight(linear)) for linear in inputs)
    read = oriented_weight(output).shape[1]
    if made not in (read, 2 * read):
        raise AnatomyError(
            f"{type(anatomy.model).__name__}: attribution {attribution} must know whether an MLP is gated, but its "
            f"input maps make {made} numbers and its output map reads {read}; use another attribution, such as eap"
        )
    return made == 2 * read


def _mlp_linears(layer: nn.Module, block: Block) -> list[nn.Linear | Conv1D]:
    """The linear maps of a block's MLP, the one that writes to the residual stream last."""
    in_attention = set(block.attention.modules())
    linears = [m for m in layer.modules() if isinstance(m, nn.Linear | Conv1D) and m not in in_attention]
    d_model = block.output_weight().shape[0]
    *_, output = (linear for linear in linears if len(oriented_weight(linear)) == d_model)
    return [*(linear for linear in linears if linear is not output), output]


def _halved(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (_times_factor(args[0], args[0], args[0].new_full((), 0.5)), *args[1:])


# --------------------------------------------------------------------------------------------------- attention


def _shares(block: Block) -> list[tuple[nn.Module, AfterHook]]:
    """Hooks on the projections; one module can hold all three."""
    return [(module, _shared(block, module)) for module in {p.module: None for p in block.projections.values()}]


def _shared(block: Block, module: nn.Module) -> AfterHook:
    def hook(module_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        factor = output.new_ones(output.shape[-1])
        for name, projection in block.projections.items():
            if projection.module is module:
                projection.by_head(factor).fill_(SHARES_IN_ATTENTION[name])
        return _times_factor(output, output, factor)

    return hook


_SOFTMAX = {torch.softmax, torch.nn.functional.softmax, torch.Tensor.softmax}


class _SoftmaxAtTemperature(TorchFunctionMode):
    """Replaces the derivative of each softmax over the last dimension, and counts them."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.n_softmaxes = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func not in _SOFTMAX:
            return output
        self.n_softmaxes += 1
        return _AtTemperature.apply(args[0], output.detach(), self.temperature)  # type: ignore[no-untyped-call]


class _AtTemperature(torch.autograd.Function):
    """A softmax over the last dimension, with the Jacobian of softmax at x / T: diag(s) - s s^T, s = softmax(x / T)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, output: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.temperature = temperature
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        softer = (x.to(gradients[0].dtype) / ctx.temperature).softmax(dim=-1)
        along = (softer * gradients[0]).sum(dim=-1, keepdim=True)
        return (softer * (gradients[0] - along)).to(x.dtype), None, None
