"""Config files that cannot be used: each stops Snakemake before any job, in few lines that name key and fix."""

from __future__ import annotations

import pytest
from refusals import GOOD, assert_refused, call, case, computed_before, results_of, write

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 7)
)


def models(**settings):
    return {"models": {"toy": {**GOOD["models"]["toy"], **settings}}}


def model(**settings):
    return {"models": {"other": settings}}


def tasks(**settings):
    return {"tasks": {"sums": {**GOOD["tasks"]["sums"], **settings}}}


def task(**settings):
    return {"tasks": {"other": settings}}


def methods(**settings):
    return {"methods": {**GOOD["methods"], "other": settings}}


def circuit_lora(**settings):
    return methods(
        **{"kind": "circuit_lora", "rank": 1, "critical_rank": 2, "critical_layers": 1, "phase_1": "lora"} | settings
    )


def random_lora(**settings):
    return methods(**{"kind": "random_lora", "rank": 1, "critical_rank": 2, "critical_layers": 1} | settings)


def imported(**settings):
    return {"imports": {"i": {"format": "eap-json", "checkpoints": {"00": "a.json", "01": "b.json"}} | settings}}


YAML = [
    case("key twice", "study: a\nstudy: b\n", ["study.yaml", "study: given in line 1 and again in line 2", "keep one"]),
    case("model twice", "models:\n  a: {source: scratch}\n  a: {source: scratch}\n", ["models.a: given in line 2"]),
    case("key of a section twice", "training: {epochs: 1, epochs: 2}\n", ["training.epochs: given in line 1"]),
    case("key in a list twice", "seeds: [{a: 1, a: 2}]\n", ["seeds.a: given in line 1"]),
    case("tab", "study: a\n\tseeds: [0]\n", ["not valid JSON or YAML", "tab"]),
    case("open bracket", "study: [", ["not valid JSON or YAML"]),
    case("open quote", "study: 'a\n", ["not valid JSON or YAML"]),
    case("two colons", "study: a: b\n", ["not valid JSON or YAML"]),
    case("wrong indentation", "training:\n  epochs: 1\n checkpoints: 2\n", ["not valid JSON or YAML"]),
    case("unknown alias", "study: *name\n", ["not valid JSON or YAML"]),
    case("two documents", "study: a\n---\nstudy: b\n", ["not valid JSON or YAML"]),
    case("code", "study: !!python/object/apply:os.system [ls]\n", ["not valid JSON or YAML"]),
    case("list as key", "? [a]\n: 1\n", ["not valid JSON or YAML"]),
    case("null byte", "study: \0\n", ["not valid JSON or YAML"]),
    case("list at top", "- a\n- b\n", ["keys at top level"]),
    case("text at top", "a study\n", ["keys at top level"]),
    case("number at top", "3\n", ["keys at top level"]),
    case("aliases that multiply", LAUGHS, ["study.yaml", "aliases", "100,000"]),
    case("alias inside its anchor", "seeds: &s [*s]\n", ["study.yaml", "alias"]),
    case("too large", f"study: a # {'x' * 2**20}\n", ["study.yaml", "1,048,576"]),
]


@pytest.mark.parametrize(("text", "words"), YAML)
def test_yaml(tmp_path, text, words):
    assert_refused(tmp_path, write(tmp_path, text), words)


NAMES = [
    *(
        case(f"study {str(name)[:12]!r}", {"study": name}, ["study: ", said])
        for name, said in (
            ("a b", "form"),
            ("a/b", "form"),
            ("..", "form"),
            ("-rf", "form"),
            ("stud\u0443", "form"),
            ("{seed}", "form"),
            ("=1+1", "form"),
            ("a\n", "form"),
            ("$(ls)", "form"),
            ("<b>", "form"),
            ("", "form"),
            ("a" * 101, "100 characters"),
            ("con", "Windows"),
            ("nul.old", "Windows"),
            ("end.", "Windows"),
            (3, "text"),
            (True, "true"),
        )
    ),
    case("date as study", "study: 2024-01-01\n", ["study: ", "text", "quotes"]),
    case("number as key", "3: {}\n", ["3 is no key", "text"]),
    case("truth as key", "yes: {}\n", ["True is no key", "text"]),
    case("nothing as key", "~: {}\n", ["None is no key", "text"]),
    case("number as model", {"models": {3: {"source": "scratch"}}}, ["models.3", "the name 3 is not text", "quotes"]),
    case("truth as method", "methods: {no: {kind: full}}\n", ["the name False is not text", "quotes"]),
    case("model base", {"models": {"base": {"source": "scratch"}}}, ["models.base", "taken"]),
    case("model imported", {"models": {"imported": {"source": "scratch"}}}, ["models.imported", "taken"]),
    case("method untrained", {"methods": {"untrained": {"kind": "full"}}}, ["methods.untrained", "taken"]),
    case("model aux", {"models": {"aux": {"source": "scratch"}}}, ["models.aux", "Windows"]),
    case("task with a slash", {"tasks": {"a/b": {"family": "lcm"}}}, ["tasks.a/b", "form"]),
    case("task with a look-alike", {"tasks": {"\u0455ums": {"family": "lcm"}}}, ["tasks.", "form"]),
    case("method with a space", {"methods": {"a b": {"kind": "full"}}}, ["methods.a b", "form"]),
    case("import with dots", {"imports": {"../x": {}}}, ["imports.../x", "form"]),
    case(
        "two methods of one name on some disks",
        {"methods": {"a": {"kind": "full"}, "A": {"kind": "ia3"}}},
        ["methods.a", "'A'", "capital letters"],
    ),
    case(
        "two tasks of one name on some disks",
        {"tasks": {"t": {"family": "lcm"}, "T": {"family": "lcm"}}},
        ["tasks.t", "'T'", "capital"],
    ),
    case("recipe own", {"recipes": {"own": {"steps": 2}}}, ["recipes.own", "another name"]),
]


@pytest.mark.parametrize(("config", "words"), NAMES)
def test_names(tmp_path, config, words):
    assert_refused(tmp_path, write(tmp_path, config), words)


VALUES = [
    case("unknown section", {"trainings": {}}, ["trainings: unknown key", "'training'"]),
    case("unknown key", {"training": {"epoch": 1}}, ["training.epoch", "'epochs'"]),
    case("section is a list", {"training": []}, ["training: ", "mapping"]),
    case("section is text", {"circuit": "all"}, ["circuit: ", "mapping"]),
    case("models is a list", {"models": ["toy"]}, ["models: ", "mapping"]),
    case("model is nothing", {"models": {"toy": None}}, ["models.toy: ", "mapping"]),
    case("rank is true", methods(kind="lora", rank=True), ["methods.other.rank: true", "number"]),
    case("rank is text", methods(kind="lora", rank="3"), ["methods.other.rank: '3' is text", "without quotes"]),
    case("rank is broken", methods(kind="lora", rank=2.5), ["methods.other.rank", "2.5"]),
    case("rank is zero", methods(kind="lora", rank=0), ["methods.other.rank", "greater than or equal to 1"]),
    case("rank is missing", methods(kind="lora"), ["methods.other.rank: missing"]),
    case("no seeds", {"seeds": []}, ["seeds"]),
    case("seed is true", {"seeds": [True]}, ["seeds: true", "number"]),
    case("seed is text", {"seeds": ["1"]}, ["seeds: '1' is text"]),
    case("seed is negative", {"seeds": [-1]}, ["seeds.0", "-1"]),
    case("seed twice", {"seeds": [1, 1]}, ["seeds", "twice"]),
    case("seeds is a number", {"seeds": 3}, ["seeds: 3 is not a list", "[1]"]),
    case(
        "learning rate is infinite",
        {"training": {"learning_rate_lora": float("inf")}},
        ["learning_rate_lora", "finite"],
    ),
    case(
        "learning rate is no number",
        {"training": {"learning_rate_full": float("nan")}},
        ["learning_rate_full", "finite"],
    ),
    case(
        "learning rate is zero",
        methods(kind="full", learning_rate=0),
        ["methods.other.learning_rate", "greater than 0"],
    ),
    case("learning rate is true", methods(kind="full", learning_rate=True), ["methods.other.learning_rate: true"]),
    case("epochs zero", {"training": {"epochs": 0}}, ["training.epochs", "greater than 0"]),
    case("batch of text", {"training": {"micro_batch_size": "4"}}, ["training.micro_batch_size: '4' is text"]),
    case("no checkpoints", {"training": {"checkpoints": 0}}, ["training.checkpoints", "1"]),
    case("100 checkpoints", {"training": {"checkpoints": 100}}, ["training.checkpoints", "99"]),
    case("precision", {"training": {"precision": "float16"}}, ["training.precision", "'bfloat16'"]),
    case("device", {"execution": {"device": "gpu"}}, ["execution.device", "'cuda'", "'gpu'"]),
    case("processes true", {"execution": {"processes": True}}, ["execution.processes: true"]),
    case("palette true", {"figures": {"palette": True}}, ["figures.palette: true", "text"]),
    case("unknown figure model", {"figures": {"model": "x"}}, ["figures.model", "'x'", "toy"]),
    case("fraction zero", {"circuit": {"fraction": 0}}, ["circuit.fraction", "greater than 0"]),
    case("fraction above one", {"circuit": {"fraction": 1.5}}, ["circuit.fraction", "less than or equal to 1"]),
    case("fraction is text", {"circuit": {"fraction": "half"}}, ["circuit.fraction", "'half'"]),
    case("three folds", {"circuit": {"folds": 3}}, ["circuit.folds", "4"]),
    case("no gradient", {"circuit": {"attribution": "eap"}}, ["circuit: attribution eap", "gradient zero"]),
    case("threshold without one", {"circuit": {"selection": "threshold"}}, ["circuit", "needs threshold"]),
    case("threshold with top", {"circuit": {"threshold": 1.0}}, ["circuit", "remove it"]),
    case("recipe without gradient", {"recipes": {"r": {"attribution": "eap"}}}, ["recipes.r", "gradient zero"]),
    case("bootstrap", {"faithfulness": {"bootstrap": 5}}, ["faithfulness.bootstrap", "100"]),
    case("untrained", {"drift": {"untrained": -1}}, ["drift.untrained", "-1"]),
    case("drift of unknown", {"drift": {"methods": ["x"]}}, ["drift.methods", "'x'", "lora"]),
    case("one rate", {"learning_rate_search": {"rates": [1]}}, ["learning_rate_search.rates", "two factors"]),
    case("infinite rate", {"learning_rate_search": {"rates": [1, float("inf")]}}, ["rates.1", "finite"]),
    case("rate twice", {"learning_rate_search": {"rates": [1, 1]}}, ["learning_rate_search.rates", "twice"]),
    case(
        "search seed of the study",
        {"learning_rate_search": {"rates": [1, 2], "seed": 0}},
        ["learning_rate_search.seed"],
    ),
]


@pytest.mark.parametrize(("config", "words"), VALUES)
def test_values(tmp_path, config, words):
    assert_refused(tmp_path, write(tmp_path, config), words)


SOURCES = [
    case("no source", model(layers=2), ["models.other", "no 'source'"]),
    case("unknown source", model(source="disk"), ["models.other.source", "'disk'", "'local'"]),
    case("heads", models(heads=3), ["models.toy", "32", "heads 3"]),
    case("layers true", models(layers=True), ["models.toy.layers: true"]),
    *(
        case(
            f"hub id {value[:20]!r}", model(source="hub", id=value), ["models.other.id", "owner/name", "source: local"]
        )
        for value in (
            "./model",
            "../model",
            "/data/model",
            "~/model",
            "a/b/c",
            "a\\b",
            "model/",
            "https://hf.co/a/b",
            "",
        )
    ),
    case("hub revision", model(source="hub", id="a/b", revision=""), ["models.other.revision", "1 character"]),
    case("hub dtype", model(source="hub", id="a/b", dtype="int8"), ["models.other.dtype", "'bfloat16'"]),
    case(
        "package without version",
        model(source="package", package="a", file="b", sha256="0" * 63 + "a"),
        ["models.other.package", "form"],
    ),
    case(
        "package digest",
        model(source="package", package="a==1", file="b", sha256="abc"),
        ["models.other.sha256", "form"],
    ),
    case(
        "package digest of digits",
        "models: {m: {source: package, package: a==1, file: b, sha256: 1234}}",
        ["models.m.sha256", "quotes"],
    ),
]


@pytest.mark.parametrize(("config", "words"), SOURCES)
def test_models(tmp_path, config, words):
    assert_refused(tmp_path, write(tmp_path, config), words)


METHODS = [
    case("no kind", methods(rank=1), ["methods.other", "no 'kind'"]),
    case("unknown kind", methods(kind="lore"), ["methods.other.kind", "'lore'"]),
    case("permuted grpo", methods(kind="grpo", rank=1, answers="permuted"), ["methods.other.answers", "permuted"]),
    case(
        "adalora that prunes nothing",
        methods(kind="adalora", initial_rank=4, target_rank=4),
        ["methods.other.target_rank"],
    ),
    case(
        "adalora without steps",
        methods(kind="adalora", initial_share=0.9, final_share=0.3),
        ["methods.other", "no steps"],
    ),
    case("unknown phase 1", circuit_lora(phase_1="x"), ["methods.other.phase_1", "'x'", "lora"]),
    case(
        "union on a task of one step",
        circuit_lora(circuit="union"),
        ["methods.other.circuit", "['sums'] are not", "tasks.sums.methods"],
    ),
    case("phase 1 is itself", circuit_lora(phase_1="other"), ["methods.other.phase_1", "'other'"]),
    case("nothing to spend", circuit_lora(allocation="threshold", critical_rank=1), ["methods.other.critical_rank"]),
    case("counts with a policy", circuit_lora(policy="excess", credit="counts"), ["methods.other.credit", "counts"]),
    case("modules with excess", circuit_lora(policy="excess", allocation="per_module"), ["methods.other.policy"]),
    case("layers in both lists", random_lora(include_layers=[0], exclude_layers=[0]), ["methods.other.exclude_layers"]),
    case("too many included", random_lora(include_layers=[0, 1]), ["methods.other.include_layers"]),
    case(
        "sharded grpo",
        methods(kind="grpo", rank=1) | {"execution": {"sharding": "full"}},
        ["execution.sharding", "'other'"],
    ),
    case(
        "rank above the width",
        methods(kind="lora", rank=100_000),
        ["methods.other.rank", "100000", "width 32", "'toy'"],
    ),
    case("critical rank above the width", circuit_lora(critical_rank=33), ["methods.other.critical_rank", "33"]),
    case("adalora above the width", methods(kind="adalora", initial_rank=64), ["methods.other.initial_rank", "64"]),
    case("critical layers", circuit_lora(critical_layers=3), ["methods.other.critical_layers", "2 layers", "'toy'"]),
    case("layer that is not there", random_lora(include_layers=[2]), ["methods.other.include_layers", "[2]", "0 to 1"]),
    case("no layer left", random_lora(exclude_layers=[0, 1]), ["methods.other.exclude_layers", "leaves 0 layers"]),
    case("fraction without an edge", {"circuit": {"fraction": 0.01}}, ["circuit.fraction", "42 edges", "0.024"]),
    case(
        "more checkpoints than steps",
        {"training": {"epochs": 1, "checkpoints": 3}},
        ["training.checkpoints", "2 steps", "'lora'", "'sums'"],
    ),
]


@pytest.mark.parametrize(("config", "words"), METHODS)
def test_methods(tmp_path, config, words):
    assert_refused(tmp_path, write(tmp_path, config), words)


PARENT = {"family": "compositional", "train": 64, "circuit": 16, "test": 32}
STEP = {"family": "sub_task", "of": "c", "part": "add_sub"}
TASKS = [
    case("no family", task(train=10), ["tasks.other", "no 'family'"]),
    case("unknown family", task(family="addsub"), ["tasks.other.family", "'addsub'", "'add_sub'"]),
    case("task is a number", {"tasks": {"t": 3}}, ["tasks.t"]),
    case("nothing to train on", tasks(train=0), ["tasks.sums.train", "1"]),
    case("fewer circuit prompts than folds need", tasks(circuit=3), ["tasks.sums.circuit", "4"]),
    case("train true", tasks(train=True), ["tasks.sums.train: true"]),
    case("operand", tasks(max_operand=1), ["tasks.sums.max_operand", "2"]),
    case("answer", tasks(answer_tokens="two"), ["tasks.sums.answer_tokens", "'any'"]),
    case("method", tasks(methods=["x"]), ["tasks.sums.methods", "'x'"]),
    case("a million prompts", tasks(train=1_000_000), ["tasks.sums.train", "1,000,048", "2,550"]),
    case("prompts of mul_div", task(family="mul_div", max_result=20, train=64), ["tasks.other.train", "at most 54"]),
    case("prompts of sequences", task(family="sequence", max_term=25, train=900), ["tasks.other.train", "at most"]),
    case("prompts of lcm", task(family="lcm", max_operand=8, train=64), ["tasks.other.train", "at most 30"]),
    case("prompts of functions", task(family="function", max_slope=2, max_intercept=9, train=64), ["at most 18"]),
    case("prompts of two steps", task(family="compositional", max_operand=4, train=900), ["at most 108"]),
    case("operands of 900", tasks(max_operand=900), ["tasks.sums.max_operand", "900", "'toy'", "end at 500"]),
    case("results of 900", task(family="mul_div", max_result=900), ["tasks.other.max_result", "end at 500"]),
    case("step of nothing", task(**STEP), ["tasks.other.of", "'c'", "compositional"]),
    case(
        "more steps than items",
        {"tasks": {"c": PARENT, "s": {**STEP, "circuit": 17}}},
        ["tasks.s.circuit", "17", "tasks.c.circuit"],
    ),
]


@pytest.mark.parametrize(("config", "words"), TASKS)
def test_tasks(tmp_path, config, words):
    assert_refused(tmp_path, write(tmp_path, config), words)


IMPORTS = [
    case("files that are missing", imported(), ["imports.i.checkpoints.00", "no such file", "a.json", "b.json"]),
    case("a folder", imported(checkpoints={"00": ".", "01": "."}), ["imports.i.checkpoints.00", "no such file"]),
    case("format", imported(format="pickle"), ["imports.i.format", "'eap-json'"]),
    case("no base", imported(checkpoints={"01": "a", "02": "b"}), ["imports.i.checkpoints", 'no "00"']),
    case("base alone", imported(checkpoints={"00": "a"}), ["imports.i.checkpoints", "later"]),
    case(
        "labels that are numbers", "imports: {i: {format: eap-json, checkpoints: {0: a, 1: b}}}", ["[0, 1]", "quotes"]
    ),
    case("label", imported(checkpoints={"00": "a", "1": "b"}), ["imports.i.checkpoints.1", "form"]),
    case("list of files", imported(checkpoints=["a", "b"]), ["imports.i.checkpoints", "mapping"]),
    case("architecture", imported(architecture="bert"), ["imports.i.architecture", "'gpt2'"]),
    case("rank true", imported(rank=True), ["imports.i.rank: true"]),
    case("excess", imported(policy="excess"), ["imports.i.policy", "fold"]),
    case("path is a number", imported(checkpoints={"00": 1, "01": 2}), ["imports.i.checkpoints.00", "path"]),
]


@pytest.mark.parametrize(("config", "words"), IMPORTS)
def test_imports(tmp_path, config, words):
    assert_refused(tmp_path, write(tmp_path, config), words)


def test_many_problems_are_told_together_and_cut(tmp_path):
    wrong = {f"m{n}": {"kind": "lora", "rank": 0} for n in range(50)}
    computed_before(tmp_path)
    before = results_of(tmp_path)
    refused = call(write(tmp_path, {"methods": wrong}), tmp_path)
    assert refused.code == 1
    assert refused.text.count("methods.m") == 20
    assert "30 more problems" in refused.text
    assert results_of(tmp_path) == before


def test_the_study_that_the_cases_change_can_be_planned(tmp_path):
    assert call(write(tmp_path, {}), tmp_path).code == 0
