"""Tables, tensors and JSON on disk: atomic writes, and reads whose errors name the file and the fix.

Tables are Parquet, tensors are safetensors. Each carries its :class:`~circuitdrift.provenance.Provenance`. A write goes
to a temporary file in the same folder, which is flushed to disk and renamed, so a killed job leaves no half file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from circuitdrift.provenance import Provenance
from circuitdrift.schemas import SCHEMAS

if TYPE_CHECKING:
    from torch import Tensor


class StorageError(ValueError):
    """A file that cannot be used; the message names the file, what is wrong with it, and the fix."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call ``write`` on a temporary file beside ``path``, flush it to disk, and rename it to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        temporary.chmod(0o644)  # safetensors makes files that only their owner can read
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_table(path: Path, table: pd.DataFrame | pa.Table, schema: str, provenance: Provenance) -> None:
    """Write a table to Parquet: the columns of a schema first, then the table's other columns.

    Raises:
        StorageError: a column is missing or cannot be cast to the schema's type.
    """
    arrow = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
    columns = {}
    for field in SCHEMAS[schema]:
        if field.name not in arrow.column_names:
            raise StorageError(
                f"{path}: the table to write has no column '{field.name}', which schema '{schema}' needs"
            )
        try:
            columns[field.name] = arrow[field.name].cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise StorageError(f"{path}: column '{field.name}' is not {field.type}: {error}") from error
    further = {name: arrow[name] for name in arrow.column_names if name not in columns}
    complete = pa.table(columns | further).replace_schema_metadata(provenance.as_header())
    write_atomically(path, lambda temporary: pq.write_table(complete, temporary, compression="zstd"))


def read_arrow(path: Path, schema: str) -> pa.Table:
    """Read a Parquet file and check that it holds a schema's columns.

    Raises:
        StorageError: the file is missing, truncated or not Parquet, or lacks a column.
    """
    if not path.is_file():
        raise StorageError(f"{path}: no such file; run the rule that makes it")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise StorageError(f"{path}: truncated, or not a Parquet file ({error}); delete it and run again") from error
    missing = [name for name in SCHEMAS[schema].names if name not in table.column_names]
    if missing:
        raise StorageError(
            f"{path}: not a table of schema '{schema}': column {missing} missing, it has {table.column_names}; "
            "delete it and run again"
        )
    return table


def read_table(path: Path, schema: str) -> pd.DataFrame:
    """Read a Parquet file as a data frame; errors as in :func:`read_arrow`."""
    frame: pd.DataFrame = read_arrow(path, schema).to_pandas()
    return frame


def read_tables(paths: Iterable[Path], schema: str) -> pd.DataFrame:
    """Concatenate tables and label each row with the wildcards of its file (model, task, method, seed ...).

    The wildcards come from the file's provenance; ``seed`` becomes an integer. A wildcard that is already a column of
    the table is not added again.
    """
    frames = []
    for path in paths:
        arrow = read_arrow(path, schema)
        wildcards = provenance_of(path, arrow.schema.metadata).wildcards
        frame = arrow.to_pandas()
        labels = {key: int(value) if key == "seed" else value for key, value in wildcards.items()}
        frames.append(frame.assign(**{key: value for key, value in labels.items() if key not in frame.columns}))
    if not frames:
        raise StorageError(f"no table of schema '{schema}' to read: the list of files is empty")
    return pd.concat(frames, ignore_index=True)


def provenance_of(path: Path, metadata: Mapping[bytes, bytes] | None = None) -> Provenance:
    """The provenance that a Parquet file carries.

    Raises:
        StorageError: the file carries no provenance.
    """
    found = metadata if metadata is not None else pq.read_schema(path).metadata
    if not found or b"provenance" not in found:
        raise StorageError(f"{path}: has no provenance, so CircuitDrift did not write it; delete it and run again")
    return Provenance.model_validate_json(found[b"provenance"])


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], provenance: Provenance
) -> None:
    """Write tensors to safetensors with metadata and provenance in the header."""
    from safetensors.torch import save_file

    header = {**metadata, **provenance.as_header()}
    contiguous = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}

    def write(temporary: Path) -> None:
        save_file(contiguous, temporary, metadata=header)
        _sort_metadata(temporary)

    write_atomically(path, write)


def _sort_metadata(path: Path) -> None:
    """Rewrite a safetensors header, in place, with its metadata sorted: safetensors writes them in random order."""
    with path.open("r+b") as opened:
        length = int.from_bytes(opened.read(8), "little")
        entries = json.loads(opened.read(length))
        entries["__metadata__"] = dict(sorted(entries["__metadata__"].items()))
        header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        if len(header) != length:
            raise StorageError(f"{path}: the sorted header has {len(header)} bytes, not {length}")
        opened.seek(8)
        opened.write(header)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file, on the CPU.

    Raises:
        StorageError: the file is missing, truncated or not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise StorageError(f"{path}: no such file; run the rule that makes it")
    try:
        with safe_open(path, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise StorageError(f"{path}: truncated, or not safetensors ({error}); delete it and run again") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, indented by two spaces, ending in a newline."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        StorageError: the file is missing, or truncated or not JSON.
    """
    if not path.is_file():
        raise StorageError(f"{path}: no such file; run the rule that makes it")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StorageError(f"{path}: truncated, or not JSON ({error}); delete it and run again") from error
