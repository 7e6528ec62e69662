"""Tables, tensors and JSON on disk: atomic writes, verified reads, and errors that name the file and the fix.

Tables are Parquet, tensors are safetensors. Each carries its :class:`~circuitdrift.provenance.Provenance`. A write goes
to a temporary file in the same folder, which is flushed to disk and renamed, so a killed job leaves no half file.

A read first verifies every byte. Tables and tensors hold a seal (:mod:`circuitdrift.seals`). JSON has no place for one
where its keys belong to others (PEFT's ``adapter_config.json``), so JSON has a neighbour, ``NAME.sha256``, in the
format of the command ``sha256sum``. Files that another program wrote have neither; they are read with a warning.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from circuitdrift.errors import CircuitDriftError, fix_of, system_error_of
from circuitdrift.provenance import Provenance
from circuitdrift.schemas import SCHEMAS
from circuitdrift.seals import UNSEALED, computed_seal, seal_in, write_seal

if TYPE_CHECKING:
    from torch import Tensor


logger = logging.getLogger(__name__)

PROVENANCE = b"provenance"
"""The entry of a Parquet footer or safetensors header that every file of ours has."""
SEAL = "seal"
"""The entry of a Parquet footer or safetensors header that holds the file's seal."""
HEADER_LIMIT = 100_000_000
"""Bytes that the safetensors library reads as a header at most."""


class StorageError(CircuitDriftError):
    """A file that cannot be used; the message names the file, what is wrong with it, and the fix."""


class WriteError(StorageError):
    """A file that the operating system does not let us write; the message names the file, the reason, and the fix."""


class DamageError(StorageError):
    """A file that is missing, or whose bytes are not those that were written.

    Attributes:
        path: the file.
        fault: what is wrong with it.
    """

    def __init__(self, path: Path, fault: str) -> None:
        super().__init__(f"{path}: {fault}; {fix_of_damage(path)}")
        self.path = path
        self.fault = fault


def fix_of_damage(path: Path) -> str:
    """The command that mends a damaged output of the workflow, a file or a folder."""
    return f"make it again: rm -rf {shlex.quote(str(path))} && snakemake (with the same options)"


def _check_seal(path: Path, header: bytes, rest: BinaryIO) -> None:
    """Verify a file by the seal that it holds. A file without provenance is another program's, and has none.

    Raises:
        DamageError: the seal is missing from a file with provenance, or is not that of its bytes.
    """
    seal = seal_in(header)
    if seal is None and PROVENANCE in header:
        raise DamageError(path, "holds no seal, so it is damaged, or an older version wrote it")
    if seal is None:
        logger.warning("%s: not written by CircuitDrift, so its bytes cannot be verified", path)
    elif seal != computed_seal(header, rest):
        raise DamageError(path, "truncated, or changed since it was written (its sha256 is not the one it holds)")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name a file or folder that is written inside, where the operating system refuses to write it.

    Raises:
        WriteError: the disk is full, or the path may not be written.
    """
    try:
        yield
    except Exception as error:
        refused = system_error_of(error)
        if refused and (fix := fix_of(refused)):
            raise WriteError(f"{path}: cannot be written ({os.strerror(refused.errno or 0)}); {fix}") from error
        raise


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call ``write`` on a temporary file beside ``path``, flush it to disk, and rename it to ``path``.

    The temporary file has a fixed name, so the next process that writes ``path`` replaces the remains of a killed
    process. Only one process at a time may write a file.

    Raises:
        WriteError: the disk is full, or the file may not be written. Nothing of it is left.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            temporary.chmod(0o644)  # safetensors makes files that only their owner can read
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.rename(path)
    finally:
        with suppress(OSError):  # on a file system that has become read-only
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
    write_atomically(path, lambda temporary: _write_parquet(temporary, complete))


def _write_parquet(path: Path, table: pa.Table) -> None:
    """Write a sealed Parquet file. Its pages have checksums too, for readers that do not know the seal."""
    with pq.ParquetWriter(path, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({SEAL: UNSEALED})
    write_seal(path, path.stat().st_size)


def _read_whole(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        DamageError: the file is missing.
    """
    if not path.is_file():
        raise DamageError(path, "no such file")
    return path.read_bytes()


def _read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, all of it or some columns that it has, once its seal is verified.

    Raises:
        DamageError: the file is missing or damaged.
    """
    content = _read_whole(path)
    _check_seal(path, content, io.BytesIO())
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        return file.read(columns and [name for name in columns if name in file.schema_arrow.names])
    except (pa.ArrowInvalid, OSError) as error:
        raise DamageError(path, f"truncated, or not Parquet ({error})") from None


def read_arrow(path: Path, schema: str) -> pa.Table:
    """Read a Parquet file and check that it holds a schema's columns.

    Raises:
        DamageError: the file is missing or damaged.
        StorageError: the file lacks a column.
    """
    return _with_columns(path, _read_parquet(path), SCHEMAS[schema].names, schema)


def read_columns(path: Path, schema: str, columns: Sequence[str]) -> pa.Table:
    """Read some columns of a Parquet file of a schema; errors as in :func:`read_arrow`."""
    return _with_columns(path, _read_parquet(path, columns), columns, schema)


def _with_columns(path: Path, table: pa.Table, columns: Sequence[str], schema: str) -> pa.Table:
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise StorageError(
            f"{path}: not a table of schema '{schema}': column {missing} missing, it has {table.column_names}; "
            f"{fix_of_damage(path)}"
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
        DamageError: the file is missing or damaged.
        StorageError: the file carries no provenance.
    """
    found = metadata if metadata is not None else _read_parquet(path).schema.metadata
    if not found or PROVENANCE not in found:
        raise StorageError(f"{path}: has no provenance, so CircuitDrift did not write it; {fix_of_damage(path)}")
    return Provenance.model_validate_json(found[PROVENANCE])


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], provenance: Provenance
) -> None:
    """Write tensors to a sealed safetensors file with metadata and provenance in the header."""
    from safetensors.torch import save_file

    header = {**metadata, **provenance.as_header(), SEAL: UNSEALED}
    contiguous = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}

    def write(temporary: Path) -> None:
        save_file(contiguous, temporary, metadata=header)
        _sort_metadata(temporary)
        write_seal(temporary, _header_bytes(temporary))

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


def _header_bytes(path: Path) -> int:
    """The size of a safetensors file's header, with the eight bytes before it that give its length."""
    with path.open("rb") as opened:
        return 8 + int.from_bytes(opened.read(8), "little")


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file, on the CPU, once its seal is verified.

    Raises:
        DamageError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DamageError(path, "no such file")
    header_bytes = min(_header_bytes(path), HEADER_LIMIT)  # a damaged length may be beyond all memory
    with path.open("rb") as stream:
        _check_seal(path, stream.read(header_bytes), stream)
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = {key: value for key, value in (opened.metadata() or {}).items() if key != SEAL}
            return {name: opened.get_tensor(name) for name in opened.keys()}, metadata  # noqa: SIM118
    except SafetensorError as error:
        raise DamageError(path, f"truncated, or not safetensors ({error})") from None


def digest_file_of(path: Path) -> Path:
    """The neighbour of a JSON file that holds its sha256."""
    return path.with_name(f"{path.name}.sha256")


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, indented by two spaces, ending in a newline, and its sha256 to a neighbour.

    The neighbour is written first, so that a JSON file without it is another program's.
    """
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_text(digest_file_of(path), _digest_line(path, text.encode()))
    write_text(path, text)


def _digest_line(path: Path, content: bytes) -> str:
    """What ``sha256sum`` prints for a file of this content."""
    return f"{hashlib.sha256(content).hexdigest()}  {path.name}\n"


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON, once it is verified by the sha256 in its neighbour; another program's file has none.

    Raises:
        DamageError: the file is missing, is not JSON, or is not the one that the neighbour describes.
    """
    content = _read_whole(path)
    neighbour = digest_file_of(path)
    if not neighbour.is_file():
        logger.warning("%s: no %s is beside it, so its bytes cannot be verified", path, neighbour.name)
    elif neighbour.read_bytes() != _digest_line(path, content).encode():
        raise DamageError(path, f"truncated, or changed since it was written (its sha256 is not in {neighbour.name})")
    try:
        return json.loads(content)
    except ValueError as error:
        raise DamageError(path, f"truncated, or not JSON ({error})") from None
