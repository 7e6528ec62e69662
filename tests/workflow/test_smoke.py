"""The smoke study end to end, and what an edit makes Snakemake do again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import networkx
import pyarrow.parquet as pq
import pytest
from checkout import ROOT, Workflow, copy_repository
from chromium import chromium, errors_of, requests_of, wait_for
from safetensors import safe_open
from selenium.webdriver.common.by import By

from circuitdrift.storage import read_json, read_table

SCORING = {"score_edges_base", "score_edges_01_to_02", "score_controls_reworded", "score_untrained"}
SCORING |= {"score_perturbed", "score_perturbed_base"}
SELECTION = {"select_base_circuit", "select_circuits"}
FAITHFULNESS = {"measure_faithfulness_base", "measure_faithfulness_01_to_02"}
DRIFT_TABLES = ["transitions", "summary", "layers", "reliability", "nodes_and_edges"]
DRIFT_TABLES += ["edges_changed", "edge_counts", "functional"]
DRIFT_TABLES += ["robustness", "where", "node_induced", "layer_orders"]
MAKING = {"pretrain", "generate_data_reworded", "finetune"}


def digests(results: Path) -> dict[str, str]:
    kinds = {".parquet", ".safetensors", ".json"}
    files = [path for path in sorted(results.rglob("*")) if path.suffix in kinds]
    return {str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def smoke_and_output(tmp_path_factory) -> tuple[Workflow, str]:
    folder = tmp_path_factory.mktemp("smoke")
    made = Workflow(copy_repository(folder / "repository"), folder / "elsewhere")
    made.directory.mkdir()
    result = made.call("report", "--cores", "2")
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-9000:]
    return made, output


@pytest.fixture(scope="module")
def smoke(smoke_and_output) -> Workflow:
    return smoke_and_output[0]


@pytest.fixture
def edited(smoke):
    """Edits a file of the repository for the length of a test."""
    originals = {}

    def edit(name: str, old: str, new: str) -> None:
        path = smoke.repository / name
        text = path.read_text()
        originals.setdefault(path, text)
        assert old in text
        path.write_text(text.replace(old, new))

    yield edit
    for path, text in originals.items():
        path.write_text(text)


def test_it_leaves_every_promised_file(smoke):
    results = smoke.directory / "results" / "smoke"
    run = "toy/add_sub_100/lora_r1/seed-0"
    promised = [
        "config.json",
        "models/toy/manifest.json",
        "models/toy/config.json",
        "models/toy/model.safetensors",
        *(f"data/toy/add_sub_100/{split}.parquet" for split in ("train", "circuit", "test")),
        *(f"runs/{run}/checkpoints/{c}/adapter_model.safetensors" for c in ("00", "01", "02")),
        *(f"runs/{run}/{table}.parquet" for table in ("training_log", "accuracy", "predictions")),
        *(
            f"circuits/{place}/{name}"
            for place in ("toy/add_sub_100/base", f"{run}/01", f"{run}/02")
            for name in ("scores.safetensors", "edges.parquet", "nodes.parquet", "faithfulness.parquet")
        ),
        *(f"drift/{run}/{table}.parquet" for table in DRIFT_TABLES),
        "data/toy/add_sub_100/circuit_reworded.parquet",
        "circuits/toy/add_sub_100/base/reworded/scores.safetensors",
        *(f"circuits/toy/add_sub_100/untrained/seed-{seed}/scores.safetensors" for seed in (0, 1)),
        "drift/toy/add_sub_100/model_controls.parquet",
        "drift/toy/add_sub_100/untrained_robustness.parquet",
        *(f"circuits/{place}/perturbed/scores.safetensors" for place in ("toy/add_sub_100/base", f"{run}/02")),
        "circuits/toy/add_sub_100/base/recipes/ceap/scores.safetensors",
        *(f"recipes/toy/add_sub_100/recipe_{table}.parquet" for table in ("reliability", "faithfulness", "areas")),
        "circuits/toy/add_sub_100/base/kinds/scores_by_kind.safetensors",
        "allocation/toy/add_sub_100/circuit_lora_1_3/seed-1/critical_layers.parquet",
        "allocation/toy/add_sub_100/circuit_lora_1_3/seed-1/adapter_config.json",
    ]
    assert [name for name in promised if not (results / name).is_file()] == []
    for kind in ("pdf", "svg", "png", "parquet"):
        assert len(list((results / "figures").glob(f"*.{kind}"))) >= 6
    for kind in ("csv", "md", "tex"):
        assert len(list((results / "tables").glob(f"*.{kind}"))) >= 3


def test_every_file_says_where_it_comes_from(smoke):
    results = smoke.directory / "results" / "smoke"
    for path in results.rglob("*.parquet"):
        provenance = json.loads(pq.read_schema(path).metadata[b"provenance"])
        assert all(provenance[key] for key in ("rule", "code_digest", "config_digest", "packages")), path
    for path in results.rglob("scores.safetensors"):
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata()
        assert json.loads(metadata["provenance"])["device"] == "cpu"
        assert json.loads(metadata["writers"])[0] == "input"
        assert json.loads(metadata["readers"])[-1] == "logits"


def test_each_job_ends_with_a_line_of_progress(smoke_and_output):
    lines = re.findall(r"^(\S+): \d+ (?:s|min); (\d+) of (\d+) jobs, (.+)$", smoke_and_output[1], re.MULTILINE)
    numbers = [int(done) for _, done, _, _ in lines]
    assert numbers == list(range(1, int(lines[0][2]) + 1))
    assert any(name.startswith("finetune/") for name, *_ in lines)
    assert all(left.startswith("about ") and left.endswith(" left") for *_, left in lines[:-1])
    assert lines[-1][-1] == "all done"


def test_a_finished_study_has_an_empty_plan(smoke):
    result = smoke.call("plan")
    assert result.returncode == 0, result.stderr
    assert "smoke: nothing is left to do" in result.stdout


def test_a_second_run_has_nothing_to_do(smoke):
    result = smoke.call("--cores", "2")
    assert result.returncode == 0
    assert "Nothing to be done" in result.stdout + result.stderr
    assert smoke.rules_to_run() == set()


def test_the_profile_may_be_left_out(smoke):
    assert smoke.rules_to_run("--workflow-profile", "none") == set()


def test_the_same_study_twice_gives_the_same_bytes(smoke, tmp_path):
    again = Workflow(smoke.repository, tmp_path)
    result = again.call("--cores", "2")
    assert result.returncode == 0, result.stderr[-6000:]
    first, second = digests(smoke.directory / "results"), digests(tmp_path / "results")
    assert len(first) > 50
    assert {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)} == set()


def test_a_new_circuit_fraction_selects_again_but_does_not_score_again(smoke, edited):
    edited("configs/smoke.yaml", "fraction: 0.2", "fraction: 0.3")
    rules = smoke.rules_to_run()
    assert rules >= SELECTION | FAITHFULNESS | {"allocate_circuit_lora", "write_config"}
    assert not rules & (SCORING | MAKING - {"finetune"})


def test_a_search_for_learning_rates_trains_again_and_makes_nothing_before_that_again(smoke, edited):
    edited("configs/smoke.yaml", "study: smoke", "study: smoke\nlearning_rate_search: {rates: [0.5, 2]}")
    result = smoke.call("--dry-run")
    assert len(re.findall(r"^rule search_learning_rate:$", result.stdout + result.stderr, re.MULTILINE)) == 4
    rules = smoke.rules_to_run()
    assert rules >= {"finetune", "tabulate_learning_rates"}
    assert not rules & (MAKING - {"finetune"} | {"score_edges_base"})


def test_another_number_of_checkpoints_trains_every_run_again(smoke, edited):
    for number in (1, 3):
        edited("configs/smoke.yaml", "checkpoints: 2", f"checkpoints: {number}")
        result = smoke.call("--dry-run")
        assert len(re.findall(r"^rule finetune:$", result.stdout + result.stderr, re.MULTILINE)) == 8
        edited("configs/smoke.yaml", f"checkpoints: {number}", "checkpoints: 2")


def test_a_new_figure_style_redraws_figures_alone(smoke, edited):
    edited("configs/smoke.yaml", "study: smoke", "study: smoke\nfigures: {dpi: 80}")
    rules = smoke.rules_to_run()
    assert rules
    assert all(name.startswith("plot_") for name in rules - {"write_config"})


def test_a_new_number_of_bootstrap_resamples_measures_faithfulness_again(smoke, edited):
    edited("configs/smoke.yaml", "bootstrap: 100", "bootstrap: 200")
    rules = smoke.rules_to_run()
    assert rules >= FAITHFULNESS
    assert not rules & (SCORING | SELECTION | MAKING)


def test_a_new_number_of_resamples_allocates_again_but_does_not_select_again(smoke, edited):
    edited("configs/smoke.yaml", "exchanges: 19", "exchanges: 19, resamples: 100")
    rules = smoke.rules_to_run()
    assert rules >= {"allocate_circuit_lora", "classify_edges"}
    assert not rules & (SCORING | SELECTION | FAITHFULNESS | MAKING - {"finetune"})
    assert not rules & {"allocate_random_lora", "measure_reliability"}


def test_another_number_of_splits_or_draws_measures_robustness_again_and_nothing_else(smoke, edited):
    showing = {"plot_robustness", "tabulate_robustness", "tabulate_verdicts", "write_config"}
    edited("configs/smoke.yaml", "exchanges: 19", "exchanges: 19, disjoint_splits: 4")
    assert smoke.rules_to_run() == {"measure_robustness", "measure_untrained_robustness", *showing}
    edited("configs/smoke.yaml", "disjoint_splits: 4", "perturbed_draws: 3")
    assert smoke.rules_to_run() == {"measure_robustness", *showing}


def test_new_ranks_of_one_method_allocate_and_train_that_method_again(smoke, edited):
    edited("configs/smoke.yaml", "kind: random_lora, rank: 1", "kind: random_lora, rank: 2")
    result = smoke.call("--dry-run")
    ran = re.findall(r"^rule (allocate_\S+|finetune):$", result.stdout + result.stderr, re.MULTILINE)
    assert sorted(ran) == ["allocate_random_lora"] * 2 + ["finetune"] * 2
    assert not smoke.rules_to_run() & (SCORING | SELECTION | FAITHFULNESS)


def test_another_scale_of_the_adapters_trains_again_and_makes_nothing_before_that_again(smoke, edited):
    edited("configs/smoke.yaml", "training: {epochs: 1", "training: {lora_alpha_per_rank: 1, epochs: 1")
    rules = smoke.rules_to_run()
    assert rules >= {"finetune", "allocate_circuit_lora", "allocate_random_lora"}
    assert not rules & {"pretrain", "generate_data_reworded", "score_edges_base", "select_base_circuit"}


def test_another_seed_runs_no_finished_fine_tuning_again(smoke, edited):
    edited("configs/smoke.yaml", "seeds: [0, 1]", "seeds: [0, 1, 2]")
    result = smoke.call("--dry-run")
    seeds = re.findall(r"^rule finetune:\n(?:    .*\n)*?    wildcards: .*seed=(\d)", result.stdout, re.MULTILINE)
    assert seeds == ["2"] * 4
    assert "allocate_random_lora" in smoke.rules_to_run()


def test_an_edited_library_module_re_runs_the_rules_that_use_it(smoke, edited):
    edited("workflow_scripts/circuitdrift/drift/layers.py", "from __future__ import annotations\n", EDIT)
    rules = smoke.rules_to_run()
    assert "select_circuits" in rules
    assert not rules & (SCORING | MAKING - {"finetune"} | {"select_base_circuit", "measure_faithfulness_base"})


EDIT = "from __future__ import annotations\n\nADDED_BY_A_TEST = 1\n"


def test_an_edited_figure_is_drawn_again_and_no_other(smoke, edited):
    edited("workflow_scripts/circuitdrift/figures/layer_changes.py", "from __future__ import annotations\n", EDIT)
    assert smoke.rules_to_run() == {"plot_layer_changes"}


def test_an_edited_table_is_written_again_and_no_other(smoke, edited):
    edited("workflow_scripts/circuitdrift/figures/critical_layers.py", "from __future__ import annotations\n", EDIT)
    assert smoke.rules_to_run() == {"tabulate_critical_layers"}


def test_a_comment_or_a_docstring_re_runs_nothing(smoke, edited):
    module = "workflow_scripts/circuitdrift/drift/layers.py"
    edited(module, "from __future__ import annotations\n", "from __future__ import annotations\n\n# a comment\n")
    edited("workflow_scripts/select_circuits.py", '"""Select', '"""Edited: select')
    assert smoke.rules_to_run() == set()
    assert smoke.rules_to_run("--workflow-profile", "none") == set()


def test_triggers_that_the_user_names_are_obeyed(smoke, edited):
    edited("workflow_scripts/select_circuits.py", '"""Select', '"""Edited: select')
    assert "select_circuits" in smoke.rules_to_run("--rerun-triggers", "code", "mtime")
    every = ("code", "input", "mtime", "params", "software-env")
    assert "select_circuits" in smoke.rules_to_run("--rerun-triggers", *every)
    edited("configs/smoke.yaml", "bootstrap: 100", "bootstrap: 200")
    assert smoke.rules_to_run("--rerun-triggers", "mtime") == set()


def by_hand(smoke: Workflow, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(smoke.repository / "workflow_scripts" / f"{script}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=smoke.directory)


def test_a_stage_that_is_started_by_hand_does_the_job_that_makes_a_file(smoke):
    nodes = smoke.directory / "results/smoke/circuits/toy/add_sub_100/base/nodes.parquet"
    before, times = nodes.read_bytes(), nodes.stat()
    edges = nodes.with_name("edges.parquet")
    edges_times = edges.stat()
    nodes.unlink()
    config = ("--configfile", str(smoke.repository / "configs" / "smoke.yaml"))
    result = by_hand(smoke, "select_base_circuit", str(nodes.relative_to(smoke.directory)), *config)
    assert result.returncode == 0, result.stderr
    assert nodes.read_bytes() == before
    for path, stat in ((nodes, times), (edges, edges_times)):
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert smoke.rules_to_run() == set()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["usage: select_base_circuit.py", "file"]),
        (["results/smoke/config.json"], ["made by write_config.py", "not by select_base_circuit.py"]),
        (["results/smoke/absent.parquet"], ["cannot plan results/smoke/absent.parquet"]),
    ],
)
def test_a_stage_that_is_started_by_hand_says_what_it_needs(smoke, arguments, words):
    config = ("--configfile", str(smoke.repository / "configs" / "smoke.yaml"))
    result = by_hand(smoke, "select_base_circuit", *arguments, *(config if arguments else ()))
    assert result.returncode == 2
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr


def test_a_fresh_checkout_re_runs_nothing(smoke):
    for path in [*(smoke.repository / "workflow_scripts").rglob("*.py"), *(smoke.repository / "rules").glob("*.smk")]:
        path.touch()
    assert smoke.rules_to_run() == set()
    assert smoke.rules_to_run("--workflow-profile", "none") == set()


def test_the_call_ends_with_the_places_of_what_it_made(smoke_and_output):
    assert (
        "smoke: done. figures: results/smoke/figures   tables: results/smoke/tables   report: results/smoke/report.html"
        in (smoke_and_output[1])
    )


@pytest.fixture(scope="module")
def report(smoke) -> str:
    return (smoke.directory / "results" / "smoke" / "report.html").read_text()


def test_the_report_shows_every_figure_and_every_table(smoke, report):
    results = smoke.directory / "results" / "smoke"
    shown = [*(results / "figures").glob("*.svg"), *(results / "tables").glob("*.html")]
    assert len(shown) > 20
    assert [path.name for path in shown if not re.search(rf"\b{path.stem}\{path.suffix}", report)] == []


TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("command", [line for block in blocks("bash") for line in block.splitlines()])
def test_the_commands_of_the_tutorial_run(smoke, command):
    program, *words = command.split()
    assert program == ".venv/bin/snakemake"
    assert words[-2:] == ["--configfile", "configs/smoke.yaml"]
    result = smoke.call(*words[:-2])
    assert result.returncode == 0, result.stderr


def test_the_python_of_the_tutorial_runs(smoke):
    for code in blocks("python"):
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=smoke.directory)
        assert result.returncode == 0, result.stderr
        assert len(result.stdout.splitlines()) > 1


def test_the_files_of_the_tutorial_are_there(smoke):
    named = re.findall(r"^\| `(results/\S+)`", TUTORIAL, re.MULTILINE)
    assert len(named) > 10
    assert [name for name in named if not (smoke.directory / name).exists()] == []


def test_the_report_loads_nothing_and_has_the_graph_of_the_rules_on_a_page_of_its_own(report):
    assert not re.search(
        r"""<(?:script|img|iframe)[^>]*\ssrc=["']?(?:https?:)?//|<link[^>]*href=["']?(?:https?:)?//""", report
    )
    numbers = json.loads(re.search(r"var metadata = (\{.*?\});", report)[1])
    assert "system-message" not in report  # what docutils makes of a caption that it cannot read
    assert numbers["Fine-tunings"] == 8  # with these, Snakemake's first page is the introduction


def open_explorer_of_report(browser, page):
    """Open a report, and go on in the explorer inside it."""
    browser.get(page.as_uri())
    wait_for(browser, "document.body.innerText.includes('Explorer')")
    browser.find_element(By.XPATH, "//span[contains(text(), 'Explorer')]").click()
    wait_for(browser, "document.querySelector('a[iconname=eye]')").click()
    browser.switch_to.frame(wait_for(browser, "document.querySelector('iframe')"))
    wait_for(browser, "document.body?.dataset.ready")


def test_the_report_as_a_folder_has_the_same_results(smoke, report, tmp_path):
    result = smoke.call("report_folder", "--cores", "1")
    assert result.returncode == 0, result.stderr
    with zipfile.ZipFile(smoke.directory / "results" / "smoke" / "report.zip") as opened:
        held = {Path(name).name for name in opened.namelist()}
    results = smoke.directory / "results" / "smoke"
    shown = {path.name for path in [*(results / "figures").glob("*.svg"), *(results / "tables").glob("*.html")]}
    assert held == {*shown, "explorer.html", "report.html"}
    shutil.unpack_archive(results / "report.zip", tmp_path)
    (page,) = tmp_path.rglob("report.html")
    with chromium() as browser:
        open_explorer_of_report(browser, page)
        asked = requests_of(browser, page)
        assert asked
        assert all(address.startswith(page.parent.as_uri()) for address in asked)
        assert errors_of(browser) == []


def test_a_report_is_made_again_after_an_edit_of_a_caption_and_not_without(smoke, edited):
    assert smoke.rules_to_run("report") == set()
    edited("docs/captions/workflow.rst", "Circuit drift\n", "The drift of circuits\n")
    assert smoke.rules_to_run("report") == {"report"}


def test_the_explorer_and_the_report_open_in_a_browser(smoke):
    results, run = smoke.directory / "results" / "smoke", "toy/add_sub_100/lora_r1/seed-0"
    figures = results / "figures"
    changed = read_table(results / "drift" / run / "edges_changed.parquet", "edges_changed")
    circuits = (results / "circuits" / "toy" / "add_sub_100" / "base", results / "circuits" / run / "02")
    before, after = (read_table(circuit / "edges.parquet", "edges")["in_circuit"] for circuit in circuits)
    statuses = changed.loc[before | after, "change"].replace({"outside": "undecided"})
    with chromium() as browser:
        browser.get((figures / "explorer.html").as_uri())
        wait_for(browser, "document.body.dataset.ready")
        counts = browser.execute_script("return document.querySelector('#first .counts').textContent")
        for name in ("kept", "gained", "lost"):
            assert f" {(statuses == name).sum()} {name}" in counts.split("; nodes")[0]
        assert errors_of(browser) == []
        assert requests_of(browser, figures / "explorer.html") == []
        open_explorer_of_report(browser, results / "report.html")
        assert "Circuit drift: smoke" in browser.execute_script("return document.body.innerText")
        assert errors_of(browser) == []
        assert requests_of(browser, results / "report.html") == []


def test_every_circuit_can_be_exported(smoke):
    result = smoke.call("exports", "--cores", "1")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]
    circuits = smoke.directory / "results" / "smoke" / "circuits" / "toy" / "add_sub_100"
    tables = sorted(circuits.rglob("edges.parquet"))
    assert len(tables) == 5
    for table in tables:
        edges = read_table(table, "edges")
        written = read_json(table.parent / "exchange" / "add_sub_100_toy" / "importances.json")
        assert written["cfg"] == {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": True, "d_model": 32}
        assert [edge["score"] for edge in written["edges"].values()] == edges["score"].tolist()
        merged = read_json(table.parent / "exchange" / "merged.json")
        kept = edges[edges["in_circuit"]]
        assert sum(edge["in_graph"] for edge in merged["edges"].values()) == len(
            kept[["source", "target"]].drop_duplicates()
        )
        graph = networkx.read_graphml(table.parent / "exchange" / "circuit.graphml")
        assert graph.number_of_edges() == edges["in_circuit"].sum()
    assert smoke.rules_to_run("exports") == set()
    assert smoke.rules_to_run() == set()
