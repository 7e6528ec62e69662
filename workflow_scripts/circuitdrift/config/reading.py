"""Reading a config file: validation, and errors that name the key, the problem and the fix."""

from __future__ import annotations

import difflib
import reprlib
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from circuitdrift.config.given import GivenCheckpoint
from circuitdrift.config.imports import ImportedCircuits
from circuitdrift.config.models import LocalModel, ModelConfig
from circuitdrift.config.study import StudyConfig
from circuitdrift.errors import CircuitDriftError
from circuitdrift.section import Section
from circuitdrift.tasks.from_file import FileTask

TAGS = ("source", "family", "kind")
MOST_PROBLEMS = 20
"""A message lists no more problems than this, so that it fits a screen."""

SHORT = {
    "dict_type": "is not a mapping; write keys below it, such as 'name: {...}'",
    "model_type": "is not a mapping; write keys below it",
    "model_attributes_type": "is not a mapping; write keys below it",
    "tuple_type": "is not a list; write it in brackets, such as [1]",
    "path_type": "is not a path; write text",
    "string_type": "is not text; put it in quotes",
}
"""What to say in place of pydantic's words, which name Python's types."""


class ConfigError(CircuitDriftError):
    """An unusable config file; the message names each key, its problem and the fix."""


SectionWithPath = TypeVar("SectionWithPath", LocalModel, FileTask)


def load_study(raw: dict[str, Any], folder: Path, source: str) -> StudyConfig:
    """Validate the mapping that YAML gives for a config file.

    Args:
        raw: the mapping; sections may be empty (None).
        folder: the config file's folder, which relative paths start from.
        source: the file's name, for messages.

    Raises:
        ConfigError: one line for each problem: the key, the problem and the fix.
    """
    if not isinstance(raw, dict):
        raise ConfigError(f"{source} is not a mapping of sections; start it with a line such as 'study: mine'")
    try:
        study = StudyConfig.model_validate(raw)
    except ValidationError as error:
        lines = [line for problem in error.errors() for line in _explain(problem, raw)]
        raise ConfigError(listed(f"{source} cannot be used", lines)) from None
    return _with_absolute_paths(study, folder.resolve())


def listed(heading: str, problems: list[str]) -> str:
    """A heading and a line for each problem, cut after the first :data:`MOST_PROBLEMS`."""
    more = len(problems) - MOST_PROBLEMS
    shown = [f"  - {problem}" for problem in problems[:MOST_PROBLEMS]]
    return "\n".join([f"{heading}:", *shown, *([f"  ... and {more} more problems"] if more > 0 else [])])


def check_imported_files(study: StudyConfig) -> None:
    """Check that the file of every imported circuit exists.

    Raises:
        ConfigError: one line for each missing file.
    """
    lines = [
        f"imports.{name}.checkpoints.{label}: no such file {path}; correct it (relative to the config file)"
        for name, imported in study.imports.items()
        for label, path in imported.checkpoints.items()
        if not path.is_file()
    ]
    if lines:
        raise ConfigError(listed("circuits to import are missing", lines))


def _with_absolute_paths(study: StudyConfig, folder: Path) -> StudyConfig:
    def resolved(section: SectionWithPath) -> SectionWithPath:
        return section.model_copy(update={"path": folder / section.path})

    def resolved_model(section: ModelConfig) -> ModelConfig:
        own = resolved(section) if isinstance(section, LocalModel) else section
        return own.model_copy(update={"checkpoints": tuple(given.at(folder) for given in section.checkpoints)})

    def resolved_import(section: ImportedCircuits) -> ImportedCircuits:
        files = {label: folder / path for label, path in section.checkpoints.items()}
        return section.model_copy(update={"checkpoints": files})

    return study.model_copy(
        update={
            "models": {n: resolved_model(m) for n, m in study.models.items()},
            "tasks": {n: resolved(t) if isinstance(t, FileTask) else t for n, t in study.tasks.items()},
            "imports": {n: resolved_import(i) for n, i in study.imports.items()},
        }
    )


def _explain(problem: Any, raw: dict[str, Any]) -> list[str]:
    """Turn a pydantic error into lines that name the key, the problem and the fix."""
    key = _dotted_key(problem["loc"], raw)
    kind = problem["type"]
    if kind == "extra_forbidden":
        return [f"{key}: unknown key; {_known_keys(problem['loc'])}"]
    if kind == "union_tag_not_found":
        field = problem["ctx"]["discriminator"].strip("'")
        return [f"{key}: has no '{field}'; add it"]
    if kind == "union_tag_invalid":
        field = problem["ctx"]["discriminator"].strip("'")
        return [
            f"{key}.{field}: '{problem['ctx']['tag']}' is not known; choose one of {problem['ctx']['expected_tags']}"
        ]
    if kind == "value_error":
        node = _node_at(problem["loc"], raw)
        return [_at_key(key, line, node) for line in str(problem["ctx"]["error"]).splitlines()]
    if kind == "missing":
        return [f"{key}: missing; add it"]
    if kind == "too_short" and problem["input"]:  # its entries were refused, which has a line of its own
        return []
    if "[key]" in problem["loc"] and kind == "string_type":
        return [f"{key}: the name {problem['input']!r} is not text; put it in quotes"]
    if kind == "invalid_key":
        return [f"{key}: {problem['input']!r} is no key, which must be text; the keys here are {_known_keys_of(())}"]
    shown = _shortened(problem["input"])
    if kind == "string_pattern_mismatch":
        return [f"{key}: {shown} does not have the form {problem['ctx']['pattern']}"]
    if kind in SHORT:
        return [f"{key}: {shown} {SHORT[kind]}"]
    return [f"{key}: {problem['msg'][0].lower() + problem['msg'][1:]}; it is {shown}"]


def _at_key(key: str, line: str, node: Any) -> str:
    """A line of a section's own check: one that begins with a key of the section joins the section's path."""
    own = line.split(": ")[0]
    if isinstance(node, dict) and own in node:
        return f"{key}.{line}" if key else line
    return f"{key}: {line}" if key else line


def _shortened(value: Any, most: int = 60) -> str:
    """A value as it would be written in Python, cut so that a message stays short."""
    text = reprlib.repr(value) if isinstance(value, dict | list) else repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def _node_at(location: tuple[int | str, ...], raw: Any) -> Any:
    """The part of the file that a location of pydantic points to."""
    node = raw
    for place, step in enumerate(location):
        if isinstance(node, dict) and step in node and not (place == 2 and _is_tag(step, node)):
            node = node[step]
    return node


def _dotted_key(location: tuple[int | str, ...], raw: Any) -> str:
    """The path of an error in the file's own keys: pydantic's location without its additions."""
    parts = []
    node = raw
    for place, step in enumerate(location):
        if step == "[key]" or (place == 2 and _is_tag(step, node)):
            continue
        if isinstance(node, dict) and step in node:
            node = node[step]
        parts.append(str(step))
    return ".".join(parts)


def _is_tag(step: int | str, node: Any) -> bool:
    """Whether a step of a location is the value that selects a section's type, such as ``lora``."""
    return isinstance(node, dict) and any(node.get(tag) == step for tag in TAGS)


def _known_keys(location: tuple[int | str, ...]) -> str:
    """A hint for an unknown key: the closest known key, or all known keys."""
    known = _known_keys_of(location[:-1])
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"the keys here are {known}"


def _known_keys_of(location: tuple[int | str, ...]) -> list[str]:
    return sorted(_owner(location).model_fields)


def _owner(location: tuple[int | str, ...]) -> type[Section]:
    """The section whose key is at this location."""
    if not location:
        return StudyConfig
    if location[0] == "models" and "checkpoints" in location:
        return GivenCheckpoint
    if len(location) == 3:
        return next(section for section in _subclasses(Section) if _tag_of(section) == location[-1])
    owner = StudyConfig.model_fields[str(location[0])].annotation
    if len(location) == 2:
        owner = get_args(owner)[-1]
    assert isinstance(owner, type)
    return owner


def _tag_of(section: type[Section]) -> str | None:
    """The value of ``source``, ``family`` or ``kind`` that selects this section."""
    fields = [section.model_fields[tag] for tag in TAGS if tag in section.model_fields]
    return str(fields[0].annotation.__args__[0]) if fields and fields[0].annotation is not None else None


def _subclasses(base: type[Section]) -> list[type[Section]]:
    return [base, *(section for child in base.__subclasses__() for section in _subclasses(child))]
