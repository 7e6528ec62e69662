"""A slow decoder that materialises every edge, written from the architectures' definitions, one example at a time.

It shares no code with the engine: weights come from the state dict, rotary embedding, norms and attention are spelled
out, and each reader sums up its own copies of what the writers before it wrote. ``carry`` says what an edge carries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from circuitdrift.circuits.prompts import PromptPairs

Carry = Callable[[str, str, Tensor], Tensor]
Apply = Callable[[Tensor], Tensor]


@dataclass
class NaiveHead:
    read: dict[str, Apply]
    write: Apply


@dataclass
class NaiveLayer:
    attention_norm: Apply
    heads: list[NaiveHead]
    attention_bias: Tensor
    mlp_norm: Apply
    mlp: Apply


@dataclass
class NaiveDecoder:
    embedding: Tensor
    layers: list[NaiveLayer]
    final_norm: Apply
    unembedding: Tensor
    rotary: Callable[[Tensor], Tensor]
    d_head: int
    parallel: bool

    def run(self, embeddings: Tensor, carry: Carry) -> tuple[Tensor, dict[str, Tensor]]:
        """Embeddings [position, d_model] -> logits at the last position, and what each writer wrote."""
        written = {"input": embeddings}
        bias = torch.zeros_like(embeddings[0])

        def read(reader: str) -> Tensor:
            return sum(carry(writer, reader, output) for writer, output in written.items()) + bias

        for number, layer in enumerate(self.layers):
            outputs = {}
            for h, head in enumerate(layer.heads):
                name = f"a{number}.h{h}"
                q, k, v = (head.read[c](layer.attention_norm(read(f"{name}<{c}>"))) for c in "qkv")
                weights = self.rotary(q) @ self.rotary(k).T / self.d_head**0.5
                future = torch.ones_like(weights, dtype=torch.bool).triu(1)
                outputs[name] = head.write(weights.masked_fill(future, -torch.inf).softmax(dim=-1) @ v)
            if self.parallel:
                mlp_input = read(f"m{number}")
                written |= outputs
                bias = bias + layer.attention_bias
            else:
                written |= outputs
                bias = bias + layer.attention_bias
                mlp_input = read(f"m{number}")
            written[f"m{number}"] = layer.mlp(layer.mlp_norm(mlp_input))
        return self.unembedding @ self.final_norm(read("logits"))[-1], written


def whole(writer: str, reader: str, output: Tensor) -> Tensor:
    """Every edge carries what its writer wrote: the plain model."""
    return output


def rotate(n_dims: int, theta: float) -> Callable[[Tensor], Tensor]:
    """Rotary embedding of the first n_dims of vectors [position, d_head]."""

    def apply(x: Tensor) -> Tensor:
        half = n_dims // 2
        angles = torch.arange(len(x))[:, None] * theta ** (-torch.arange(half).float() * 2 / n_dims)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        first, second, rest = x[:, :half], x[:, half:n_dims], x[:, n_dims:]
        return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=1)

    return apply


def linear(weight: Tensor, bias: Tensor | None = None) -> Apply:
    return lambda x: x @ weight.T + (0 if bias is None else bias)


def layer_norm(weight: Tensor, bias: Tensor, epsilon: float) -> Apply:
    def apply(x: Tensor) -> Tensor:
        deviation = x - x.mean(-1, keepdim=True)
        return deviation / (deviation.pow(2).mean(-1, keepdim=True) + epsilon).sqrt() * weight + bias

    return apply


def rms_norm(weight: Tensor, epsilon: float) -> Apply:
    return lambda x: x / (x.pow(2).mean(-1, keepdim=True) + epsilon).sqrt() * weight


def naive_gpt_neox(model: GPTNeoXForCausalLM) -> NaiveDecoder:
    config, state = model.config, model.state_dict()
    d_head = config.hidden_size // config.num_attention_heads

    def norm(name: str) -> Apply:
        return layer_norm(state[f"{name}.weight"], state[f"{name}.bias"], config.layer_norm_eps)

    layers = []
    for number in range(config.num_hidden_layers):
        at = f"gpt_neox.layers.{number}"
        fused, bias = (state[f"{at}.attention.query_key_value.{part}"] for part in ("weight", "bias"))
        out = state[f"{at}.attention.dense.weight"]
        heads = []
        for h in range(config.num_attention_heads):
            first = 3 * d_head * h
            parts = {c: slice(first + i * d_head, first + (i + 1) * d_head) for i, c in enumerate("qkv")}
            read = {c: linear(fused[rows], bias[rows]) for c, rows in parts.items()}
            heads.append(NaiveHead(read, linear(out[:, h * d_head : (h + 1) * d_head])))
        up = linear(state[f"{at}.mlp.dense_h_to_4h.weight"], state[f"{at}.mlp.dense_h_to_4h.bias"])
        down = linear(state[f"{at}.mlp.dense_4h_to_h.weight"], state[f"{at}.mlp.dense_4h_to_h.bias"])
        layers.append(
            NaiveLayer(
                norm(f"{at}.input_layernorm"),
                heads,
                state[f"{at}.attention.dense.bias"],
                norm(f"{at}.post_attention_layernorm"),
                lambda x, up=up, down=down: down(functional.gelu(up(x))),
            )
        )
    return NaiveDecoder(
        state["gpt_neox.embed_in.weight"],
        layers,
        norm("gpt_neox.final_layer_norm"),
        state["lm_head.weight"],
        rotate(d_head // 2, 10000.0),
        d_head,
        config.use_parallel_residual,
    )


def naive_llama(model: LlamaForCausalLM) -> NaiveDecoder:
    config, state = model.config, model.state_dict()
    d_head = config.hidden_size // config.num_attention_heads
    group = config.num_attention_heads // config.num_key_value_heads
    layers = []
    for number in range(config.num_hidden_layers):
        at = f"model.layers.{number}"
        w = {c: state[f"{at}.self_attn.{c}_proj.weight"] for c in "qkvo"}
        heads = []
        for h in range(config.num_attention_heads):
            own, shared = slice(h * d_head, (h + 1) * d_head), slice(h // group * d_head, (h // group + 1) * d_head)
            read = {"q": linear(w["q"][own]), "k": linear(w["k"][shared]), "v": linear(w["v"][shared])}
            heads.append(NaiveHead(read, linear(w["o"][:, own])))
        gate, up, down = (linear(state[f"{at}.mlp.{part}_proj.weight"]) for part in ("gate", "up", "down"))
        layers.append(
            NaiveLayer(
                rms_norm(state[f"{at}.input_layernorm.weight"], config.rms_norm_eps),
                heads,
                torch.zeros(config.hidden_size, dtype=torch.float64),
                rms_norm(state[f"{at}.post_attention_layernorm.weight"], config.rms_norm_eps),
                lambda x, gate=gate, up=up, down=down: down(functional.silu(gate(x)) * up(x)),
            )
        )
    return NaiveDecoder(
        state["model.embed_tokens.weight"],
        layers,
        rms_norm(state["model.norm.weight"], config.rms_norm_eps),
        state["lm_head.weight"],
        rotate(d_head, 10000.0),
        d_head,
        parallel=False,
    )


# ------------------------------------------------------------------------------------------------ test models

VOCABULARY = 23

ROUNDING = 3e-6
"""What the library's models differ by in float64: attention weights and RMS norms are computed in float32 there."""


def small_gpt_neox(parallel: bool) -> GPTNeoXForCausalLM:
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=32,
        use_parallel_residual=parallel,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        attn_implementation="eager",
    )
    return randomised(GPTNeoXForCausalLM(config))


def small_llama(n_groups: int = 2, tied: bool = False) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=n_groups,
        intermediate_size=20,
        max_position_embeddings=32,
        tie_word_embeddings=tied,
        attn_implementation="eager",
    )
    return randomised(LlamaForCausalLM(config))


def randomised(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Weights large enough that attention and norms are far from linear, norms' gains and biases included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.45 * noise if parameter.ndim == 2 else parameter + 0.3 * noise)
    return model.double().eval()


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "gpt_neox parallel": lambda: small_gpt_neox(parallel=True),
    "gpt_neox sequential": lambda: small_gpt_neox(parallel=False),
    "llama grouped": lambda: small_llama(n_groups=2),
    "llama tied": lambda: small_llama(n_groups=4, tied=True),
}


def naive_of(model: PreTrainedModel) -> NaiveDecoder:
    return naive_gpt_neox(model) if isinstance(model, GPTNeoXForCausalLM) else naive_llama(model)


def random_pairs(n: int, seed: int = 1) -> tuple[list[list[int]], list[list[int]]]:
    """Prompt pairs of 4 and 6 tokens that first differ at various positions."""
    generator = torch.Generator().manual_seed(seed)
    clean, corrupted = [], []
    for i in range(n):
        length = 4 + 2 * (i % 2)
        prompt = torch.randint(VOCABULARY, (length,), generator=generator).tolist()
        first = (i * 3) % length
        other = list(prompt)
        other[first] = (prompt[first] + 1 + i) % VOCABULARY
        if i % 3 == 0:
            other[-1] = (prompt[-1] + 2) % VOCABULARY
        clean.append(prompt)
        corrupted.append(other)
    return clean, corrupted


def one_token_pairs(clean: list[list[int]], corrupted: list[list[int]]) -> PromptPairs:
    """Prompt pairs with answers of one token, which differ between clean and corrupted."""
    n = len(clean)
    return PromptPairs(clean, corrupted, [[i % 5] for i in range(n)], [[i % 5 + 1] for i in range(n)])
