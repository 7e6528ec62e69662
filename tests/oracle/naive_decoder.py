"""A slow decoder that materialises every edge, written from the architectures' definitions, one example at a time.

It shares no code with the engine: weights come from the state dict, positions, norms, attention and MLPs are spelled
out, and each reader sums up its own copies of what the writers before it wrote. ``carry`` says what an edge carries.
"""

from __future__ import annotations

import math
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
    slope: float = 0.0
    """What a score falls by for each token between query and key (ALiBi)."""


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
    rotates: bool = True
    """Whether queries and keys are rotated."""


@dataclass
class NaiveDecoder:
    embedding: Tensor
    """What ``input`` writes for each token, without its position."""
    layers: list[NaiveLayer]
    final_norm: Apply
    unembedding: Tensor
    positions: Tensor | None = None
    """Learned position embeddings [position, d_model], part of what ``input`` writes."""
    rotary: Apply = lambda x: x
    parallel: bool = False
    head_bias: Tensor | float = 0.0
    logit_scale: float = 1.0

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
                if layer.rotates:
                    q, k = self.rotary(q), self.rotary(k)
                back = torch.arange(len(q))[:, None] - torch.arange(len(q))
                weights = q @ k.T * layer.scale - head.slope * back
                hidden = (back < 0) | (back >= (layer.window or len(q)))
                outputs[name] = head.write(weights.masked_fill(hidden, -torch.inf).softmax(dim=-1) @ v)
            if self.parallel:
                mlp_input = read(f"m{number}")
                written |= outputs
                bias = bias + layer.attention_bias
            else:
                written |= outputs
                bias = bias + layer.attention_bias
                mlp_input = read(f"m{number}")
            written[f"m{number}"] = layer.mlp(layer.mlp_norm(mlp_input))
        logits = self.unembedding @ self.final_norm(read("logits"))[-1] + self.head_bias
        return logits * self.logit_scale, written


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


def rotate_pairs(n_dims: int, theta: float) -> Callable[[Tensor], Tensor]:
    """Rotary embedding that pairs each even dimension with the next one, not with one half of a vector further on."""
    order = torch.cat([torch.arange(0, n_dims, 2), torch.arange(1, n_dims, 2)])
    rotate_halves = rotate(n_dims, theta)

    def apply(x: Tensor) -> Tensor:
        rotated = x.clone()
        rotated[:, order] = rotate_halves(x[:, order])
        return rotated

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


@dataclass
class Parts:
    """What differs between decoders of blocks with an attention and an MLP; ``at`` is the name of a block."""

    norm: Callable[[str], Apply]
    """A norm by its name."""
    read: Callable[[str, str, int], Apply]
    """The map from the normed stream to a head's input, by the block, the input (q, k, v) and the head."""
    mlp: Callable[[str], Apply]
    blocks: str = "model.layers"
    embedding: str = "model.embed_tokens"
    attention_norm: str = "input_layernorm"
    output: str = "self_attn.o_proj"
    mlp_norm: str = "post_attention_layernorm"
    final_norm: str = "model.norm"
    multiplier: float = 1.0
    scale: float | None = None


def naive_of_parts(w: Weights, config, parts: Parts, **options) -> NaiveDecoder:
    n_heads = config.num_attention_heads
    layers = []
    for number in range(config.num_hidden_layers):
        at = f"{parts.blocks}.{number}"
        out = w.state[f"{at}.{parts.output}.weight"]
        d_head = out.shape[1] // n_heads
        heads = [
            NaiveHead(
                {c: parts.read(at, c, h) for c in "qkv"},
                linear(parts.multiplier * out[:, h * d_head : (h + 1) * d_head]),
            )
            for h in range(n_heads)
        ]
        mlp = parts.mlp(f"{at}.mlp")
        layers.append(
            NaiveLayer(
                parts.norm(f"{at}.{parts.attention_norm}"),
                heads,
                parts.multiplier * w.bias(f"{at}.{parts.output}"),
                parts.norm(f"{at}.{parts.mlp_norm}"),
                lambda x, mlp=mlp: parts.multiplier * mlp(x),
                scale=d_head**-0.5 if parts.scale is None else parts.scale,
            )
        )
    embedding = w.state[f"{parts.embedding}.weight"]
    return NaiveDecoder(embedding, layers, parts.norm(parts.final_norm), w.state["lm_head.weight"], **options)


def separate(w: Weights, config, groups: int, *after: tuple[str, Callable[[str, int], Apply]]) -> Callable:
    """Three maps to q, k and v; each group of heads shares keys and values. ``after``: what follows for an input."""
    n_heads = config.num_attention_heads

    def read(at: str, c: str, h: int) -> Apply:
        rows = len(w.state[f"{at}.q_proj.weight"]) // n_heads
        of = h if c == "q" else h // (n_heads // groups)
        steps = [make(at, of) for which, make in after if c in which]
        return then(w.linear(f"{at}.{c}_proj", slice(of * rows, (of + 1) * rows)), *steps)

    return lambda at, c, h: read(f"{at}.self_attn", c, h)


def fused_by_head(w: Weights, name: str, n_heads: int, groups: int) -> Callable:
    """One map: group by group the queries of the group's heads, its key, its value."""
    per_group = n_heads // groups

    def read(at: str, c: str, h: int) -> Apply:
        d_head = len(w.state[f"{at}.{name}.weight"]) // (n_heads + 2 * groups)
        within = {"q": h % per_group, "k": per_group, "v": per_group + 1}[c]
        first = (h // per_group * (per_group + 2) + within) * d_head
        return w.linear(f"{at}.{name}", slice(first, first + d_head))

    return read


def gated_mlps(w: Weights, activation: Apply) -> Callable[[str], Apply]:
    def mlp(at: str) -> Apply:
        gate, up, down = (w.linear(f"{at}.{part}_proj") for part in ("gate", "up", "down"))
        return lambda x: down(activation(gate(x)) * up(x))

    return mlp


def two_maps(w: Weights, first: str, activation: Apply, second: str) -> Callable[[str], Apply]:
    return lambda at: then(w.linear(f"{at}.{first}"), activation, w.linear(f"{at}.{second}"))


def naive_gemma1(model: PreTrainedModel) -> NaiveDecoder:
    """Embeddings times the root of their width; norms multiply by 1 + weight; gated by the approximated GELU."""
    config, w = model.config, Weights(model)
    parts = Parts(
        norm=lambda name: rms_norm(1 + w.state[f"{name}.weight"], config.rms_norm_eps),
        read=separate(w, config, config.num_key_value_heads),
        mlp=gated_mlps(w, gelu_new),
    )
    decoder = naive_of_parts(w, config, parts, rotary=rotate(config.head_dim, 10000.0))
    decoder.embedding = decoder.embedding * config.hidden_size**0.5
    return decoder


def naive_granite(model: PreTrainedModel) -> NaiveDecoder:
    """Factors for the embedding, for what a block writes, for the scores, and a divisor for the logits."""
    config, w = model.config, Weights(model)
    parts = Parts(
        norm=lambda name: w.rms_norm(name, config.rms_norm_eps),
        read=separate(w, config, config.num_key_value_heads),
        mlp=gated_mlps(w, functional.silu),
        multiplier=config.residual_multiplier,
        scale=config.attention_multiplier,
    )
    rotary = rotate(config.hidden_size // config.num_attention_heads, 10000.0)
    decoder = naive_of_parts(w, config, parts, rotary=rotary, logit_scale=1 / config.logits_scaling)
    decoder.embedding = decoder.embedding * config.embedding_multiplier
    return decoder


def naive_olmo(model: PreTrainedModel) -> NaiveDecoder:
    """Norms without gain and bias; queries, keys and values may be clipped."""
    config, w = model.config, Weights(model)
    bound = config.clip_qkv or torch.inf
    parts = Parts(
        norm=lambda name: layer_norm(None, None, 1e-5),
        read=separate(w, config, config.num_key_value_heads, ("qkv", lambda at, of: lambda x: x.clamp(-bound, bound))),
        mlp=gated_mlps(w, functional.silu),
    )
    return naive_of_parts(w, config, parts, rotary=rotate(config.hidden_size // config.num_attention_heads, 10000.0))


def naive_smollm3(model: PreTrainedModel) -> NaiveDecoder:
    """Some layers do not rotate."""
    config, w = model.config, Weights(model)
    parts = Parts(
        norm=lambda name: w.rms_norm(name, config.rms_norm_eps),
        read=separate(w, config, config.num_key_value_heads),
        mlp=gated_mlps(w, functional.silu),
    )
    theta = config.rope_parameters["rope_theta"]
    rotary = rotate(config.hidden_size // config.num_attention_heads, theta)
    decoder = naive_of_parts(w, config, parts, rotary=rotary)
    for layer, rotates in zip(decoder.layers, config.no_rope_layers, strict=True):
        layer.rotates = bool(rotates)
    return decoder


def naive_phi3(model: PreTrainedModel) -> NaiveDecoder:
    """One map for q, k and v: all queries, all keys, all values; one map for gate and up; windows; partial rotation."""
    config, w = model.config, Weights(model)
    n_heads, n_groups = config.num_attention_heads, config.num_key_value_heads
    d_head = config.hidden_size // n_heads

    def read(at: str, c: str, h: int) -> Apply:
        of = {"q": h, "k": n_heads + h // (n_heads // n_groups), "v": n_heads + n_groups + h // (n_heads // n_groups)}
        return w.linear(f"{at}.self_attn.qkv_proj", slice(of[c] * d_head, (of[c] + 1) * d_head))

    def mlp(at: str) -> Apply:
        width = config.intermediate_size
        gate, up = (w.linear(f"{at}.gate_up_proj", rows) for rows in (slice(0, width), slice(width, 2 * width)))
        return lambda x: w.linear(f"{at}.down_proj")(functional.silu(gate(x)) * up(x))

    parts = Parts(norm=lambda name: w.rms_norm(name, config.rms_norm_eps), read=read, mlp=mlp)
    n_dims = int(d_head * config.rope_parameters["partial_rotary_factor"])
    rotary = rotate(n_dims, 10000.0)
    if config.rope_parameters["rope_type"] == "longrope":
        rotary = rotate_stretched(n_dims, config)
    decoder = naive_of_parts(w, config, parts, rotary=rotary)
    for layer in decoder.layers:
        layer.window = config.sliding_window
    return decoder


def rotate_stretched(n_dims: int, config) -> Apply:
    """LongRoPE up to the original length: each angle has a divisor, and rotated vectors are longer."""
    rope = config.rope_parameters
    original = rope["original_max_position_embeddings"]
    longer = (1 + math.log(config.max_position_embeddings / original) / math.log(original)) ** 0.5

    def apply(x: Tensor) -> Tensor:
        rotated = torch.empty_like(x)
        for i, divisor in enumerate(rope["short_factor"]):
            angles = torch.arange(len(x)) * 10000.0 ** (-2 * i / n_dims) / divisor
            first, second = x[:, i], x[:, i + n_dims // 2]
            rotated[:, i] = longer * (first * angles.cos() - second * angles.sin())
            rotated[:, i + n_dims // 2] = longer * (second * angles.cos() + first * angles.sin())
        return rotated

    return apply


def naive_phi(model: PreTrainedModel) -> NaiveDecoder:
    """Attention and MLP read one norm; half of a head rotates; queries and keys may be normed; the head has a bias."""
    config, w = model.config, Weights(model)
    d_head = config.hidden_size // config.num_attention_heads
    norms = [
        ("qk"[i], lambda at, of, c="qk"[i]: w.layer_norm(f"{at}.{c}_layernorm", config.layer_norm_eps)) for i in (0, 1)
    ]
    parts = Parts(
        norm=lambda name: w.layer_norm(name, config.layer_norm_eps),
        read=separate(w, config, config.num_key_value_heads, *(norms if config.qk_layernorm else [])),
        mlp=two_maps(w, "fc1", gelu_new, "fc2"),
        output="self_attn.dense",
        mlp_norm="input_layernorm",
        final_norm="model.final_layernorm",
    )
    return naive_of_parts(
        w, config, parts, rotary=rotate(d_head // 2, 10000.0), parallel=True, head_bias=w.state["lm_head.bias"]
    )


def naive_gptj(model: PreTrainedModel) -> NaiveDecoder:
    """Attention and MLP read one norm; neighbouring dimensions rotate; the head has a bias."""
    config, w = model.config, Weights(model)
    d_head = config.n_embd // config.n_head
    parts = Parts(
        norm=lambda name: w.layer_norm(name, config.layer_norm_epsilon),
        read=lambda at, c, h: w.linear(f"{at}.attn.{c}_proj", slice(h * d_head, (h + 1) * d_head)),
        mlp=two_maps(w, "fc_in", gelu_new, "fc_out"),
        blocks="transformer.h",
        embedding="transformer.wte",
        attention_norm="ln_1",
        output="attn.out_proj",
        mlp_norm="ln_1",
        final_norm="transformer.ln_f",
    )
    bias = w.state["lm_head.bias"]
    return naive_of_parts(
        w, config, parts, rotary=rotate_pairs(config.rotary_dim, 10000.0), parallel=True, head_bias=bias
    )


def naive_stablelm(model: PreTrainedModel) -> NaiveDecoder:
    """A quarter of a head rotates; each head may have norms of its own for queries and keys."""
    config, w = model.config, Weights(model)
    d_head = config.hidden_size // config.num_attention_heads
    norms = [
        (c, lambda at, of, c=c: w.layer_norm(f"{at}.{c}_layernorm.norms.{of}", config.layer_norm_eps)) for c in "qk"
    ]
    parts = Parts(
        norm=lambda name: w.layer_norm(name, config.layer_norm_eps),
        read=separate(w, config, config.num_key_value_heads, *(norms if config.qk_layernorm else [])),
        mlp=gated_mlps(w, functional.silu),
        mlp_norm="input_layernorm" if config.use_parallel_residual else "post_attention_layernorm",
    )
    n_dims = int(d_head * config.rope_parameters["partial_rotary_factor"])
    return naive_of_parts(w, config, parts, rotary=rotate(n_dims, 10000.0), parallel=config.use_parallel_residual)


def naive_falcon(model: PreTrainedModel) -> NaiveDecoder:
    """One or two norms before attention and MLP side by side, or two in a row; several forms of one map for q, k, v."""
    config, w = model.config, Weights(model)
    n_heads, new = config.num_attention_heads, config.new_decoder_architecture
    groups = config.num_kv_heads if new else 1 if config.multi_query else n_heads
    read = fused_by_head(w, "self_attention.query_key_value", n_heads, groups)
    if not config.parallel_attn:
        norms = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    elif "transformer.h.0.ln_mlp.weight" in w.state:
        norms = {"attention_norm": "ln_attn", "mlp_norm": "ln_mlp"}
    else:
        norms = {"attention_norm": "input_layernorm", "mlp_norm": "input_layernorm"}
    parts = Parts(
        norm=lambda name: w.layer_norm(name, config.layer_norm_epsilon),
        read=read,
        mlp=two_maps(w, "dense_h_to_4h", functional.gelu, "dense_4h_to_h"),
        blocks="transformer.h",
        embedding="transformer.word_embeddings",
        output="self_attention.dense",
        final_norm="transformer.ln_f",
        **norms,
    )
    rotary = rotate(config.hidden_size // n_heads, 10000.0)
    return naive_of_parts(w, config, parts, rotary=rotary, parallel=new or config.parallel_attn)


def naive_bloom(model: PreTrainedModel) -> NaiveDecoder:
    """A norm makes the stream of the embeddings; scores fall with distance, by head."""
    config, w = model.config, Weights(model)
    parts = Parts(
        norm=lambda name: w.layer_norm(name, config.layer_norm_epsilon),
        read=fused_by_head(w, "self_attention.query_key_value", config.n_head, config.n_head),
        mlp=two_maps(w, "dense_h_to_4h", gelu_new, "dense_4h_to_h"),
        blocks="transformer.h",
        embedding="transformer.word_embeddings",
        output="self_attention.dense",
        final_norm="transformer.ln_f",
    )
    decoder = naive_of_parts(w, config, parts)
    decoder.embedding = parts.norm("transformer.word_embeddings_layernorm")(decoder.embedding)
    return with_slopes(decoder)


def naive_mpt(model: PreTrainedModel) -> NaiveDecoder:
    """One map for q, k and v: all queries, all keys, all values, clipped or not; scores fall with distance, by head."""
    config, w = model.config, Weights(model)
    d_model, d_head = config.d_model, config.d_model // config.n_heads
    bound = config.attn_config.clip_qkv or torch.inf

    def read(at: str, c: str, h: int) -> Apply:
        first = "qkv".index(c) * d_model + h * d_head
        return then(w.linear(f"{at}.attn.Wqkv", slice(first, first + d_head)), lambda x: x.clamp(-bound, bound))

    parts = Parts(
        norm=lambda name: w.layer_norm(name, config.layer_norm_epsilon),
        read=read,
        mlp=lambda at: two_maps(w, "up_proj", functional.gelu, "down_proj")(at.removesuffix("mlp") + "ffn"),
        blocks="transformer.blocks",
        embedding="transformer.wte",
        attention_norm="norm_1",
        output="attn.out_proj",
        mlp_norm="norm_2",
        final_norm="transformer.norm_f",
        scale=config.attn_config.softmax_scale,
    )
    return with_slopes(naive_of_parts(w, config, parts))


def with_slopes(decoder: NaiveDecoder) -> NaiveDecoder:
    """The slopes of ALiBi for a power of two of heads: 2 to the -8/n, -16/n, ..."""
    for layer in decoder.layers:
        for number, head in enumerate(layer.heads, start=1):
            head.slope = 2 ** (-8 * number / len(layer.heads))
    return decoder


def naive_cohere(model: PreTrainedModel) -> NaiveDecoder:
    """Attention and MLP read one norm, which has no bias; neighbouring dimensions rotate; logits have a factor."""
    config, w = model.config, Weights(model)

    def normed(c: str) -> Callable[[str, int], Apply]:
        return lambda at, of: layer_norm(w.state[f"{at}.{c}_norm.weight"][of], None, config.layer_norm_eps)

    norms = [(c, normed(c)) for c in "qk"] if config.use_qk_norm else []
    parts = Parts(
        norm=lambda name: w.layer_norm(name, config.layer_norm_eps),
        read=separate(w, config, config.num_key_value_heads, *norms),
        mlp=gated_mlps(w, functional.silu),
        mlp_norm="input_layernorm",
    )
    rotary = rotate_pairs(config.hidden_size // config.num_attention_heads, config.rope_parameters["rope_theta"])
    return naive_of_parts(w, config, parts, rotary=rotary, parallel=True, logit_scale=config.logit_scale)


def naive_starcoder2(model: PreTrainedModel) -> NaiveDecoder:
    """LayerNorms, biases, and a window in every layer."""
    config, w = model.config, Weights(model)
    parts = Parts(
        norm=lambda name: w.layer_norm(name, config.norm_epsilon),
        read=separate(w, config, config.num_key_value_heads),
        mlp=two_maps(w, "c_fc", gelu_new, "c_proj"),
    )
    rotary = rotate(config.hidden_size // config.num_attention_heads, 10000.0)
    decoder = naive_of_parts(w, config, parts, rotary=rotary)
    for layer in decoder.layers:
        layer.window = config.sliding_window
    return decoder


def naive_gpt_bigcode(model: PreTrainedModel) -> NaiveDecoder:
    """As GPT-2, but all heads may share one key and value."""
    config, w = model.config, Weights(model)
    parts = Parts(
        norm=lambda name: w.layer_norm(name, config.layer_norm_epsilon),
        read=fused_by_head(w, "attn.c_attn", config.n_head, 1 if config.multi_query else config.n_head),
        mlp=two_maps(w, "c_fc", gelu_new, "c_proj"),
        blocks="transformer.h",
        embedding="transformer.wte",
        attention_norm="ln_1",
        output="attn.c_proj",
        mlp_norm="ln_2",
        final_norm="transformer.ln_f",
    )
    return naive_of_parts(w, config, parts, positions=w.state["transformer.wpe.weight"])


def naive_of(model: PreTrainedModel) -> NaiveDecoder:
    definitions = {
        "bloom": naive_bloom,
        "cohere": naive_cohere,
        "falcon": naive_falcon,
        "gemma": naive_gemma1,
        "gpt_bigcode": naive_gpt_bigcode,
        "gptj": naive_gptj,
        "granite": naive_granite,
        "mpt": naive_mpt,
        "olmo": naive_olmo,
        "phi": naive_phi,
        "phi3": naive_phi3,
        "smollm3": naive_smollm3,
        "stablelm": naive_stablelm,
        "starcoder2": naive_starcoder2,
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
