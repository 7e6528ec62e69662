"""What the stage scripts import: most jobs are short, so that a job's start can take longer than its work.

Each group of scripts is imported in one process. If a test fails, ``python -X importtime -c "import SCRIPT"`` in
``workflow_scripts`` shows which module imports the library. Import it in the function that needs it, or move the
function to a module that the stage does not import. If a stage needs a library now, move it to another group here.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import circuitdrift
from circuitdrift.models.embedded_tokenizer import build_tokenizer
from circuitdrift.models.manifest import write_manifest
from circuitdrift.models.tokenizer import load_tokenizer
from circuitdrift.provenance import _imported_modules
from circuitdrift.stage import ONLINE
from circuitdrift.tasks.tokenization import encode_answer, encode_prompt

SCRIPTS = Path(circuitdrift.__file__).parents[1]

LIGHT = {
    "check_model",
    "clean_study",
    "compare_circuits",
    "generate_data",
    "measure_overlaps",
    "plan",
    "plot_figure",
    "report",
    "write_config",
    "write_table",
}
"""Stages of tables and tokenizers."""

WITH_TENSORS = {
    "classify_edges",
    "export_circuits",
    "import_circuits",
    "locate_changes",
    "measure_controls",
    "measure_model_controls",
    "measure_recipe_reliability",
    "measure_reliability",
    "measure_robustness",
    "measure_untrained_robustness",
    "select_base_circuit",
    "select_circuits",
    "unite_circuits",
}
"""Stages of circuits as tensors, without a model."""

WITH_A_MODEL = {
    "export_peft_experiment",
    "fetch_checkpoint",
    "fetch_model",
    "measure_accuracy",
    "measure_faithfulness",
    "measure_functional_drift",
    "measure_recipe_faithfulness",
    "measure_union_faithfulness",
    "pretrain",
    "score_edges",
    "score_controls",
    "score_perturbed",
    "measure_gradients",
    "score_untrained",
    "select_minimal_circuits",
}
"""Stages that run a model; peft comes with the first checkpoint that has adapters."""

WITH_ADAPTERS = {
    "allocate_circuit_lora",
    "allocate_imported_ranks",
    "allocate_random_lora",
    "allocate_ranks",
    "finetune",
    "measure_activation_ranks",
    "search_learning_rate",
}
"""Stages that attach adapters or write their configuration."""

# Libraries that no stage of a group imports, and the most modules of the group as a multiple of those of torch alone.
LIMITS = [
    (LIGHT, {"torch", "transformers", "peft", "safetensors"}, None),
    (WITH_TENSORS, {"transformers", "peft", "scipy.stats", "scipy.optimize", "sympy", "torch._dynamo"}, 1.75),
    (WITH_A_MODEL, {"peft", "scipy.stats"}, 3.1),
    (WITH_ADAPTERS, {"scipy.stats"}, 3.4),
]


LONG_IMPORTS = {"numpy", "pandas", "peft", "psutil", "pyarrow", "pydantic", "scipy", "torch", "transformers"}
"""None of these is imported before a job is handed over."""


def output_of(program: str) -> list[str]:
    """The words that a Python process prints that runs a program in the folder of the scripts."""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=SCRIPTS)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.split()


@cache
def modules_after(*names: str) -> set[str]:
    imports = "\n".join(f"import {name}" for name in names)
    return set(output_of(f"{imports}\nimport sys\nprint(*sys.modules)"))


def test_every_script_belongs_to_one_group():
    grouped = sorted(script for scripts, _, _ in LIMITS for script in scripts)
    assert grouped == sorted(path.stem for path in SCRIPTS.glob("*.py"))


@pytest.mark.parametrize(("scripts", "unwanted", "multiple"), LIMITS, ids=["light", "tensors", "model", "adapters"])
def test_scripts_import_no_more_than_they_need(scripts, unwanted, multiple):
    imported = modules_after(*sorted(scripts))
    assert scripts <= imported
    assert not unwanted & imported
    if multiple is None:
        return
    assert len(imported) <= multiple * len(modules_after("torch"))


@pytest.mark.parametrize("script", ["generate_data"])
def test_jobs_that_encode_prompts_hide_torch(script):
    """Checked where the script calls its ``main``, in a process that runs it as Snakemake does."""
    program = (
        "import runpy, sys\n"
        "from circuitdrift import stage\n"
        "stage.run = lambda main: print(sys.modules.get('torch', 'visible'))\n"
        f"runpy.run_path('{script}.py', run_name='__main__')\n"
    )
    assert output_of(program) == ["None"]


def test_a_tokenizer_encodes_the_same_without_torch(tmp_path):
    names = {Path(path).name for path in build_tokenizer(500).save_pretrained(tmp_path) if Path(path).is_file()}
    manifest = tmp_path / "manifest.json"
    write_manifest(manifest, source={"source": "scratch"}, folder=tmp_path, files=sorted(names), dtype="float32")
    prompt, answer = "72 - 46 =", " 26"
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from circuitdrift.models.tokenizer import load_tokenizer, tokenizers_only\n"
        "from circuitdrift.tasks.tokenization import encode_answer, encode_prompt\n"
        "with tokenizers_only():\n"
        f"    tokenizer = load_tokenizer(Path({str(manifest)!r}))\n"
        f"    print(*encode_prompt(tokenizer, {prompt!r}), *encode_answer(tokenizer, {answer!r}))\n"
        "assert 'torch' not in sys.modules\n"
    )
    tokenizer = load_tokenizer(manifest)
    assert output_of(program) == [
        str(i) for i in [*encode_prompt(tokenizer, prompt), *encode_answer(tokenizer, answer)]
    ]


@pytest.mark.parametrize("early", ["torch", "transformers"])
def test_a_process_that_has_torch_keeps_it(early):
    """As the forks of the preloaded process do."""
    program = (
        f"import {early}, sys\n"
        "from circuitdrift.models.tokenizer import tokenizers_only\n"
        "before = sys.modules.get('torch')\n"
        "with tokenizers_only():\n"
        "    print(sys.modules.get('torch') is before, end=' ')\n"
        "print(sys.modules.get('torch') is before)\n"
    )
    assert output_of(program) == ["True", "True"]


def test_the_search_for_garbage_rests_while_a_job_imports():
    by_hand = "import gc\nfrom circuitdrift import stage\nprint(gc.isenabled())"
    assert output_of(by_hand) == ["True"]
    in_a_job = (
        "from types import SimpleNamespace\n"
        "from snakemake.iocontainers import Namedlist\n"
        "files = Namedlist()\n"
        "snakemake = SimpleNamespace(\n"
        "    input=files, output=files, params=Namedlist(fromdict={'code': ''}), wildcards=files, rule='', log=[]\n"
        ")\n"
        "import gc\nfrom circuitdrift import stage\n"
        "print(gc.isenabled())\n"
        "stage.run(lambda: print(gc.isenabled()))\n"
    )
    assert output_of(in_a_job) == ["False", "True"]


def test_the_binder_is_what_every_script_imports_first():
    """It hands the job over, or takes the hub off line, which huggingface_hub reads once, when it is imported."""
    for script in sorted(SCRIPTS.glob("*.py")):
        imports = [node for node in ast.parse(script.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert ast.unparse(imports[0]) == "from circuitdrift import stage", script.name


def test_every_script_hands_its_job_over_before_it_imports_what_takes_long():
    """Each runs in a fork of its own, as in a job of Snakemake, up to there."""
    scripts = {path.stem for path in SCRIPTS.glob("*.py")} - ONLINE
    program = (
        "import os, runpy, sys, types\n"
        "from circuitdrift import preloaded\n"
        "def report():\n"
        f"    print(script, *sorted({LONG_IMPORTS} & set(sys.modules)), sep='+', flush=True)\n"
        "    os._exit(0)\n"
        "preloaded.hand_over = report\n"
        "main = sys.modules['__main__']\n"
        "main.snakemake = types.SimpleNamespace()\n"
        f"for script in {sorted(scripts)}:\n"
        "    main.__file__ = f'.snakemake/scripts/tmpab12.{script}.py'\n"
        "    if os.fork() == 0:\n"
        "        try:\n"
        "            runpy.run_path(f'{script}.py')\n"
        "        finally:\n"
        "            os._exit(1)\n"
        "    os.wait()\n"
    )
    assert output_of(program) == sorted(scripts)


@pytest.mark.parametrize(
    ("rule", "script", "offline"),
    [
        ("score_edges_base", "score_edges", "True"),
        ("fetch_model", "fetch_model", "False"),
        ("circuitdrift_fetch_model", "fetch_model", "False"),
    ],
)
def test_no_job_but_the_download_reaches_the_hub(rule, script, offline):
    program = (
        "import sys, types\n"
        f"sys.modules['__main__'].snakemake = types.SimpleNamespace(rule='{rule}')\n"
        f"sys.modules['__main__'].__file__ = '.snakemake/scripts/tmpab12.{script}.py'\n"
        "from circuitdrift import stage\n"
        "from huggingface_hub import constants\n"
        "print(constants.HF_HUB_OFFLINE)\n"
    )
    assert output_of(program) == [offline]


def test_only_the_stages_that_may_reach_the_hub_import_what_downloads():
    library = Path(circuitdrift.__file__).parent
    downloading = {library / "models" / "hub.py", library / "models" / "package.py"}
    reaching = {script.stem for script in SCRIPTS.glob("*.py") if _imported_modules(script) & downloading}
    assert reaching == ONLINE
