"""What `mkdocs build` needs beyond mkdocs: the pages of the whole repository, and a reference that the code gives."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "workflow_scripts"
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+?)(?:#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the files below docs_dir by pages and linked files at their places in the repository."""
    pages = [ROOT / name for name in sorted(_in_nav(config.nav)) if not name.startswith("docs/reference/")]
    linked = {target for page in pages for target in _linked(page) if target not in pages}
    kept = [file for file in files if file.inclusion != InclusionLevel.INCLUDED or file.src_uri.startswith("assets/")]
    styles = [ROOT / name for name in config.extra_css]
    kept += [_at_its_place(path, config) for path in [*pages, *styles, *sorted(linked)]]
    for name, text in reference().items():
        kept.append(File.generated(config, f"docs/reference/{name}.md", content=text))
    return Files(kept)


def on_page_content(html: str, **page: Any) -> str:
    """Set formulas as MathML, which browsers show without a script."""
    return FORMULA.sub(
        lambda found: convert(unescape(found[3]), display="block" if found[1] == "div" else "inline"), html
    )


def _in_nav(entries: Any) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            (value,) = entry.values()
            yield from _in_nav(value) if isinstance(value, list) else (value,)


def _linked(page: Path) -> Iterator[Path]:
    """The files of the repository that a page links to."""
    for link in LINK.findall(page.read_text()):
        if "://" not in link and (target := (page.parent / link).resolve()).is_file():
            yield target


def _at_its_place(path: Path, config: MkDocsConfig) -> File:
    name = path.relative_to(ROOT).as_posix()
    return File(name, str(ROOT), config.site_dir, config.use_directory_urls)


def reference() -> dict[str, str]:
    """The pages of the reference, by name."""
    return {
        "config": config_reference(json.loads((ROOT / "configs" / "study.schema.json").read_text())),
        "targets": targets_reference(sorted((ROOT / "rules").glob("*.smk"))),
        "files": files_reference(),
        "library": library_reference(),
    }


# Config


def config_reference(schema: dict[str, Any]) -> str:
    """Every key of a config file: a table for the file, and one for each of its sections."""
    sections = [
        "# Config keys",
        "Every key of a config file with its type, default and limits, from the code that reads it. "
        "[config.yaml](../../config.yaml) has comments; [method.md](../method.md) says what the settings mean.",
        "## The file",
        _table_of_keys(schema),
    ]
    for name, section in sorted(schema["$defs"].items()):
        told = section.get("description", "").split("\n\n")[0].replace("\n", " ")
        sections += [f"## {name}", told, _table_of_keys(section)]
    return "\n\n".join(sections) + "\n"


def _table_of_keys(section: dict[str, Any]) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    required = section.get("required", [])
    for key, entry in section.get("properties", {}).items():
        default = "required" if key in required else _default_of(entry)
        rows.append(f"| `{key}` | {_type_of(entry)} | {default} | {_cell(_meaning_of(entry))} |")
    return "\n".join(rows)


def _meaning_of(entry: dict[str, Any]) -> str:
    """What a key means; a section's own heading says what it is, and a key of one value tells which section this is."""
    if "$ref" in entry:
        return entry.get("description", "see there")
    return entry.get("description", "this value tells the kind" if "const" in entry else "")


def _default_of(entry: dict[str, Any]) -> str:
    """The default of a key; a section's own table has the defaults of its keys."""
    return "" if "$ref" in entry else _code(json.dumps(entry.get("default", {})))


def _type_of(entry: dict[str, Any]) -> str:
    if "$ref" in entry:
        name = entry["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in entry:
            return ", ".join(map(_type_of, entry[several]))
    if "const" in entry or "enum" in entry:
        return ", ".join(_code(str(value)) for value in entry.get("enum", [entry.get("const")]))
    if "patternProperties" in entry:
        (inner,) = entry["patternProperties"].values()
        return f"names, each with {_type_of(inner)}"
    if entry.get("type") == "array":
        return f"list of {_type_of(entry['items'])}" if isinstance(entry.get("items"), dict) else "list"
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {entry[name]}" for name, sign in limits.items() if name in entry]
    return " ".join([entry.get("type", "any").replace("null", "none"), *bounds])


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", r"\|")


# Rules


def targets_reference(files: list[Path]) -> str:
    """The rules of each file of rules: what the file says of itself, and a sentence for each rule."""
    sections = [
        "# Targets and rules",
        "A rule without wildcards is a target: `snakemake circuits`. `snakemake --list-target-rules` lists them for a "
        "config. Names in braces stand for figures, tables and groups of checkpoints.",
    ]
    for file in files:
        text = file.read_text()
        title, *lines = [line.removeprefix("#").strip() for line in re.match(r"(?:#.*\n)+", text)[0].splitlines()]
        sections.append("\n".join([f"## {file.stem}", "", *_told_of_file([title, *lines])]))
        if rules := list(_rules_in(text)):
            rows = [f"| `{name}` | {told} |" for name, told in rules]
            sections.append("\n".join(["| rule | what it does |", "|---|---|", *rows]))
    return "\n\n".join(sections) + "\n"


def _told_of_file(lines: list[str]) -> list[str]:
    """The comment at the top of a file of rules as Markdown: sentences, then what it needs, makes, and its steps."""
    told = re.sub(r"([*_<])", r"\\\1", "\n".join(lines))
    return [re.sub(r"^(needs|makes|steps) +", r"- **\1** ", line) for line in told.splitlines()]


def _rules_in(text: str) -> Iterator[tuple[str, str]]:
    named = re.compile(
        r'^ *(?:use rule \w+ as|rule) (\w+)(?: with)?:\n +"""(.+?)"""|^ *rule:\n +"""(.+?)"""\n +name:\n +f"(.+?)"',
        re.MULTILINE,
    )
    for name, told, told_of_several, pattern in named.findall(text):
        yield (name, told) if name else (re.sub(r"\{\w+\.?\w*\}", "{name}", pattern), told_of_several)


# Files


def files_reference() -> str:
    """The columns of every table on disk."""
    sys.path.insert(0, str(SCRIPTS))
    from circuitdrift.schemas import SCHEMAS

    sections = [
        "# Columns of tables",
        "Parquet files of `results` by their schema; [results/README.md](../../results/README.md) says which file has "
        "which, and what the columns mean. Footers hold the origin of each file.",
    ]
    for name, schema in SCHEMAS.items():
        rows = [f"| `{field.name}` | {field.type} |" for field in schema]
        sections += [f"## {name}", "\n".join(["| column | type |", "|---|---|", *rows])]
    return "\n\n".join(sections) + "\n"


# Library


def library_reference() -> str:
    """The modules of the library with what each says of itself, and its public functions and classes."""
    sections = [
        "# Modules of the library",
        "One sentence for each module, class and function of `circuitdrift`; the docstrings say the rest. "
        "[library.md](../library.md) shows how to use them without the workflow.",
    ]
    for file in sorted((SCRIPTS / "circuitdrift").rglob("*.py")):
        tree = ast.parse(file.read_text())
        name = ".".join(file.relative_to(SCRIPTS).with_suffix("").parts).removesuffix(".__init__")
        members = [
            f"| `{node.name}` | {_first_sentence(node)} |"
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        ]
        sections.append(f"## {name}\n\n{_first_sentence(tree)}")
        if members:
            sections.append("\n".join(["| name | what it is |", "|---|---|", *members]))
    return "\n\n".join(sections) + "\n"


def _first_sentence(node: ast.Module | ast.FunctionDef | ast.ClassDef) -> str:
    told = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
    return _cell(re.sub(r":\w+:`~?([^`]+)`", r"`\1`", told.replace("``", "`")).replace("<", "&lt;"))
