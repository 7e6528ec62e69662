"""The description of each architecture, and the refusal of what is not described."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from naive_decoder import naive_of, whole
from random_models import MODELS, MODELS_AND_ATTENTIONS, ROUNDING, small
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CodeGenConfig,
    CohereConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTBigCodeConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    Olmo2Config,
    OPTConfig,
    PretrainedConfig,
    Qwen2MoeConfig,
    StableLmConfig,
    XGLMConfig,
)

from circuitdrift.circuits.gradients import constants_of_projections, project_standardised
from circuitdrift.circuits.selection import edge_count
from circuitdrift.decoder.anatomy import AnatomyError, anatomy_of
from circuitdrift.decoder.architectures import MODEL_TYPES
from circuitdrift.decoder.tracing import (
    Prefix,
    check_anatomy,
    hooked,
    one_key_per_query_head,
    run_prefix,
    trace,
    written_by_heads,
)

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]

every_model = pytest.mark.parametrize("name", list(MODELS))


@every_model
def test_described_models_pass_the_check_in_every_precision(name: str) -> None:
    model = MODELS[name]()
    decoder = naive_of(model)
    expected, _ = decoder.run(decoder.embedding[PROMPT], whole)
    torch.testing.assert_close(model(torch.tensor([PROMPT])).logits[0, -1], expected, rtol=ROUNDING, atol=ROUNDING)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        check_anatomy(anatomy_of(model.to(dtype)), torch.tensor([PROMPT]))


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith(("olmo2", "olmo3"))])
def test_outputs_of_projections_without_their_constants_are_what_weights_make_of_the_standardised_input(
    name: str,
) -> None:
    """The slow twin multiplies with the heads' slices of the weight; the outputs are read through views by head."""
    anatomy = anatomy_of(MODELS[name]())
    seen: dict[nn.Module, Tensor] = {}
    read: dict[nn.Module, Tensor] = {}
    modules = {p.module for block in anatomy.blocks for p in block.projections.values()}
    norms = [block.attention_norm.module for block in anatomy.blocks]
    with (
        torch.no_grad(),
        one_key_per_query_head(anatomy),
        hooked(
            before=[(module, lambda module, args: read.update({module: args[0]})) for module in norms],
            after=[(module, lambda module, args, output: seen.update({module: output})) for module in modules],
        ),
    ):
        anatomy.model(torch.tensor([PROMPT]))
    for block in anatomy.blocks:
        projections = block.projections.values()
        outputs = torch.cat([projection.by_head(seen[projection.module]) for projection in projections], dim=-2)
        weight = torch.cat([projection.weight() for projection in projections])
        slow = project_standardised(block.attention_norm, weight, read[block.attention_norm.module])
        assert_close(outputs - constants_of_projections(block, weight), slow)


def test_every_model_is_there_tied_and_untied() -> None:
    found = {(type(model).__name__, model.config.tie_word_embeddings) for model in (make() for make in MODELS.values())}
    assert found == {(name, tied) for name, _ in found for tied in (True, False)}


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=10 * ROUNDING, atol=10 * ROUNDING)


@every_model
def test_a_trace_holds_what_the_slow_decoder_writes(name: str) -> None:
    model = MODELS[name]()
    anatomy, decoder = anatomy_of(model), naive_of(model)
    _, written = decoder.run(decoder.embedding[PROMPT], whole)
    with one_key_per_query_head(anatomy):
        traced = trace(anatomy, anatomy.embedding(torch.tensor([PROMPT])), Prefix(()), n_answer=1)
    assert_close(traced.embeddings[0], written["input"])
    for layer, block in enumerate(anatomy.blocks):
        heads = written_by_heads(block, traced.head_values[layer], anatomy.graph.n_heads)
        for h in range(anatomy.graph.n_heads):
            assert_close(heads[h, 0], written[f"a{layer}.h{h}"])
        assert_close(traced.mlp_outputs[layer][0], written[f"m{layer}"])


@pytest.mark.parametrize(("name", "attention"), MODELS_AND_ATTENTIONS)
@pytest.mark.parametrize("n_shared", [1, 5, 7])
def test_a_prefix_changes_nothing(name: str, attention: str, n_shared: int) -> None:
    """Also one that is longer than the windows of two and three tokens; several runs of a batch follow one prefix."""
    model = MODELS[name]()
    model.set_attn_implementation(attention)
    anatomy = anatomy_of(model)
    ids = torch.tensor([PROMPT, PROMPT[::-1]])
    embeddings = anatomy.embedding(ids)
    with one_key_per_query_head(anatomy):
        whole_prompt = trace(anatomy, embeddings, Prefix(()), n_answer=1)
        prefix = run_prefix(anatomy, ids[:, :n_shared])
        rest = trace(anatomy, embeddings[:, n_shared:].repeat(3, 1, 1), prefix, n_answer=1)
    torch.testing.assert_close(whole_prompt.logits[:, -1], model(ids).logits[:, -1], rtol=ROUNDING, atol=ROUNDING)
    for run in range(3):
        part = rest.rows(slice(2 * run, 2 * run + 2))
        assert_close(part.logits, whole_prompt.logits)
        assert_close(part.embeddings, whole_prompt.embeddings[:, n_shared:])
        assert_close(part.final_input, whole_prompt.final_input[:, n_shared:])
        for layer in range(anatomy.graph.n_layers):
            assert_close(part.head_values[layer], whole_prompt.head_values[layer][:, n_shared:])
            assert_close(part.mlp_inputs[layer], whole_prompt.mlp_inputs[layer][:, n_shared:])


@every_model
def test_a_stream_that_something_else_writes_to_is_found(name: str) -> None:
    model = MODELS[name]()
    layers = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
    layers[1].register_forward_pre_hook(lambda module, args: (args[0] + 0.01, *args[1:]))
    with pytest.raises(AnatomyError, match="differ from the residual stream by"):
        check_anatomy(anatomy_of(model), torch.tensor([PROMPT]))


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("config", [CodeGenConfig, XGLMConfig])
def test_unknown_architectures_are_refused_by_name(config: type[PretrainedConfig]) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config(num_hidden_layers=1)).eval()
    with pytest.raises(AnatomyError, match=rf"{type(model).__name__} \(model_type '{config.model_type}'\).*use one of"):
        anatomy_of(model)
    with pytest.raises(AnatomyError, match=", ".join(sorted(MODEL_TYPES))):
        anatomy_of(model)


@pytest.mark.parametrize("config", [MixtralConfig, Qwen2MoeConfig])
def test_mixtures_of_experts_are_refused_with_the_reason(config: type[PretrainedConfig]) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config(num_hidden_layers=1)).eval()
    with pytest.raises(AnatomyError, match=rf"{type(model).__name__} .*mixtures of experts: .* use a dense model"):
        anatomy_of(model)


def test_a_class_derived_from_a_supported_one_is_another_architecture() -> None:
    class Derived(LlamaForCausalLM):
        pass

    with torch.device("meta"):
        model = Derived(LlamaConfig(num_hidden_layers=1)).eval()
    with pytest.raises(AnatomyError, match="Derived"):
        anatomy_of(model)


@pytest.mark.parametrize(
    ("config", "options", "reason"),
    [
        (OPTConfig, {"do_layer_norm_before": False}, "not the sum of the nodes' outputs; use a pre-norm OPT"),
        (OPTConfig, {"word_embed_proj_dim": 8}, "projections to another width .*; use an OPT with one width"),
        (OPTConfig, {"_remove_final_layer_norm": True}, "lacks the norm before the head .*; use the checkpoint"),
        (GPT2Config, {"add_cross_attention": True}, "cross-attention .*; use a model without cross-attention"),
        (Gemma2Config, {"attention_bias": True, "head_dim": 8}, "neither the output of a head nor a constant"),
        (Olmo2Config, {"attention_bias": True}, "neither the output of a head nor a constant; use a model without"),
        (Gemma3TextConfig, {"use_bidirectional_attention": True}, "see later ones .*; use a model with causal"),
        (GPTBigCodeConfig, {"add_cross_attention": True, "multi_query": False}, "cross-attention .*; use a model"),
        (
            BloomConfig,
            {"apply_residual_connection_post_layernorm": True},
            "begins anew .*; use a BLOOM without",
        ),
        (BloomConfig, {"slow_but_exact": True, "pretraining_tp": 2}, "which no hook sees; set slow_but_exact to false"),
        (CohereConfig, {"use_qk_norm": True, "num_key_value_heads": 1}, "norms of keys .*; use a model without use_qk"),
        (FalconConfig, {"alibi": True}, "once with fused attention and twice without, .*; use a Falcon with rotary"),
        (GemmaConfig, {"use_bidirectional_attention": True}, "see later ones .*; use a model with causal attention"),
        (
            StableLmConfig,
            {"qk_layernorm": True, "num_key_value_heads": 1},
            "no head can .*; use a model without qk",
        ),
    ],
)
def test_options_that_break_the_picture_are_refused(
    config: type[PretrainedConfig], options: dict[str, Any], reason: str
) -> None:
    model = small(config, 2, **options)
    with pytest.raises(AnatomyError, match=rf"{type(model).__name__} .*{reason}"):
        anatomy_of(model)


def test_training_mode_is_refused() -> None:
    with pytest.raises(AnatomyError, match=r"call \.eval"):
        anatomy_of(MODELS["llama tied"]().train())


# ------------------------------------------------------------------------------------------------ sizes


def pythia(width: int, n_layers: int, n_heads: int) -> PretrainedConfig:
    sizes = {"hidden_size": width, "num_hidden_layers": n_layers, "num_attention_heads": n_heads}
    return GPTNeoXConfig(**sizes, intermediate_size=4 * width, use_parallel_residual=True)


GPT_NEO_2_7B = GPTNeoConfig(hidden_size=2560, num_layers=32, num_heads=20, attention_types=[[["global", "local"], 16]])
OPT_6_7B = OPTConfig(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, ffn_dim=16384)


@pytest.mark.parametrize(
    ("config", "nodes", "edges", "five_percent"),
    [
        (pythia(2048, 24, 16), 410, 231_493, 11_574),
        (GPT_NEO_2_7B, 674, 638_641, 31_932),
        (OPT_6_7B, 1_058, 1_592_881, 79_644),
        (pythia(512, 6, 8), 56, 3_580, 179),
        (pythia(768, 12, 12), 158, 32_347, 1_617),
        (GPT2Config(), 158, 32_491, 1_624),
    ],
    ids=["pythia-1.4b", "gpt-neo-2.7B", "opt-6.7b", "pythia-70m", "pythia-160m", "gpt2"],
)
def test_graphs_have_the_sizes_of_the_paper(
    config: PretrainedConfig, nodes: int, edges: int, five_percent: int
) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config).eval()
    anatomy = anatomy_of(model)
    graph = anatomy.graph
    assert (len(graph.nodes), graph.n_edges) == (nodes, edges)
    assert int(graph.edge_mask.sum()) == edges
    assert edge_count(graph, 0.05) == five_percent
    assert anatomy.d_head == config.hidden_size // config.num_attention_heads
