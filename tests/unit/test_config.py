"""The config: defaults, refusals, cross-references, relative paths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuitdrift.config.circuits import Circuit
from circuitdrift.config.reading import ConfigError, load_study
from circuitdrift.config.study import StudyConfig
from circuitdrift.study import Study, read_study

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = {"00": "before.json.gz", "01": "after.json.gz"}
IMPORT = {"format": "eap-json", "checkpoints": CHECKPOINTS}


def load(raw: dict) -> StudyConfig:
    return load_study(raw, Path("folder"), "config.yaml")


def message(raw: dict) -> str:
    with pytest.raises(ConfigError) as caught:
        load(raw)
    return str(caught.value)


def test_empty_sections_take_their_defaults():
    assert load({"circuit": None, "models": None}) == StudyConfig()


def test_a_config_survives_its_own_json():
    study = load(
        {"tasks": {"t": {"family": "lcm"}}, "methods": {"m": {"kind": "lora", "rank": 3}}, "imports": {"i": IMPORT}}
    )
    assert load(json.loads(study.model_dump_json())) == study


def test_the_recipe_is_all_of_the_circuit_section_but_its_fraction():
    assert Circuit(fraction=0.3).recipe() == Circuit(fraction=0.1).recipe()
    assert Circuit(steps=7).recipe() != Circuit().recipe()


def test_a_recipe_changes_what_it_names_and_nothing_else():
    study = load({"circuit": {"steps": 7, "folds": 8}, "recipes": {"r": {"attribution": "ceap"}}})
    assert (
        study.recipes["r"].applied_to(study.circuit.recipe()) == Circuit(attribution="ceap", steps=7, folds=8).recipe()
    )


def test_the_studys_own_recipe_is_compared_first_where_any_are():
    sections = {"models": {"m": {"source": "scratch"}}, "tasks": {"t": {"family": "lcm"}}}
    trained = {"methods": {"lora_r2": {"kind": "lora", "rank": 2}}}
    assert Study(load({**sections, **trained})).recipes == {}
    study = Study(load({**sections, "recipes": {"r": {"steps": 2}}}))
    assert list(study.recipes) == ["own", "r"]
    found = study.of_pairs(study.recipes["r"].scores, study.recipe_pairs)
    assert found == ["results/embedded/circuits/m/t/base/recipes/r/scores.safetensors"]


def test_relative_paths_are_relative_to_the_config_file():
    study = load(
        {"tasks": {"t": {"family": "file", "path": "p.csv"}}, "models": {"m": {"source": "local", "path": "x"}}}
    )
    assert study.tasks["t"].path == Path("folder").resolve() / "p.csv"
    assert study.models["m"].path == Path("folder").resolve() / "x"
    imported = load({"imports": {"i": IMPORT}}).imports["i"]
    assert imported.checkpoints == {label: Path("folder").resolve() / f for label, f in CHECKPOINTS.items()}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"stdy": "x"}, ["stdy", "unknown key", "'study'"]),
        ({"models": {"m": {"source": "scratch", "layrs": 3}}}, ["models.m.layrs", "'layers'"]),
        ({"models": {"m": {"layers": 3}}}, ["models.m", "no 'source'"]),
        ({"models": {"m": {"source": "wheel"}}}, ["models.m.source", "'wheel'", "package"]),
        ({"models": {"m": {"source": "scratch", "width": 33}}}, ["models.m", "33", "heads"]),
        ({"models": {"base": {"source": "scratch"}}}, ["models.base", "taken"]),
        ({"models": {"a b": {"source": "scratch"}}}, ["models.a b"]),
        ({"methods": {"m": {"kind": "lora"}}}, ["methods.m.rank", "missing"]),
        ({"methods": {"m": {"kind": "lora", "rank": 0}}}, ["methods.m.rank", "greater than or equal to 1", "0"]),
        ({"methods": {"imported": {"kind": "full"}}}, ["methods.imported", "taken"]),
        ({"methods": {"untrained": {"kind": "full"}}}, ["methods.untrained", "taken"]),
        ({"methods": {"m": {"kind": "lora", "rank": 1, "answers": "wrong"}}}, ["methods.m.answers", "'permuted'"]),
        ({"methods": {"g": {"kind": "grpo", "rank": 1, "answers": "permuted"}}}, ["methods.g", "samples its own"]),
        ({"drift": {"untrained": -1}}, ["drift.untrained", "greater than or equal to 0"]),
        ({"tasks": {"s": {"family": "sub_task", "of": "c", "part": "add_sub"}}}, ["tasks.s.of", "'c'"]),
        ({"tasks": {"t": 3}}, ["tasks.t"]),
        ({"circuit": {"steps": 1}}, ["circuit", "quadrature"]),
        ({"seeds": [1, 1]}, ["seeds", "twice"]),
        ({"learning_rate_search": {"rates": None}}, ["learning_rate_search.rates", "None"]),
        ({"learning_rate_search": {"rates": [1]}}, ["learning_rate_search", "[1.0]", "two factors or more"]),
        ({"learning_rate_search": {"rates": [1, 3, 1]}}, ["learning_rate_search", "twice"]),
        ({"learning_rate_search": {"rates": [1, -3]}}, ["learning_rate_search.rates.1", "greater than 0", "-3"]),
        ({"learning_rate_search": {"rates": [1, 0]}}, ["learning_rate_search.rates.1", "greater than 0"]),
        ({"learning_rate_search": {"rates": [1, float("inf")]}}, ["learning_rate_search.rates.1", "finite"]),
        ({"learning_rate_search": {"validation_share": 1}}, ["learning_rate_search.validation_share", "less than 1"]),
        ({"learning_rate_search": {"factors": [1, 3]}}, ["learning_rate_search.factors", "unknown key"]),
        (
            {"seeds": [0, 7], "learning_rate_search": {"rates": [1, 3], "seed": 7}},
            ["learning_rate_search.seed", "7", "seeds [0, 7]"],
        ),
        ({"imports": {"i": {**IMPORT, "polcy": "x"}}}, ["imports.i.polcy", "'policy'"]),
        ({"imports": {"i": {**IMPORT, "format": "eap"}}}, ["imports.i.format", "'eap-json'", "'eap'"]),
        ({"imports": {"i": {"checkpoints": CHECKPOINTS}}}, ["imports.i.format", "missing"]),
        ({"imports": {"i": {"format": "eap-json"}}}, ["imports.i.checkpoints", "missing"]),
        ({"imports": {"a/b": IMPORT}}, ["imports.a/b", "form"]),
        ({"imports": {"i": {**IMPORT, "architecture": "bert"}}}, ["imports.i.architecture", "'gpt2'", "'bert'"]),
        ({"imports": {"i": {**IMPORT, "rank": 0}}}, ["imports.i.rank", "greater than or equal to 1"]),
        ({"imports": {"i": {**IMPORT, "checkpoints": {"00": "a"}}}}, ["imports.i.checkpoints", 'only "00"', "later"]),
        ({"imports": {"i": {**IMPORT, "checkpoints": {"01": "a", "02": "b"}}}}, ["imports.i.checkpoints", 'no "00"']),
        (
            {"imports": {"i": {**IMPORT, "checkpoints": {0: "a", 1: "b"}}}},
            ["imports.i.checkpoints", "[0, 1]", "quotes"],
        ),
        ({"imports": {"i": {**IMPORT, "checkpoints": {"00": "a", "1": "b"}}}}, ["imports.i.checkpoints.1", "[0-9]{2}"]),
        ({"imports": {"i": {**IMPORT, "checkpoints": ["a", "b"]}}}, ["imports.i.checkpoints", "mapping"]),
        ({"imports": {"i": "before.json"}}, ["imports.i", "before.json"]),
        (
            {"imports": {"i": {**IMPORT, "policy": "excess"}}},
            ["imports.i", "excess", "fold", "use policy"],
        ),
        (
            {"imports": {"i": {**IMPORT, "policy": "score_change_normalised", "credit": "counts"}}},
            ["imports.i", "counts", "remove policy"],
        ),
        ({"figures": {"task": "t"}}, ["figures.task", "'t'"]),
        ({"recipes": {"own": {"steps": 2}}}, ["recipes.own", "another name"]),
        ({"recipes": {"r": {"attribution": "eap"}}}, ["recipes.r", "clean prompt", "logit_difference"]),
        ({"recipes": {"r": {"attribution": "ceap", "steps": 1}}}, ["recipes.r", "quadrature left or midpoint"]),
        ({"recipes": {"r": {"stps": 2}}}, ["recipes.r.stps", "'steps'"]),
        ({"recipes": {"r": {"steps": 0}}}, ["recipes.r.steps", "greater than or equal to 1"]),
        (
            {"recipes": {"r": {"steps": 2}}, "circuit": {"selection": "minimal", "wanted_faithfulness": 0.8}},
            ["circuit.selection", "minimal", "top or greedy"],
        ),
        ({"drift": {"methods": ["x"]}}, ["drift.methods", "'x'"]),
        ({"tasks": {"t": {"family": "lcm", "methods": ["x"]}}}, ["tasks.t.methods", "'x'"]),
    ],
)
def test_a_refusal_names_the_key_and_the_fix(raw, words):
    text = message(raw)
    assert all(word in text for word in words), text


def test_an_import_alone_is_a_study():
    study = Study(load({"imports": {"i": {**IMPORT, "checkpoints": dict(reversed(CHECKPOINTS.items()))}}}))
    assert study.runs == ()
    assert [Path(circuit.folder).name for circuit in study.imported_circuits("i")] == ["00", "01"]
    assert study.of_imports(study.layout.imported_drift.layers) == ["results/embedded/drift/imported/i/layers.parquet"]


def test_an_import_takes_the_place_of_a_phase_1():
    imported = load({"imports": {"i": {**IMPORT, "rank": 4, "policy": "score_change_normalised"}}}).imports["i"]
    method = imported.as_method("i")
    assert (method.phase_1, method.rank, method.critical_rank, method.critical_layers) == ("i", 4, 32, 5)
    assert method.policy == "score_change_normalised"


def test_missing_files_of_an_import_are_named_together(tmp_path):
    config = tmp_path / "study.yaml"
    config.write_text(json.dumps({"imports": {"i": IMPORT}}))
    with pytest.raises(ConfigError) as caught:
        read_study(config)
    for label, file in CHECKPOINTS.items():
        assert f"imports.i.checkpoints.{label}: no such file {tmp_path / file}" in str(caught.value)
        (tmp_path / file).touch()
    assert read_study(config).config.imports["i"].checkpoints["00"] == tmp_path / "before.json.gz"


def test_all_problems_are_told_at_once():
    text = message({"methods": {"a": {"kind": "lora"}, "b": {"kind": "lora", "rank": -1}}, "study": "x y"})
    assert "methods.a.rank" in text
    assert "methods.b.rank" in text
    assert "study" in text


def test_phase_1_always_has_circuits():
    methods = {
        "r2": {"kind": "lora", "rank": 2},
        "r4": {"kind": "lora", "rank": 4},
        "c": {"kind": "circuit_lora", "rank": 1, "critical_rank": 2, "phase_1": "r2"},
    }
    study = Study(load({"methods": methods, "drift": {"methods": ["r4"]}}))
    assert study.drift_methods == ("r2", "r4")


def test_a_task_may_name_its_methods_and_gets_their_phase_1_too():
    methods = {
        "r2": {"kind": "lora", "rank": 2},
        "r4": {"kind": "lora", "rank": 4},
        "c": {"kind": "circuit_lora", "rank": 1, "critical_rank": 2, "critical_layers": 1, "phase_1": "r2"},
    }
    tasks = {"all": {"family": "lcm"}, "one": {"family": "lcm", "methods": ["c"]}}
    study = Study(load({"models": {"m": {"source": "scratch"}}, "tasks": tasks, "methods": methods}))
    assert [(run.task, run.method) for run in study.runs] == [
        ("all", "r2"), ("all", "r4"), ("all", "c"), ("one", "r2"), ("one", "c"),
    ]  # fmt: skip
    assert study.data_settings("all") == study.data_settings("one")


def test_a_task_that_no_method_is_trained_on_has_the_circuit_of_the_model_as_it_is():
    raw = {
        "models": {"m": {"source": "scratch"}, "h": {"source": "hub", "id": "a/b"}},
        "tasks": {"trained": {"family": "lcm"}, "looked_at": {"family": "lcm", "methods": []}},
        "methods": {"lora_r2": {"kind": "lora", "rank": 2}},
    }
    study = Study(load(raw))
    pairs = [{"model": model, "task": "looked_at"} for model in "mh"]
    assert list(study.untouched) == list(study.recipe_pairs) == pairs
    assert list(study.fetched_untouched) == pairs[1:]
    assert study.extracted == study.models_and_tasks
    assert list(study.recipes) == ["own"]
    assert study.compared_recipes == ()
    without = Study(load({**raw, "methods": {}}))
    assert without.runs == ()
    assert without.untouched == without.extracted == without.models_and_tasks
    compared = Study(load({**raw, "recipes": {"r": {"steps": 2}}, "drift": {"methods": []}}))
    assert compared.recipe_pairs == compared.models_and_tasks
    assert list(compared.extracted) == pairs


def test_a_task_leaves_out_rows_only_where_it_says_so():
    tasks = {name: {"family": "file", "path": "a.csv", **keys} for name, keys in DROPPING.items()}
    study = Study(load({"models": {"m": {"source": "scratch"}}, "tasks": tasks}))
    assert study.dropping_tasks == ("some",)
    assert study.dropping == ({"model": "m", "task": "some"},)
    assert study.of_pairs(study.layout.dropped, study.dropping) == ["results/embedded/data/m/some/dropped.parquet"]


DROPPING = {"none": {}, "some": {"invalid_rows": "drop"}, "refused": {"invalid_rows": "refuse"}}


def test_a_sham_method_has_the_twin_that_differs_in_its_answers_alone():
    methods = {
        "lora_r2": {"kind": "lora", "rank": 2},
        "sham_r2": {"kind": "lora", "rank": 2, "answers": "permuted"},
        "sham_r4": {"kind": "lora", "rank": 4, "answers": "permuted"},
        "sham_short": {"kind": "lora", "rank": 2, "answers": "permuted", "epochs": 1},
    }
    raw = {"models": {"m": {"source": "scratch"}}, "tasks": {"t": {"family": "lcm"}}, "methods": methods}
    study = Study(load(raw))
    assert study.sham_twins == {"sham_r2": "lora_r2"}
    assert [run.method for run in study.sham_runs] == ["sham_r2"]
    without_circuits = Study(load({**raw, "drift": {"methods": ["sham_r2"]}}))
    assert without_circuits.sham_twins == {}
    assert without_circuits.sham_runs == ()


def test_a_sham_method_may_be_a_phase_1():
    methods = {
        "sham": {"kind": "lora", "rank": 2, "answers": "permuted"},
        "c": {"kind": "circuit_lora", "rank": 2, "critical_rank": 4, "critical_layers": 1, "phase_1": "sham"},
    }
    study = Study(load({"models": {"m": {"source": "scratch"}}, "methods": methods, "drift": {"methods": []}}))
    assert study.drift_methods == ("sham",)


def test_a_task_without_controls_of_its_own_has_no_runs_for_them():
    raw = {
        "models": {"m": {"source": "scratch"}},
        "tasks": {"t": {"family": "lcm"}, "f": {"family": "function"}},
        "methods": {"lora_r2": {"kind": "lora", "rank": 2}},
    }
    runs = [Study(load({**raw, "drift": {"untrained": n}})).model_control_runs for n in (0, 1)]
    assert [[run.task for run in found] for found in runs] == [["t"], ["t", "f"]]


def test_phase_1_may_be_shorter_than_the_other_runs():
    study = read_study(ROOT / "configs" / "methods.yaml")
    methods, training = study.config.methods, study.config.training
    phase_1 = {name: methods[name].phase_1 for name in ("circuit_lora", "circuit_lora_short")}
    assert phase_1 == {"circuit_lora": "lora_r2", "circuit_lora_short": "lora_r2_short"}
    assert set(phase_1.values()) <= set(study.drift_methods)
    assert (methods["lora_r2"].epochs, methods["lora_r2_short"].epochs, training.epochs) == (None, 1, 2)


def test_learning_rates_are_searched_for_only_with_a_grid():
    sections = {
        "models": {"m": {"source": "scratch"}},
        "tasks": {"t": {"family": "lcm"}},
        "methods": {"a": {"kind": "lora", "rank": 1}, "b": {"kind": "full"}},
        "seeds": [0, 7],
    }
    off = Study(load({**sections, "learning_rate_search": {"rates": [], "seed": 7}}))
    assert off.tuned_runs == ()
    on = Study(load({**sections, "learning_rate_search": {"rates": [0.5, 1, 2]}}))
    searches = [f"results/embedded/learning_rates/m/t/{method}/trials.parquet" for method in "ab"]
    assert on.of_runs(on.layout.trials, on.tuned_runs) == searches


@pytest.mark.parametrize(
    ("saved", "wanted", "names"),
    [
        (10, 3, ["00", "05", "10"]),
        (10, 2, ["00", "10"]),
        (10, 4, ["00", "03", "07", "10"]),
        (2, 11, ["00", "01", "02"]),
        (1, 3, ["00", "01"]),
    ],
)
def test_checkpoints_that_exchange_circuits_are_evenly_spaced_from_first_to_last(saved, wanted, names):
    study = Study(load({"training": {"checkpoints": saved}, "drift": {"functional_checkpoints": wanted}}))
    assert list(study.functional_checkpoints) == names


def test_checkpoints_are_grouped_into_jobs():
    study = Study(load({"training": {"checkpoints": 5}, "execution": {"checkpoints_per_job": 2}}))
    assert [len(job.checkpoints) for job in study.circuit_jobs] == [0, 2, 2, 1]
    assert next(c for job in study.circuit_jobs for c in job.checkpoints).endswith("checkpoints/01")
    assert len(study.circuits) == 6


def test_the_shipped_configs_can_be_used():
    for path in [ROOT / "config.yaml", *(ROOT / "configs").glob("*.yaml")]:
        study = read_study(path)
        assert study.all_runs or study.recipes, path


def test_the_float32_study_is_the_default_study_in_another_precision():
    default, other = (read_study(ROOT / name).config for name in ("config.yaml", "configs/embedded_float32.yaml"))
    in_float32 = default.model_dump(mode="json") | {"study": "embedded_float32"}
    for section in (
        in_float32["models"]["tiny-neox"],
        *(in_float32[key] for key in ("training", "circuit", "faithfulness")),
    ):
        section["precision"] = "float32"
    assert other.model_dump(mode="json") == in_float32


def test_the_json_schema_for_editors_is_up_to_date():
    shipped = json.loads((ROOT / "configs" / "study.schema.json").read_text())
    assert shipped == StudyConfig.model_json_schema(), "run: make schema"


def pairs_without(name: str = "", **changed: object) -> Study:
    """The study of all pairs of layers without one of its methods, or with other settings of its CircuitLoRA."""
    config = read_study(ROOT / "configs" / "layer_pairs.yaml").config
    circuit_lora = config.methods["circuit_lora_2_8"].model_copy(update=changed)
    methods = {n: circuit_lora if n == "circuit_lora_2_8" else m for n, m in config.methods.items() if n != name}
    return Study(config.model_copy(update={"methods": methods}))


def test_all_pairs_of_layers_are_the_reference_of_a_circuit_lora():
    (sets,) = pairs_without().layer_sets.values()
    assert list(sets.items())[:2] == [("layers_0_1", [0, 1]), ("layers_0_2", [0, 2])]
    assert sorted(sets.values()) == [[a, b] for a in range(6) for b in range(a + 1, 6)]


@pytest.mark.parametrize("name", ["layers_0_1", "layers_2_4", "layers_4_5"])
def test_sets_of_which_one_is_missing_are_no_reference(name):
    assert pairs_without(name).layer_sets == {}


@pytest.mark.parametrize(
    "changed", [{"rank": 1}, {"critical_rank": 9}, {"epochs": 2}, {"critical_layers": 1}, {"allocation": "inverted"}]
)
def test_sets_of_other_size_or_training_are_no_reference(changed):
    assert pairs_without(**changed).layer_sets == {}


def test_sets_of_the_first_layers_of_a_deeper_model_are_no_reference():
    config = pairs_without().config
    deeper = config.models["tiny-neox"].model_copy(update={"layers": 7})
    assert Study(config.model_copy(update={"models": {"tiny-neox": deeper}})).layer_sets == {}
    assert read_study(ROOT / "config.yaml").layer_sets == read_study(ROOT / "configs" / "methods.yaml").layer_sets == {}
