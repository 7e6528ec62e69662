"""Files and folders that a config names and that cannot be used: each stops Snakemake before any job."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from refusals import assert_refused, call, case, write

LLAMA = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
OPT = {**LLAMA, "model_type": "opt"}
HEADER = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + bytes(8)
INDEX = json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}})


def usable_folder(folder: Path) -> None:
    """The files of a model as far as they are looked at before any job."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "tokenizer.json").write_text("{}")


def config(**settings):
    return {"config.json": json.dumps({**LLAMA, **settings})}


FOLDERS = [
    case("config that is no JSON", {"config.json": "{"}, ["config.json", "not readable", "save_pretrained"]),
    case("config that is a list", {"config.json": "[]"}, ["config.json", "not readable"]),
    case("config that is no text", {"config.json": b"\xff\xfe"}, ["config.json", "not readable"]),
    case("config nested too deeply", {"config.json": "[" * 100_000}, ["config.json", "not readable"]),
    case("no model type", {"config.json": "{}"}, ["config.json", "no model_type"]),
    case("model type that is a number", config(model_type=3), ["config.json", "no model_type"]),
    case(
        "unsupported architecture",
        config(model_type="codegen"),
        ["'codegen'", "no circuits of this architecture", "llama"],
    ),
    case(
        "OPT-350m",
        {"config.json": json.dumps({**OPT, "do_layer_norm_before": False})},
        ["do_layer_norm_before", "use a pre-norm OPT"],
    ),
    case(
        "OPT of two widths",
        {"config.json": json.dumps({**OPT, "word_embed_proj_dim": 8})},
        ["word_embed_proj_dim", "one width"],
    ),
    case(
        "OPT without its norm",
        {"config.json": json.dumps({**OPT, "_remove_final_layer_norm": True})},
        ["_remove_final_layer_norm"],
    ),
    case("cross-attention", config(model_type="gpt2", add_cross_attention=True), ["add_cross_attention"]),
    case("quantised", config(quantization_config={"bits": 4}), ["quantised", "unquantised"]),
    case("no config", {"config.json": None}, ["no config.json", "Hugging Face layout"]),
    case(
        "folder above the model",
        {"config.json": None, "deeper/config.json": "{}"},
        ["no config.json", "did you mean its folder 'deeper'?"],
    ),
    case("adapter", {"config.json": None, "adapter_config.json": "{}"}, ["adapter", "not a model", "merge_and_unload"]),
    case("pickled weights", {"model.safetensors": None, "pytorch_model.bin": b""}, ["pickled", "save_pretrained"]),
    case("no weights", {"model.safetensors": None}, ["no *.safetensors", "no weights"]),
    case("missing shard", {"model.safetensors.index.json": INDEX}, ["lacks model-2.safetensors", "index"]),
    case("unreadable index", {"model.safetensors.index.json": "{}"}, ["index.json", "not readable"]),
    case(
        "weights cut off",
        {"model.safetensors": WEIGHTS[:-1]},
        ["model.safetensors", "bytes, its header says", "copy it again"],
    ),
    case("weights cut in the header", {"model.safetensors": WEIGHTS[:20]}, ["model.safetensors", "cut off"]),
    case("weights that are empty", {"model.safetensors": b""}, ["model.safetensors", "cut off"]),
    case(
        "weights that are text",
        {"model.safetensors": b"version https://git-lfs.github.com/spec/v1"},
        ["model.safetensors", "no safetensors file"],
    ),
    case(
        "weights with a broken header",
        {"model.safetensors": WEIGHTS.replace(b"data_offsets", b"data_offset ")},
        ["no readable header"],
    ),
    case("no tokenizer", {"tokenizer.json": None}, ["none of tokenizer.json"]),
]


@pytest.mark.parametrize(("changes", "words"), FOLDERS)
def test_model_folders(tmp_path, changes, words):
    folder = tmp_path / "model"
    usable_folder(folder)
    for name, content in changes.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    study = write(tmp_path, {"models": {"mine": {"source": "local", "path": "model"}}})
    assert_refused(tmp_path, study, ["models.mine.path", str(folder), *words])


PATHS = [
    case("nothing there", "absent", ["absent: no such folder", "relative to the config file"]),
    case("a home folder", "~/model", ["no such folder", "write ~ out"]),
    case("a file", "study.yaml", ["study.yaml: no such folder"]),
    case("the folder of the config", "", ["no config.json"]),
    case("a number", 3, ["models.mine.path", "not a path"]),
]


@pytest.mark.parametrize(("path", "words"), PATHS)
def test_paths_of_models(tmp_path, path, words):
    study = write(tmp_path, {"models": {"mine": {"source": "local", "path": path}}})
    assert_refused(tmp_path, study, ["models.mine.path", *words])


def test_what_a_method_asks_of_a_local_model_is_checked_by_its_config(tmp_path):
    usable_folder(tmp_path / "model")
    models = {"mine": {"source": "local", "path": "model"}}
    assert call(write(tmp_path, {"models": models}), tmp_path).code == 0
    study = write(tmp_path, {"models": models, "methods": {"lora": {"kind": "lora", "rank": 17}}})
    assert_refused(tmp_path, study, ["methods.lora.rank: 17 exceeds the width 16 of model 'mine'"])


ROWS = [f"a b{i},a c{i}, d{i}" for i in range(12)]
SPLITS = ["train"] * 4 + ["circuit"] * 4 + ["test"] * 4


ROWS_WITHOUT_ANSWERS = [row.rpartition(",")[0] for row in ROWS]


def prompts(*rows: str, header: str = "clean,corrupted,answer") -> bytes:
    return "\n".join([header, *rows]).encode()


def in_splits(*splits: str) -> bytes:
    return prompts(
        *(f"{row},{split}" for row, split in zip(ROWS, splits, strict=True)), header="clean,corrupted,answer,split"
    )


PROMPTS = [
    case("empty", b"", ["is empty", "clean, corrupted, answer"]),
    case("misspelt column", prompts(*ROWS, header="clean,corupted,answer"), ["'corupted'", "did you mean 'corrupted'"]),
    case("missing column", prompts("a,b", header="clean,answer"), ["no column 'corrupted'"]),
    case(
        "no answers to train on",
        prompts(*ROWS_WITHOUT_ANSWERS, header="clean,corrupted"),
        ["tasks.own.methods", "lora", "no column answer", "methods: []"],
    ),
    case(
        "year for a token id",
        prompts(*(f"a 1{i},a b,{i}" for i in range(9)), header="clean,corrupted,correct_idx"),
        ["row 1", "correct_idx", "hardly a token id"],
    ),
    case("column twice", prompts(*ROWS, header="clean,clean,answer"), ["'clean' occurs twice"]),
    case("five rows", prompts(*ROWS[:5]), ["5 rows", "at least 6"]),
    case("comma in a cell", prompts(*ROWS, "a, b,c,d"), ["row 13", "4 cells"]),
    case("empty prompt", prompts(*ROWS, ",b,c"), ["row 13", "'clean' is empty"]),
    case("same prompts", prompts(*ROWS, "a,a,c"), ["row 13", "the same"]),
    case("row twice", prompts(*ROWS, ROWS[2]), ["row 13", "repeats the prompts of row 3"]),
    case("two answers", prompts(*ROWS, "a b0,a x, other"), ["row 13", "same answer"]),
    case("not UTF-8", prompts(*ROWS, "na\u00efve,b,c").decode().encode("latin-1"), ["not UTF-8"]),
    case("open quote", prompts(*ROWS, '"a,b,c'), ["not valid CSV"]),
    case("unknown split", in_splits(*SPLITS[:-1], "tset"), ["row 12", "'tset'", "did you mean 'test'"]),
    case("no test rows", in_splits(*["train"] * 6, *["circuit"] * 6), ["no row belongs to split 'test'"]),
    case(
        "three circuit rows", in_splits(*SPLITS[:5], "train", *SPLITS[6:]), ["split 'circuit' has 3 rows", "at least 4"]
    ),
    case("prompt in two splits", in_splits(*SPLITS).replace(b"a b5,", b"a b0,"), ["row 6", "keep it in one split"]),
]


@pytest.mark.parametrize(("content", "words"), PROMPTS)
def test_prompt_files(tmp_path, content, words):
    (tmp_path / "prompts.csv").write_bytes(content)
    study = write(tmp_path, {"tasks": {"own": {"family": "file", "path": "prompts.csv"}}})
    assert_refused(tmp_path, study, ["prompts.csv", *words])


@pytest.mark.parametrize(
    ("path", "words"),
    [
        case("nothing there", "absent.csv", ["absent.csv", "no such file"]),
        case("a folder", "model", ["model", "no such file"]),
        case("a spreadsheet", "study.yaml", ["neither .csv nor .parquet nor .jsonl"]),
        case("a broken table", "broken.parquet", ["broken.parquet", "not a readable Parquet file"]),
    ],
)
def test_paths_of_prompt_files(tmp_path, path, words):
    usable_folder(tmp_path / "model")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    study = write(tmp_path, {"tasks": {"own": {"family": "file", "path": path}}})
    assert_refused(tmp_path, study, words)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        case("objective", {"circuit": {"objective": "answer_loss"}}, ["circuit.objective: answer_loss", "'own' lacks"]),
        case("recipe", {"recipes": {"r": {"objective": "logit_difference"}}}, ["recipes.r.objective", "'own' lacks"]),
        case("method", {"methods": {"m": {"kind": "lora", "rank": 1}}}, ["by m needs answers", "answers: none"]),
    ],
)
def test_what_needs_answers_is_refused_for_a_task_without(tmp_path, sections, words):
    (tmp_path / "prompts.csv").write_bytes(prompts(*ROWS))
    tasks = {"own": {"family": "file", "path": "prompts.csv", "answers": "none"}}
    assert_refused(tmp_path, write(tmp_path, {"tasks": tasks, "methods": {}, **sections}), words)


def test_the_folder_and_the_prompts_that_the_cases_change_can_be_planned(tmp_path):
    usable_folder(tmp_path / "model")
    for content in (prompts(*ROWS), in_splits(*SPLITS)):
        (tmp_path / "prompts.csv").write_bytes(content)
        tasks = {"own": {"family": "file", "path": "prompts.csv", "train": 8}}
        planned = write(
            tmp_path,
            {"models": {"m": {"source": "local", "path": "model"}}, "tasks": tasks, "training": {"checkpoints": 1}},
        )
        assert call(planned, tmp_path).code == 0
    shutil.rmtree(tmp_path / "model")
    assert call(planned, tmp_path).code == 1
