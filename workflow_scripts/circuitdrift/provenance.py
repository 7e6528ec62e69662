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
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 1
RECORDED_PACKAGES = ("torch", "transformers", "peft", "numpy", "pandas", "pyarrow", "scipy")
BASE_CHECKPOINT = "00"
LIBRARY = Path(__file__).resolve().parent


def checkpoint_names(after_base: int) -> tuple[str, ...]:
    """Names of a run's checkpoints in order: the base model's, then ``after_base`` others."""
    return (BASE_CHECKPOINT, *(f"{number:02d}" for number in range(1, after_base + 1)))


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
    Parts of web pages that lie in an imported package count to the byte.

    Args:
        files: a stage script, with the modules that it chooses from at run time, if any.

    Raises:
        SyntaxError: a file does not parse; the message names it.
    """
    given = {file.resolve() for file in files}
    modules = sorted(given.union(*map(_imported_modules, given)), key=str)
    joined = "\n".join(f"{module.name}:{_code_of_module(module).digest}" for module in modules)
    return hashlib.sha256(joined.encode()).hexdigest()[:16]


class _Code(NamedTuple):
    """What a digest needs of one module: a digest of its own syntax tree, and the library files that it imports."""

    digest: str
    imports: frozenset[Path]


@cache
def _code_of_module(module: Path) -> _Code:
    """One walk over a syntax tree, which is not kept: the Snakefile reads every module at each parsing."""
    tree = ast.parse(module.read_text(), filename=str(module))
    dotted: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [statement for statement in node.body if not _is_docstring(statement)] or [ast.Pass()]
        elif isinstance(node, ast.Import):
            dotted.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            dotted.update((node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))
    parts = [ast.dump(tree).encode(), *(file.name.encode() + file.read_bytes() for file in _page_parts(module))]
    digest = hashlib.sha256(b"".join(parts)).hexdigest()
    return _Code(digest, frozenset().union(*map(_files_of, dotted)))


def _page_parts(module: Path) -> list[Path]:
    """HTML, styles and scripts of the package that a module stands for; none of other modules."""
    beside = sorted(module.parent.iterdir()) if module.name == "__init__.py" else []
    return [file for file in beside if file.suffix in {".html", ".css", ".js"}]


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
        for imported in _code_of_module(waiting.pop()).imports:
            if imported not in found:
                found.add(imported)
                waiting.append(imported)
    return found


@cache
def _files_of(dotted: str) -> frozenset[Path]:
    """The library files that importing a dotted name executes; none for other packages."""
    parts = dotted.split(".")
    if parts[0] != LIBRARY.name:
        return frozenset()
    files: set[Path] = set()
    for end in range(1, len(parts) + 1):
        place = LIBRARY.joinpath(*parts[1:end])
        files |= {file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()}
    return frozenset(files)
