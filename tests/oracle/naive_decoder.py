"""A slow decoder that materialises every edge, written from the architectures' definitions, one example at a time.

It shares no code with the engine: weights come from the state dict, positions, norms, attention and MLPs are spelled
out, and each reader sums up its own copies of what the writers before it wrote. ``carry`` says what an edge carries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

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
    scale: float
    """What the products of queries and keys are multiplied by."""
    window: int | None = None
    """How many tokens a query sees, its own included; None: all before it."""


@dataclass
class NaiveDecoder:
    embedding: Tensor
    layers: list[NaiveLayer]
    final_norm: Apply
    unembedding: Tensor
    positions: Tensor | None = None
    """Learned position embeddings [position, d_model], part of what ``input`` writes."""
    rotary: Apply = lambda x: x
    parallel: bool = False
    softmax: Apply = lambda scores: scores.softmax(dim=-1)

    def run(self, embeddings: Tensor, carry: Carry) -> tuple[Tensor, dict[str, Tensor]]:
        """Token embeddings [position, d_model] -> logits at the last position, and what each writer wrote."""
        written = {"input": embeddings if self.positions is None else embeddings + self.positions[: len(embeddings)]}
        bias = torch.zeros_like(embeddings[0])

        def read(reader: str) -> Tensor:
            return sum(carry(writer, reader, output) for writer, output in written.items()) + bias

        for number, layer in enumerate(self.layers):
            outputs = {}
            for h, head in enumerate(layer.heads):
                name = f"a{number}.h{h}"
                q, k, v = (head.read[c](layer.attention_norm(read(f"{name}<{c}>"))) for c in "qkv")
                weights = self.rotary(q) @ self.rotary(k).T * layer.scale
                back = torch.arange(len(q))[:, None] - torch.arange(len(q))
                hidden = (back < 0) | (back >= (layer.window or len(q)))
                outputs[name] = head.write(self.softmax(weights.masked_fill(hidden, -torch.inf)) @ v)
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


def layer_norm(weight: Tensor | None, bias: Tensor | None, epsilon: float) -> Apply:
    def apply(x: Tensor) -> Tensor:
        deviation = x - x.mean(-1, keepdim=True)
        standard = deviation / (deviation.pow(2).mean(-1, keepdim=True) + epsilon).sqrt()
        return standard * (1 if weight is None else weight) + (0 if bias is None else bias)

    return apply


def rms_norm(weight: Tensor, epsilon: float) -> Apply:
    return lambda x: x / (x.pow(2).mean(-1, keepdim=True) + epsilon).sqrt() * weight


def then(*steps: Apply) -> Apply:
    """One after the other."""

    def apply(x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    return apply


def gelu_new(x: Tensor) -> Tensor:
    """The approximation of GELU by tanh."""
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


class Weights:
    """Parts of a state dict; a bias or gain that is not there is None."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.state = model.state_dict()

    def linear(self, name: str, rows: slice = slice(None)) -> Apply:
        """A linear map, or some of its outputs."""
        bias = self.state.get(f"{name}.bias")
        return linear(self.state[f"{name}.weight"][rows], None if bias is None else bias[rows])

    def transposed(self, name: str, columns: slice = slice(None)) -> Apply:
        """The same where the weight is stored as [d_in, d_out]."""
        return linear(self.state[f"{name}.weight"][:, columns].T, self.state[f"{name}.bias"][columns])

    def bias(self, name: str) -> Tensor:
        """A linear map's bias, zero where it has none."""
        bias = self.state.get(f"{name}.bias")
        return torch.zeros(len(self.state[f"{name}.weight"]), dtype=torch.float64) if bias is None else bias

    def layer_norm(self, name: str, epsilon: float) -> Apply:
        return layer_norm(self.state.get(f"{name}.weight"), self.state.get(f"{name}.bias"), epsilon)

    def rms_norm(self, name: str, epsilon: float) -> Apply:
        return rms_norm(self.state[f"{name}.weight"], epsilon)


def naive_gpt_neox(model: PreTrainedModel) -> NaiveDecoder:
    config, w = model.config, Weights(model)
    d_head = config.hidden_size // config.num_attention_heads
    layers = []
    for number in range(config.num_hidden_layers):
        at = f"gpt_neox.layers.{number}"
        out = w.state[f"{at}.attention.dense.weight"]
        heads = []
        for h in range(config.num_attention_heads):
            first = 3 * d_head * h
            parts = {c: slice(first + i * d_head, first + (i + 1) * d_head) for i, c in enumerate("qkv")}
            read = {c: w.linear(f"{at}.attention.query_key_value", rows) for c, rows in parts.items()}
            heads.append(NaiveHead(read, linear(out[:, h * d_head : (h + 1) * d_head])))
        layers.append(
            NaiveLayer(
                w.layer_norm(f"{at}.input_layernorm", config.layer_norm_eps),
                heads,
                w.bias(f"{at}.attention.dense"),
                w.layer_norm(f"{at}.post_attention_layernorm", config.layer_norm_eps),
                then(w.linear(f"{at}.mlp.dense_h_to_4h"), functional.gelu, w.linear(f"{at}.mlp.dense_4h_to_h")),
                scale=d_head**-0.5,
            )
        )
    return NaiveDecoder(
        w.state["gpt_neox.embed_in.weight"],
        layers,
        w.layer_norm("gpt_neox.final_layer_norm", config.layer_norm_eps),
        w.state["lm_head.weight"],
        rotary=rotate(d_head // 2, 10000.0),
        parallel=config.use_parallel_residual,
    )


def naive_llama_family(model: PreTrainedModel) -> NaiveDecoder:
    """Llama; Mistral: a window in every layer; Qwen2: biases on q, k, v; Qwen3: norms of q and k. Windows by layer."""
    config, w = model.config, Weights(model)
    d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    group = config.num_attention_heads // config.num_key_value_heads
    layers = []
    for number in range(config.num_hidden_layers):
        at = f"model.layers.{number}"
        out = w.state[f"{at}.self_attn.o_proj.weight"]
        if config.model_type == "mistral":
            window = config.sliding_window
        elif config.model_type == "llama":
            window = None
        else:
            window = config.sliding_window if config.layer_types[number] == "sliding_attention" else None
        heads = []
        for h in range(config.num_attention_heads):
            own, shared = slice(h * d_head, (h + 1) * d_head), slice(h // group * d_head, (h // group + 1) * d_head)
            read = {c: w.linear(f"{at}.self_attn.{c}_proj", own if c == "q" else shared) for c in "qkv"}
            if config.model_type == "qwen3":
                for c in "qk":
                    read[c] = then(read[c], w.rms_norm(f"{at}.self_attn.{c}_norm", config.rms_norm_eps))
            heads.append(NaiveHead(read, linear(out[:, own])))
        gate, up, down = (w.linear(f"{at}.mlp.{part}_proj") for part in ("gate", "up", "down"))
        layers.append(
            NaiveLayer(
                w.rms_norm(f"{at}.input_layernorm", config.rms_norm_eps),
                heads,
                w.bias(f"{at}.self_attn.o_proj"),
                w.rms_norm(f"{at}.post_attention_layernorm", config.rms_norm_eps),
                lambda x, gate=gate, up=up, down=down: down(functional.silu(gate(x)) * up(x)),
                scale=d_head**-0.5,
                window=window,
            )
        )
    return NaiveDecoder(
        w.state["model.embed_tokens.weight"],
        layers,
        w.rms_norm("model.norm", config.rms_norm_eps),
        w.state["lm_head.weight"],
        rotary=rotate(d_head, 10000.0),
    )


def naive_gpt2(model: PreTrainedModel) -> NaiveDecoder:
    """One map for q, k and v of all heads; weights are stored as [d_in, d_out]; positions are learned."""
    config, w = model.config, Weights(model)
    d_model, d_head = config.n_embd, config.n_embd // config.n_head
    layers = []
    for number in range(config.n_layer):
        at = f"transformer.h.{number}"
        heads = []
        for h in range(config.n_head):
            own = slice(h * d_head, (h + 1) * d_head)
            parts = {c: slice(i * d_model + own.start, i * d_model + own.stop) for i, c in enumerate("qkv")}
            read = {c: w.transposed(f"{at}.attn.c_attn", columns) for c, columns in parts.items()}
            heads.append(NaiveHead(read, linear(w.state[f"{at}.attn.c_proj.weight"][own].T)))
        layers.append(
            NaiveLayer(
                w.layer_norm(f"{at}.ln_1", config.layer_norm_epsilon),
                heads,
                w.bias(f"{at}.attn.c_proj"),
                w.layer_norm(f"{at}.ln_2", config.layer_norm_epsilon),
                then(w.transposed(f"{at}.mlp.c_fc"), gelu_new, w.transposed(f"{at}.mlp.c_proj")),
                scale=d_head**-0.5 / (number + 1 if config.scale_attn_by_inverse_layer_idx else 1),
            )
        )
    return NaiveDecoder(
        w.state["transformer.wte.weight"],
        layers,
        w.layer_norm("transformer.ln_f", config.layer_norm_epsilon),
        w.state["lm_head.weight"],
        positions=w.state["transformer.wpe.weight"],
    )


def naive_gpt_neo(model: PreTrainedModel) -> NaiveDecoder:
    """Attention is not scaled; in local layers a query sees ``window_size`` tokens; positions are learned."""
    config, w = model.config, Weights(model)
    d_head = config.hidden_size // config.num_heads
    layers = []
    for number, kind in enumerate(config.attention_layers):
        at = f"transformer.h.{number}"
        projections = f"{at}.attn.attention"
        layers.append(
            NaiveLayer(
                w.layer_norm(f"{at}.ln_1", config.layer_norm_epsilon),
                plain_heads(w, projections, "out_proj", config.num_heads, d_head),
                w.bias(f"{projections}.out_proj"),
                w.layer_norm(f"{at}.ln_2", config.layer_norm_epsilon),
                then(w.linear(f"{at}.mlp.c_fc"), gelu_new, w.linear(f"{at}.mlp.c_proj")),
                scale=1.0,
                window={"global": None, "local": config.window_size}[kind],
            )
        )
    return NaiveDecoder(
        w.state["transformer.wte.weight"],
        layers,
        w.layer_norm("transformer.ln_f", config.layer_norm_epsilon),
        w.state["lm_head.weight"],
        positions=w.state["transformer.wpe.weight"],
    )


def naive_opt(model: PreTrainedModel) -> NaiveDecoder:
    """Learned positions of which the first two are never used; ReLU; norms with the epsilon 1e-5."""
    config, w = model.config, Weights(model)
    d_head = config.hidden_size // config.num_attention_heads
    layers = []
    for number in range(config.num_hidden_layers):
        at = f"model.decoder.layers.{number}"
        layers.append(
            NaiveLayer(
                w.layer_norm(f"{at}.self_attn_layer_norm", 1e-5),
                plain_heads(w, f"{at}.self_attn", "out_proj", config.num_attention_heads, d_head),
                w.bias(f"{at}.self_attn.out_proj"),
                w.layer_norm(f"{at}.final_layer_norm", 1e-5),
                then(w.linear(f"{at}.fc1"), functional.relu, w.linear(f"{at}.fc2")),
                scale=d_head**-0.5,
            )
        )
    return NaiveDecoder(
        w.state["model.decoder.embed_tokens.weight"],
        layers,
        w.layer_norm("model.decoder.final_layer_norm", 1e-5),
        w.state["lm_head.weight"],
        positions=w.state["model.decoder.embed_positions.weight"][2:],
    )


def plain_heads(w: Weights, at: str, output: str, n_heads: int, d_head: int) -> list[NaiveHead]:
    """Heads with a map each for q, k and v, without groups."""
    heads = []
    for h in range(n_heads):
        own = slice(h * d_head, (h + 1) * d_head)
        read = {c: w.linear(f"{at}.{c}_proj", own) for c in "qkv"}
        heads.append(NaiveHead(read, linear(w.state[f"{at}.{output}.weight"][:, own])))
    return heads


def naive_of(model: PreTrainedModel) -> NaiveDecoder:
    definitions = {
        "gpt2": naive_gpt2,
        "gpt_neo": naive_gpt_neo,
        "gpt_neox": naive_gpt_neox,
        "llama": naive_llama_family,
        "mistral": naive_llama_family,
        "opt": naive_opt,
        "qwen2": naive_llama_family,
        "qwen3": naive_llama_family,
    }
    return definitions[model.config.model_type](model)
