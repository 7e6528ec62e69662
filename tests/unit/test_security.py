"""What docs/security.md promises of the code as a whole: nothing that is read is unpickled or run; names stay names."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
from pathlib import Path

import pytest
import torch
import transformers.dynamic_module_utils
from peft import LoraConfig
from safetensors import SafetensorError
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from circuitdrift.config.reading import ConfigError, load_study
from circuitdrift.layout import Layout
from circuitdrift.models.loading import load_model
from circuitdrift.models.manifest import write_manifest
from circuitdrift.provenance import Provenance
from circuitdrift.storage import StorageError, read_tensors, write_json
from circuitdrift.training.adapters import attach_adapters
from circuitdrift.training.checkpoints import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")

# ------------------------------------------------------------------------------------------------- the code

MODULES = {"pickle", "_pickle", "pickletools", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
FUNCTIONS = {"torch.save", "torch.hub.load", "os.system", "os.popen", "yaml.full_load", "yaml.unsafe_load"}
METHODS = {"read_pickle", "to_pickle"} | {
    f"{verb}_object{ending}" for verb in ("all_gather", "gather", "broadcast", "scatter") for ending in ("", "_list")
}
ONLY_VALUES = {"shell": False, "trust_remote_code": False, "allow_pickle": False, "weights_only": True}
CONFIGURATIONS = {"LoraConfig", "PeftConfig"}
"""Classes whose from_pretrained reads one JSON file."""


def dotted(node: ast.expr) -> str:
    """The name that an expression spells, such as ``torch.load``; empty for other expressions."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def faults_of_call(call: ast.Call) -> list[str]:
    """What is unsafe in one call."""
    name = dotted(call.func)
    given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords if keyword.arg}
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    faults = [f"{key}={given[key]}" for key, value in ONLY_VALUES.items() if key in given and given[key] is not value]
    if name in BUILTINS | FUNCTIONS or method in METHODS or name == "yaml.load":
        faults.append(name or method)
    if name == "torch.load" and "weights_only" not in given:
        faults.append("torch.load without weights_only")
    if method == "from_pretrained" and name.split(".")[0] not in CONFIGURATIONS:
        needed = {"trust_remote_code": False, "local_files_only": True}
        if "Model" in name and "gguf_file" not in given:
            needed["use_safetensors"] = True
        faults += [f"{name} without {key}={value}" for key, value in needed.items() if given.get(key) is not value]
    return faults


def faults_of(source: str) -> list[str]:
    """What is unsafe in a module, with its lines."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, a.name) for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append((node.lineno, node.module))
        elif isinstance(node, ast.Call):
            found += [(node.lineno, fault) for fault in faults_of_call(node)]
    return [f"line {line}: {fault}" for line, fault in found]


SOURCES = [path for folder in ("workflow_scripts", "benchmarks", "configs") for path in (ROOT / folder).rglob("*.py")]


def test_no_code_unpickles_or_runs_what_it_reads() -> None:
    assert len(SOURCES) > 100
    faults = {str(path.relative_to(ROOT)): faults_of(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert not any(faults.values()), {path: found for path, found in faults.items() if found}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import joblib.memory",
        "from dill import loads",
        "def f():\n    import marshal",
        "eval(text)",
        "exec(compile(text, 'x', 'exec'))",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "yaml.load(text, Loader=yaml.Loader)",
        "subprocess.run(command, shell=True)",
        "os.system(command)",
        "distributed.all_gather_object(found, value)",
        "AutoModelForCausalLM.from_pretrained(f, local_files_only=True, trust_remote_code=False)",
        "AutoModelForCausalLM.from_pretrained(f, local_files_only=True, use_safetensors=True, trust_remote_code=x)",
        "AutoTokenizer.from_pretrained(f, local_files_only=True)",
        "AutoConfig.from_pretrained(f, trust_remote_code=False)",
        "PeftModel.from_pretrained(model, f)",
    ],
)
def test_the_scan_finds(line: str) -> None:
    assert faults_of(line)


def test_shell_commands_quote_every_value() -> None:
    rules = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "rules").glob("*.smk")))
    commands = re.findall(r'shell:\s*"(.*)"', rules)
    assert len(commands) == len(re.findall(r"^\s*shell:", rules, flags=re.MULTILINE)) > 0
    values = [value for command in commands for value in re.findall(r"\{(.*?)\}", command)]
    assert [value for value in values if not value.endswith(":q")] == ["threads"]
    assert not re.search(r"\b(pickle|eval|exec|os\.system|yaml\.load)\b", rules)


# ------------------------------------------------------------------------------------------- what is loaded


class Payload:
    """Unpickled, it makes the folder ``pickled`` in the working directory."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pickled",)


@pytest.fixture
def trapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A model's manifest and a checkpoint with adapters, with pickles and code beside their weights."""
    monkeypatch.chdir(tmp_path)
    folder, checkpoint = tmp_path / "model", tmp_path / "checkpoint"
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
            max_position_embeddings=8,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    code = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    write_json(folder / "config.json", {**json.loads((folder / "config.json").read_text()), "auto_map": code})
    (folder / "code.py").write_text("import os\nos.mkdir('executed')\n", encoding="utf-8")
    config = LoraConfig(r=2, target_modules=["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"])
    save_checkpoint(attach_adapters(model, config, seed=0), checkpoint, torch.float32, Provenance.detached())
    for place in (folder / "pytorch_model.bin", checkpoint / "adapter_model.bin", folder / "training_args.bin"):
        place.write_bytes(pickle.dumps(Payload()))
    manifest = folder / "manifest.json"
    files = ["config.json", "model.safetensors"]
    write_manifest(manifest, source={"source": "scratch"}, folder=folder, files=files, dtype="float32")
    return manifest, checkpoint


def test_a_model_and_its_adapters_load_without_unpickling_and_without_the_models_code(
    trapped: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, checkpoint = trapped

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("reached")

    for owner, name in [
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
        (transformers.dynamic_module_utils, "get_class_from_dynamic_module"),
        (transformers.dynamic_module_utils, "get_class_in_module"),
    ]:
        monkeypatch.setattr(owner, name, refuse)
    assert load_checkpoint(manifest, checkpoint, CPU).config.num_hidden_layers == 1
    assert sorted(path.name for path in Path().iterdir()) == ["checkpoint", "model"]


def test_pickled_weights_are_never_the_ones_that_are_loaded(trapped: tuple[Path, Path]) -> None:
    manifest, _ = trapped
    (manifest.parent / "model.safetensors").unlink()
    write_manifest(
        manifest, source={"source": "scratch"}, folder=manifest.parent, files=["config.json"], dtype="float32"
    )
    with pytest.raises(OSError, match="safetensors"):
        load_model(manifest, CPU)
    assert not Path("pickled").exists()
    pickle.loads((manifest.parent / "pytorch_model.bin").read_bytes())
    assert Path("pickled").exists()


@pytest.mark.parametrize("length", [2**60, 2**63 + 1, 100])
def test_a_safetensors_header_that_claims_more_than_the_file_has_is_refused(
    trapped: tuple[Path, Path], length: int
) -> None:
    manifest, _ = trapped
    weights = manifest.parent / "model.safetensors"
    weights.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(StorageError, match=r"model\.safetensors: truncated, or not safetensors"):
        read_tensors(weights)
    write_manifest(
        manifest, source={"source": "scratch"}, folder=weights.parent, files=["model.safetensors"], dtype="float32"
    )
    with pytest.raises(SafetensorError):
        load_model(manifest, CPU)


# ---------------------------------------------------------------------------------------------------- names

ATTACKS = [
    "../../x",
    "..",
    ".",
    "",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "=cmd|' /C calc'!A0",
    "+1",
    "-rf",
    "@SUM(A1)",
    "</script><script>alert(1)</script>",
    r"\input{/etc/passwd}",
    "$(touch x)",
    "`touch x`",
    "a;b",
    "a b",
    "{seed}",
    "{{ 7 * 7 }}",
    "a\nb",
    "a\n",
    "a\x00",
    "a\u202eb",
    "a\u200bb",
    "\u0430",
]
LORA = {"kind": "lora", "rank": 2}
SECTIONS = {
    "study": lambda name: {"study": name},
    "models": lambda name: {"models": {name: {"source": "scratch"}}},
    "tasks": lambda name: {"tasks": {name: {"family": "lcm"}}},
    "methods": lambda name: {"methods": {name: LORA}},
    "recipes": lambda name: {"recipes": {name: {"steps": 2}}},
    "imports": lambda name: {"imports": {name: {"format": "eap-json", "checkpoints": {"00": "a", "01": "b"}}}},
}


@pytest.mark.parametrize("section", SECTIONS)
def test_names_that_could_be_more_than_a_name_are_refused(section: str, tmp_path: Path) -> None:
    load_study(SECTIONS[section]("A-plain_name.2"), tmp_path, "config.yaml")
    for name in ATTACKS:
        with pytest.raises(ConfigError, match="does not have the form"):
            load_study(SECTIONS[section](name), tmp_path, "config.yaml")


def patterns_in(files: object) -> list[str]:
    """The paths of a group of files, and of the groups in it."""
    if isinstance(files, str):
        return [files]
    return [pattern for inner in vars(files).values() for pattern in patterns_in(inner)]


@pytest.mark.parametrize("name", ["A-plain_name.2", "a..", "a..b", "0"])
def test_what_may_be_a_name_stays_in_the_results(name: str) -> None:
    layout = Layout(name)
    names = dict.fromkeys(("model", "task", "method", "name", "recipe"), name)
    patterns = patterns_in(layout)
    assert len(patterns) > 40
    for pattern in patterns:
        path = os.path.normpath(pattern.format(seed=0, checkpoint="01", **names))
        assert Path(path).is_relative_to(f"results/{name}"), path


@pytest.mark.parametrize(
    "package", ["--index-url==1", "-r==1", "../x==1", "a==1 --pre", "a==1\n", "a @ https://x", "a"]
)
def test_a_package_is_a_name_and_an_exact_version(package: str, tmp_path: Path) -> None:
    model = {"source": "package", "package": package, "file": "a.gguf", "sha256": "0" * 64}
    with pytest.raises(ConfigError, match=r"models\.m\.package"):
        load_study({"models": {"m": model}}, tmp_path, "config.yaml")
