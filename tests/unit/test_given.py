"""Checkpoints that were trained elsewhere: in the config, among a study's runs, and as they are checked at parsing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuitdrift.checks.before_jobs import check_study
from circuitdrift.config.reading import ConfigError, load_study
from circuitdrift.figures import catalogue
from circuitdrift.figures.labels import MethodLabels
from circuitdrift.models.shapes import ModelShape
from circuitdrift.planning.estimates import PlannedWork, seconds_of
from circuitdrift.runs import Run
from circuitdrift.study import Study

TASKS = {"t": {"family": "lcm", "train": 64, "circuit": 16, "test": 16}}
HUB = {"source": "hub", "id": "owner/base", "revision": "step1"}
SCRATCH = {"source": "scratch", "layers": 2, "heads": 2, "width": 16, "mlp_width": 32}


def study(*checkpoints: dict, model: dict = HUB, folder: Path = Path("folder"), **sections) -> Study:
    """A study of one model with given checkpoints, and no method."""
    ranks = {"critical_layers": 1, "critical_rank": 8}
    raw = {"models": {"m": {**model, "checkpoints": list(checkpoints)}}, "tasks": TASKS, "methods": {}, "given": ranks}
    return Study(load_study({**raw, **sections}, folder, "config.yaml"))


def refusal(*checkpoints: dict, **settings) -> str:
    with pytest.raises(ConfigError) as caught:
        study(*checkpoints, **settings)
    return str(caught.value)


# --------------------------------------------------------------------------------------------------- config


def test_paths_start_from_the_config_file_and_the_rest_is_kept():
    given = study({"path": "a/b"}, {"adapter": "c"}, {"revision": "step2"}, {"adapter_id": "x/y"})
    folder = Path("folder").resolve()
    assert [checkpoint.folder for checkpoint in given.config.models["m"].checkpoints] == [
        folder / "a/b", folder / "c", None, None,
    ]  # fmt: skip
    assert [given.given.checkpoint("m", f"0{n}").hub_id for n in (1, 2, 3, 4)] == [None, None, "owner/base", "x/y"]
    assert [given.given.checkpoint("m", f"0{n}").is_adapter for n in (1, 2, 3, 4)] == [False, True, False, True]


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        ({}, ["models.m.checkpoints.0", "names no checkpoint", "adapter_id"]),
        ({"path": "a", "id": "b/c"}, ["models.m.checkpoints.0", "path and id", "an entry of its own"]),
        ({"path": "a", "revision": "main"}, ["models.m.checkpoints.0", "remove revision"]),
        ({"id": "~/folder"}, ["models.m.checkpoints.0", "owner/name", "use path"]),
        ({"adapter_id": "../x"}, ["models.m.checkpoints.0", "owner/name", "use adapter"]),
        ({"pathh": "a"}, ["models.m.checkpoints.0.pathh", "did you mean 'path'"]),
        ({"revision": 4000}, ["models.m.checkpoints.0.revision", "not text"]),
        ("step4000", ["models.m.checkpoints.0", "not a mapping"]),
    ],
)
def test_a_checkpoint_that_is_not_one_is_refused_with_its_key_and_the_fix(checkpoint, words):
    text = refusal(checkpoint)
    assert all(word in text for word in words), text


def test_a_revision_alone_needs_a_model_on_the_hub():
    text = refusal({"path": "a"}, {"revision": "x"}, model=SCRATCH)
    assert "models.m.checkpoints: number 1 names a revision alone" in text
    assert study({"id": "a/b", "revision": "x"}, model=SCRATCH).given.checkpoint("m", "01").revision == "x"


def test_the_name_given_is_taken():
    assert "methods.given: the name 'given' is taken" in refusal(methods={"given": {"kind": "lora", "rank": 1}})


def test_ranks_may_follow_given_checkpoints_that_every_model_has():
    circuit_lora = {"kind": "circuit_lora", "rank": 1, "critical_rank": 2, "critical_layers": 1, "phase_1": "given"}
    text = refusal(methods={"c": circuit_lora})
    assert "methods.c.phase_1: 'given' means checkpoints trained elsewhere, which model 'm' lacks" in text
    found = study({"revision": "step2"}, methods={"c": circuit_lora}, seeds=[3, 4])
    assert found.phase_1_run(Run("m", "t", "c", 4)) == Run("m", "t", "given", 0)
    assert found.of_circuits(found.phase_1_run(Run("m", "t", "c", 4)), "scores", -1) == [
        "results/embedded/circuits/m/t/given/seed-0/01/scores.safetensors"
    ]


# ---------------------------------------------------------------------------------------------------- study


def test_given_checkpoints_are_a_run_beside_those_that_are_trained():
    lora = {"lora": {"kind": "lora", "rank": 2}}
    found = study({"path": "a"}, {"path": "b"}, {"path": "c"}, methods=lora, training={"checkpoints": 2})
    given = Run("m", "t", "given", 0)
    assert found.runs == (Run("m", "t", "lora", 0),)
    assert found.drift_runs == (*found.runs, given)
    assert found.allocated_runs == (given,)
    names = [path.split("/t/")[1].rsplit("/", 1)[0] for path in found.of_drift_runs("faithfulness")]
    assert names == [
        "base", "lora/seed-0/01", "given/seed-0/01", "lora/seed-0/02", "given/seed-0/02", "given/seed-0/03",
    ]  # fmt: skip
    ends = [path.split("/t/")[1].rsplit("/", 1)[0] for path in found.of_drift_runs("edges", 0, -1)]
    assert ends == ["base", "lora/seed-0/02", "given/seed-0/03"]


def test_as_many_models_of_given_checkpoints_exchange_circuits_as_of_a_run():
    found = study(*({"path": str(n)} for n in range(10)), drift={"functional_checkpoints": 3})
    folders = [Path(path).name for path in found.given.functional_folders("m")]
    assert folders == ["05", "10"]
    assert len(found.given.folders("m")) == 10


def test_figures_of_circuits_read_the_accuracy_of_given_checkpoints_and_comparisons_of_methods_do_not():
    found = study({"path": "a"}, methods={"lora": {"kind": "lora", "rank": 2}})
    figures = [figure for figure in catalogue.of_study(catalogue.FIGURES, found) if "accuracy" in figure.reads]
    read = {figure.name: catalogue.files(figure, "accuracy", found) for figure in figures}
    own, given = (f"results/embedded/runs/m/t/{method}/seed-0/accuracy.parquet" for method in ("lora", "given"))
    assert read["method_accuracy"] == [own]
    assert read["explorer"] == read["accuracy_and_faithfulness"] == [own, given]


def test_a_study_of_given_checkpoints_alone_has_the_figures_and_tables_of_circuits():
    found = study({"path": "a"})
    listed = [*catalogue.of_study(catalogue.FIGURES, found), *catalogue.of_study(catalogue.TABLES, found)]
    names = {entry.name for entry in listed}
    assert {"change_rates", "circuit_before_after", "drift_and_noise", "explorer", "layer_changes"} <= names
    assert {"critical_layers", "edge_changes"} <= names
    assert not {"method_accuracy", "training_cost"} & names


def test_the_run_has_a_label_of_its_own_behind_those_of_methods():
    labels = MethodLabels(study(methods={"lora": {"kind": "lora", "rank": 2}}).config.methods)
    assert labels.of("given") == "Given checkpoints"
    assert sorted(["given", "lora"], key=labels.order) == ["lora", "given"]
    assert not labels.is_sham("given")
    assert labels.family("given").marker != labels.family("lora").marker


def test_plans_count_the_checkpoints_of_the_run():
    shape = ModelShape(parameters=1_300_000, layers=6, heads=8, width=128, parallel=True)

    def seconds(n: int) -> float:
        work = PlannedWork("measure_reliability", {"model": "m", "task": "t", "method": "given", "seed": "0"}, 0)
        return seconds_of(study(*({"path": str(i)} for i in range(n))), work, shape) or 0.0

    assert seconds(9) - seconds(4) == pytest.approx(5 / 2 * (seconds(4) - seconds(2)))
    assert seconds(4) > seconds(2)


# ------------------------------------------------------------------------------------------- before any job


HEADER = json.dumps({"layers.0.dense.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + bytes(8)
CONFIG = {
    "model_type": "gpt_neox", "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16,
    "intermediate_size": 32, "vocab_size": 20,
}  # fmt: skip
VOCABULARY = {"a": 0, "b": 1}


def model_folder(folder: Path, vocabulary: dict | None = None, **config) -> Path:
    """A folder of a model as far as it is looked at before any job."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    if vocabulary is not None:
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    return folder


def adapter_folder(folder: Path, **config) -> Path:
    folder.mkdir()
    plain = {"peft_type": "LORA", "target_modules": ["dense"], "r": 1, "base_model_name_or_path": "somewhere/base"}
    (folder / "adapter_config.json").write_text(json.dumps({**plain, **config}))
    (folder / "adapter_model.safetensors").write_bytes(WEIGHTS)
    return folder


def local_study(folder: Path, *checkpoints: dict, **sections) -> Study:
    base = {"source": "local", "path": str(model_folder(folder / "base", VOCABULARY))}
    return study(*checkpoints, model=base, folder=folder, **sections)


def test_checkpoints_that_fit_are_planned_without_a_word(tmp_path):
    model_folder(tmp_path / "same"), model_folder(tmp_path / "more", {**VOCABULARY, "c": 2})
    adapter_folder(tmp_path / "lora")
    given = local_study(tmp_path, {"path": "same"}, {"path": "more"}, {"adapter": "lora"})
    assert check_study(given) == []
    assert given.given.files("m", "03") == [
        str(tmp_path / "lora" / name) for name in ("adapter_config.json", "adapter_model.safetensors")
    ]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"num_hidden_layers": 3}, "has 3 layers, the base model 2"),
        ({"num_attention_heads": 4}, "has 4 heads, the base model 2"),
        ({"vocab_size": 21}, "has 21 tokens, the base model 20"),
        ({"use_parallel_residual": False}, "one after the other, or side by side"),
        ({"model_type": "llama"}, "has model_type llama, the base model gpt_neox"),
        ({"vocabulary": {"a": 1, "b": 0}}, r"other ids for 2 tokens, the first is 'a' \(1, not 0\)"),
        ({"vocabulary": {"a": 0}}, "no entry for 1 tokens of the base model's, the first is 'b'"),
    ],
)
def test_a_model_that_differs_is_refused_before_any_job(files, words, tmp_path):
    model_folder(tmp_path / "other", **files)
    with pytest.raises(ConfigError, match=rf"models\.m\.checkpoints\.0\.path: .*{words}"):
        check_study(local_study(tmp_path, {"path": "other"}))


def test_a_scratch_models_checkpoints_are_compared_before_it_is_made(tmp_path):
    model_folder(tmp_path / "wide", hidden_size=32)
    with pytest.raises(ConfigError, match="has 32 width, the base model 16"):
        check_study(study({"path": "wide"}, model=SCRATCH, folder=tmp_path))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, "no such folder"),
        ({"peft_type": "PROMPT_TUNING"}, "'PROMPT_TUNING' does not merge"),
        ({"target_modules": ["q_proj"]}, "target module 'q_proj' is no module of the base model"),
        ({"trainable_token_indices": [1]}, "it trains the embeddings of single tokens"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_refused_before_any_job(config, words, tmp_path):
    if config is not None:
        adapter_folder(tmp_path / "lora", **config)
    with pytest.raises(ConfigError, match=rf"models\.m\.checkpoints\.0\.adapter: .*{words}"):
        check_study(local_study(tmp_path, {"adapter": "lora"}))


def test_an_adapter_of_another_base_model_is_named(tmp_path):
    adapter_folder(tmp_path / "lora", base_model_name_or_path="owner/another")
    (warning,) = check_study(local_study(tmp_path, {"adapter": "lora"}))
    assert warning.startswith("models.m.checkpoints.0.adapter: was trained on owner/another")


def test_more_critical_layers_than_the_model_has_are_refused(tmp_path):
    model_folder(tmp_path / "same")
    with pytest.raises(ConfigError, match=r"given\.critical_layers: 5 exceeds the 2 layers of model 'm'"):
        check_study(local_study(tmp_path, {"path": "same"}, given={}))
