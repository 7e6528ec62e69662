"""Where a file comes from: what every Parquet footer and safetensors header carries, and digests of code and config.

No timestamps and no host names: the same inputs give the same bytes. No torch: the Snakefile uses the digests.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 1
RECORDED_PACKAGES = ("torch", "transformers", "peft", "numpy", "pandas", "pyarrow", "scipy")
BASE_CHECKPOINT = "00"
LIBRARY = Path(__file__).resolve().parent


class Provenance(BaseModel):
    """The origin of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    rule: str
    wildcards: dict[str, str]
    config_digest: str
    code_digest: str
    packages: dict[str, str]
    seed: int | None = None
    device: str | None = None
    dtype: str | None = None

    @classmethod
    def of_rule(cls, rule: str, wildcards: Mapping[str, str], params: Any, code_digest: str) -> Provenance:
        """Provenance of a rule's outputs, for one job: its wildcards, the config it was given, its code."""
        seed = wildcards.get("seed")
        return cls(
            rule=rule,
            wildcards=dict(wildcards),
            config_digest=digest_of_config(params),
            code_digest=code_digest,
            packages={name: version(name) for name in RECORDED_PACKAGES},
            seed=None if seed is None else int(seed),
        )

    @classmethod
    def detached(cls, **wildcards: str) -> Provenance:
        """Provenance of something computed outside the workflow: in a test or a notebook."""
        return cls.of_rule("none", wildcards, {}, "none")

    def on(self, device: object, dtype: object) -> Provenance:
        """The same, with the device type (cpu, cuda, mps) and dtype that the numbers were computed in."""
        return self.model_copy(update={"device": str(device).split(":")[0], "dtype": str(dtype).removeprefix("torch.")})

    def with_seed(self, seed: int) -> Provenance:
        """The same, with the seed of a rule whose wildcards hold none."""
        return self.model_copy(update={"seed": seed})

    def for_checkpoint(self, checkpoint: str) -> Provenance:
        """The same, for one of the checkpoints that a job writes files for."""
        return self.model_copy(update={"wildcards": {**self.wildcards, "checkpoint": checkpoint}})

    def as_header(self) -> dict[str, str]:
        """The one entry that file footers and headers carry, as JSON with sorted keys."""
        return {"provenance": json.dumps(self.model_dump(mode="json"), sort_keys=True)}


def digest_of_config(section: Any) -> str:
    """Short sha256 of a JSON-like value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(section, sort_keys=True, default=str).encode()).hexdigest()[:16]


def digest_of_code(*files: Path) -> str:
    """Short sha256 of Python files, and of every library module that they import, directly or not.

    It covers the syntax trees without docstrings, so that a comment, a docstring or a reformatting changes nothing.

    Args:
        files: a stage script, with the modules that it chooses from at run time, if any.

    Raises:
        SyntaxError: a file does not parse; the message names it.
    """
    given = {file.resolve() for file in files}
    modules = sorted(given.union(*map(_imported_modules, given)))
    joined = "\n".join(f"{module.name}:{_digest_of_module(module)}" for module in modules)
    return hashlib.sha256(joined.encode()).hexdigest()[:16]


@cache
def _syntax_tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text(), filename=str(module))


@cache
def _digest_of_module(module: Path) -> str:
    tree = ast.parse(module.read_text(), filename=str(module))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [statement for statement in node.body if not _is_docstring(statement)] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _imported_modules(module: Path) -> set[Path]:
    """Files of this library that a module imports, transitively."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        for imported in _direct_imports(waiting.pop()):
            if imported not in found:
                found.add(imported)
                waiting.append(imported)
    return found


@cache
def _direct_imports(module: Path) -> frozenset[Path]:
    files: set[Path] = set()
    for node in ast.walk(_syntax_tree(module)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                files |= _files_of(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            files |= _files_of(node.module)
            for alias in node.names:
                files |= _files_of(f"{node.module}.{alias.name}")
    return frozenset(files)


def _files_of(dotted: str) -> set[Path]:
    """The library files that importing a dotted name executes; none for other packages."""
    parts = dotted.split(".")
    if parts[0] != LIBRARY.name:
        return set()
    files = set()
    for end in range(1, len(parts) + 1):
        place = LIBRARY.joinpath(*parts[1:end])
        files |= {file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()}
    return files
