"""Common parts of the two drivers: a module by its name, the files that it reads, calls by keyword."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from circuitdrift.storage import read_tables

_SPLITS = {"test": "examples"}


def module_of(name: str) -> ModuleType:
    """The module of a figure or a table."""
    return import_module(f"circuitdrift.figures.{name}")


def read_files(
    files: Mapping[str, Sequence[Path]], as_paths: Collection[str] = ()
) -> dict[str, pd.DataFrame | list[Path]]:
    """Each group of Parquet tables as one frame; files of another kind stay paths, for the module to read.

    So do the groups in ``as_paths``. A table is named after its schema, except the splits of a task.
    """
    return {name: list(paths) if name in as_paths else _read_group(list(paths)) for name, paths in files.items()}


def _read_group(paths: list[Path]) -> pd.DataFrame | list[Path]:
    if not paths or paths[0].suffix != ".parquet":
        return paths
    return read_tables(paths, _SPLITS.get(paths[0].stem, paths[0].stem))


def call(function: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """Call a function with the values that it has keywords for."""
    return function(**{name: given[name] for name in inspect.signature(function).parameters})
