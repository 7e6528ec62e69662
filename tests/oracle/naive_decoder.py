"""A slow decoder that materialises every edge, written from the architectures' definitions, one example at a time.

It shares no code with the engine: weights come from the state dict, positions, norms, attention and MLPs are spelled
out, and each reader sums up its own copies of what the writers before it wrote. ``carry`` says what an edge carries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

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
    cap: float = torch.inf
    """What a tanh bounds the scores by."""
    rotary: Apply | None = None
    """The layer's own rotary embedding."""
    together: dict[str, Callable[[list[Tensor]], list[Tensor]]] = field(default_factory=dict)
    """What happens to the queries (q) or keys (k) of all heads together."""
    share: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda outputs: outputs
    """What each head writes, from the output projection's parts of all heads."""


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
    cap: float = torch.inf
    """What a tanh bounds the logits by."""

    def run(self, embeddings: Tensor, carry: Carry) -> tuple[Tensor, dict[str, Tensor]]:
        """Token embeddings [position, d_model] -> logits at the last position, and what each writer wrote."""
        written = {"input": embeddings if self.positions is None else embeddings + self.positions[: len(embeddings)]}
        bias = torch.zeros_like(embeddings[0])

        def read(reader: str) -> Tensor:
            return sum(carry(writer, reader, output) for writer, output in written.items()) + bias

        for number, layer in enumerate(self.layers):
            outputs = {}
            projected = {}
            for c in "qkv":
                names = [f"a{number}.h{h}<{c}>" for h in range(len(layer.heads))]
                vectors = [h.read[c](layer.attention_norm(read(n))) for h, n in zip(layer.heads, names, strict=True)]
                projected[c] = layer.together.get(c, lambda vectors: vectors)(vectors)
            rotary = layer.rotary or self.rotary
            for h, head in enumerate(layer.heads):
                name = f"a{number}.h{h}"
                q, k, v = (projected[c][h] for c in "qkv")
                weights = capped(rotary(q) @ rotary(k).T * layer.scale, layer.cap)
                back = torch.arange(len(q))[:, None] - torch.arange(len(q))
                hidden = (back < 0) | (back >= (layer.window or len(q)))
                outputs[name] = head.write(weights.masked_fill(hidden, -torch.inf).softmax(dim=-1) @ v)
            outputs = layer.share(outputs)
            if self.parallel:
                mlp_input = read(f"m{number}")
                written |= outputs
                bias = bias + layer.attention_bias
            else:
                written |= outputs
                bias = bias + layer.attention_bias
                mlp_input = read(f"m{number}")
            written[f"m{number}"] = layer.mlp(layer.mlp_norm(mlp_input))
        return capped(self.unembedding @ self.final_norm(read("logits"))[-1], self.cap), written


def whole(writer: str, reader: str, output: Tensor) -> Tensor:
    """Every edge carries what its writer wrote: the plain model."""
    return output


def capped(x: Tensor, bound: float) -> Tensor:
    return x if bound == torch.inf else bound * torch.tanh(x / bound)


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


def naive_gemma(model: PreTrainedModel) -> NaiveDecoder:
    """Gemma 2 and 3: gains are 1 + weight, embeddings are scaled, norms follow the heads' sum and the MLP."""
    config, w = model.config, Weights(model)
    third = config.model_type == "gemma3_text"
    thetas = {"full_attention": 70000.0, "sliding_attention": 10000.0} if third else {}
    group = config.num_attention_heads // config.num_key_value_heads

    def gain(name: str) -> Tensor:
        return 1 + w.state[f"{name}.weight"]

    def norm(name: str) -> Apply:
        return rms_norm(gain(name), config.rms_norm_eps)

    layers = []
    for number, kind in enumerate(config.layer_types):
        at = f"model.layers.{number}"
        heads = grouped_heads(w, f"{at}.self_attn", config.num_attention_heads, group, config.head_dim)
        if third:
            for head in heads:
                head.read |= {c: then(head.read[c], norm(f"{at}.self_attn.{c}_norm")) for c in "qk"}
        mlp = gated(w, f"{at}.mlp", gelu_new)
        layers.append(
            NaiveLayer(
                norm(f"{at}.input_layernorm"),
                heads,
                torch.zeros(()),
                norm(f"{at}.pre_feedforward_layernorm"),
                then(mlp, norm(f"{at}.post_feedforward_layernorm")),
                scale=config.query_pre_attn_scalar**-0.5,
                window=config.sliding_window if kind == "sliding_attention" else None,
                cap=torch.inf if third else config.attn_logit_softcapping or torch.inf,
                rotary=rotate(config.head_dim, thetas.get(kind, 10000.0)),
                share=share_of_norm(gain(f"{at}.post_attention_layernorm"), config.rms_norm_eps),
            )
        )
    return NaiveDecoder(
        w.state["model.embed_tokens.weight"] * config.hidden_size**0.5,
        layers,
        norm("model.norm"),
        w.state["lm_head.weight"],
        cap=config.final_logit_softcapping or torch.inf,
    )


def naive_olmo2(model: PreTrainedModel) -> NaiveDecoder:
    """OLMo 2 and 3: no norms before attention and MLP but norms after them; queries and keys of all heads are normed
    together."""
    config, w = model.config, Weights(model)
    n_heads, d_head = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    group = n_heads // config.num_key_value_heads
    kinds = getattr(config, "layer_types", ["full_attention"] * config.num_hidden_layers)
    layers = []
    for number, kind in enumerate(kinds):
        at = f"model.layers.{number}"
        gains = {c: w.state[f"{at}.self_attn.{c}_norm.weight"].view(-1, d_head) for c in "qk"}
        gains["k"] = torch.stack([gains["k"][h // group] for h in range(n_heads)])
        layers.append(
            NaiveLayer(
                lambda x: x,
                grouped_heads(w, f"{at}.self_attn", n_heads, group, d_head),
                torch.zeros(()),
                lambda x: x,
                then(
                    gated(w, f"{at}.mlp", functional.silu),
                    w.rms_norm(f"{at}.post_feedforward_layernorm", config.rms_norm_eps),
                ),
                scale=d_head**-0.5,
                window=config.sliding_window if kind == "sliding_attention" else None,
                together={c: norm_of_all(gains[c], config.rms_norm_eps) for c in "qk"},
                share=share_of_norm(w.state[f"{at}.post_attention_layernorm.weight"], config.rms_norm_eps),
            )
        )
    return NaiveDecoder(
        w.state["model.embed_tokens.weight"],
        layers,
        w.rms_norm("model.norm", config.rms_norm_eps),
        w.state["lm_head.weight"],
        rotary=rotate(d_head, 500000.0 if config.model_type == "olmo3" else 10000.0),
    )


def share_of_norm(gain: Tensor, epsilon: float) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Each head's part of an RMSNorm of their sum: its own output over the scale of the sum, times the gain."""

    def apply(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        scale = (sum(outputs.values()).pow(2).mean(-1, keepdim=True) + epsilon).sqrt()
        return {name: output / scale * gain for name, output in outputs.items()}

    return apply


def norm_of_all(gains: Tensor, epsilon: float) -> Callable[[list[Tensor]], list[Tensor]]:
    """An RMSNorm over the vectors of all heads side by side; gains [head, d_head]."""

    def apply(vectors: list[Tensor]) -> list[Tensor]:
        scale = (torch.cat(vectors, dim=-1).pow(2).mean(-1, keepdim=True) + epsilon).sqrt()
        return [vector / scale * gain for vector, gain in zip(vectors, gains, strict=True)]

    return apply


def grouped_heads(w: Weights, at: str, n_heads: int, group: int, d_head: int) -> list[NaiveHead]:
    """Heads with a map each for q, k and v, of which ``group`` heads share those to k and v."""
    heads = []
    for h in range(n_heads):
        own, shared = (slice(i * d_head, (i + 1) * d_head) for i in (h, h // group))
        read = {c: w.linear(f"{at}.{c}_proj", own if c == "q" else shared) for c in "qkv"}
        heads.append(NaiveHead(read, linear(w.state[f"{at}.o_proj.weight"][:, own])))
    return heads


def gated(w: Weights, at: str, activation: Apply) -> Apply:
    gate, up, down = (w.linear(f"{at}.{part}_proj") for part in ("gate", "up", "down"))
    return lambda x: down(activation(gate(x)) * up(x))


def naive_of(model: PreTrainedModel) -> NaiveDecoder:
    definitions = {
        "gemma2": naive_gemma,
        "gemma3_text": naive_gemma,
        "gpt2": naive_gpt2,
        "gpt_neo": naive_gpt_neo,
        "gpt_neox": naive_gpt_neox,
        "llama": naive_llama_family,
        "mistral": naive_llama_family,
        "olmo2": naive_olmo2,
        "olmo3": naive_olmo2,
        "opt": naive_opt,
        "qwen2": naive_llama_family,
        "qwen3": naive_llama_family,
    }
    return definitions[model.config.model_type](model)
