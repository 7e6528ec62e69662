"""Config files as YAML, read more strictly than PyYAML does: no key twice, no endless or enormous content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from circuitdrift.config.reading import ConfigError, listed

LARGEST_FILE = 2**20
MOST_VALUES = 100_000
"""The most keys and values of a config, those that an alias repeats counted each time."""


def read_yaml(path: Path) -> Any:
    """The content of a config file; of an empty file an empty mapping.

    Raises:
        ConfigError: the file cannot be read, is not UTF-8, not YAML or too large, or names a key twice.
    """
    text = _text_of(path)
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return {}
        if _size_of(root, {}) > MOST_VALUES:
            raise ConfigError(f"{path}: its aliases (*name) repeat more than {MOST_VALUES:,} values; write them out")
        if repeated := _keys_given_twice(root):
            raise ConfigError(listed(f"{path} cannot be used", repeated))
        content = loader.construct_document(root)
        return {} if content is None else content
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        where = f", line {place.line + 1}, column {place.column + 1}" if place else ""
        raise ConfigError(f"{path}{where}: is not YAML: {error.problem}; correct it (no tabs, one document)") from None
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())[:200]}; correct it") from None
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply, or an alias is inside its own anchor; flatten it") from None


def _text_of(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file; give an existing one with --configfile")
    try:
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise ConfigError(f"{path}: has {size:,} bytes, a config at most {LARGEST_FILE:,}; is it the right file?")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text ({error.reason}, byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); change its permissions") from None


def _size_of(node: yaml.Node, sizes: dict[int, int]) -> int:
    """The number of values below a node when each alias is written out; counted once for each anchor."""
    if id(node) not in sizes:
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        flat = (part for child in children for part in (child if isinstance(child, tuple) else (child,)))
        sizes[id(node)] = 1 + sum(_size_of(part, sizes) for part in flat)
    return sizes[id(node)]


def _keys_given_twice(node: yaml.Node, path: str = "") -> list[str]:
    """One line for each key that a mapping names again: YAML would take the last one silently."""
    problems = []
    if isinstance(node, yaml.SequenceNode):
        problems = [problem for child in node.value for problem in _keys_given_twice(child, path)]
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            place = f"{path}.{name}" if path else name
            if name in lines:
                problems.append(f"{place}: given in line {lines[name]} and again in line {line}; keep one")
            lines.setdefault(name, line)
            problems += _keys_given_twice(value, place)
    return problems
