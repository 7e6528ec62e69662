"""What it costs to verify files at reading: CPU time with and without, on copies of a study's results.

    python benchmarks/verification.py results/embedded --weights-gib 1 --output benchmark.md

*Plain* reads a table with pyarrow, and copies tensors out of a file with safetensors. *Verified* is what every stage
does (``circuitdrift.storage``): it computes the file's sha256 first. Both read each file in turn, from the system's
cache of the disk, and alternate; medians of the rounds count. Copies are sealed anew, so that results of any version
can be measured. The last row is a file of random weights, read once in each round.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import torch
from measuring import GIB, Row, write_tables
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_arrow, read_tensors, write_table, write_tensors

ROUNDS = 7
NAMES = ("edges.parquet", "nodes.parquet", "training_log.parquet", "scores.safetensors", "adapter_model.safetensors")
FLOATS = 4
"""Bytes of a float32."""


def sealed_copies(results: Path, name: str, folder: Path) -> list[Path]:
    """Sealed copies of all files of a name, numbered."""
    copies = []
    for number, path in enumerate(sorted(results.rglob(name))):
        copy = folder / f"{number}-{name}"
        if path.suffix == ".parquet":
            write_table(copy, pq.read_table(path), "figure", Provenance.detached())
        else:
            write_tensors(copy, load_file(path), {}, Provenance.detached())
        copies.append(copy)
    return copies


def random_weights(gib: float, folder: Path) -> Path:
    """A sealed file of random float32 weights."""
    path = folder / "weights.safetensors"
    write_tensors(path, {"weights": torch.randn(int(gib * GIB) // FLOATS)}, {}, Provenance.detached())
    return path


def read_plain(path: Path) -> object:
    """Read a file without a look at its seal."""
    if path.suffix == ".parquet":
        return pq.read_table(path)
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def read_verified(path: Path) -> object:
    """Read a file as stages do."""
    if path.suffix == ".parquet":
        return read_arrow(path, "figure")
    return {name: tensor.clone() for name, tensor in read_tensors(path)[0].items()}


def row_of(name: str, paths: Sequence[Path]) -> Row:
    """Median CPU times of reading each file once, in milliseconds for each file."""
    for read in (read_plain, read_verified):
        read(paths[0])
    times = [(_cpu_seconds(read_plain, paths), _cpu_seconds(read_verified, paths)) for _ in range(ROUNDS)]
    plain, verified = (1000 * statistics.median(column) / len(paths) for column in zip(*times, strict=True))
    return {
        "files": name,
        "number": len(paths),
        "mean size (MB)": f"{sum(path.stat().st_size for path in paths) / len(paths) / 1e6:.3g}",
        "plain (ms)": f"{plain:.3g}",
        "verified (ms)": f"{verified:.3g}",
        "verified / plain": f"{verified / plain:.2f}",
    }


def _cpu_seconds(read: Callable[[Path], object], paths: Sequence[Path]) -> float:
    started = time.process_time()
    for path in paths:
        read(path)
    return time.process_time() - started


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results/{study}")
    parser.add_argument("--weights-gib", type=float, default=1.0, help="size of the file of random weights")
    parser.add_argument("--output", type=Path, help="default: the screen")
    wanted = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            if copies := sealed_copies(wanted.results, name, Path(folder)):
                rows.append(row_of(name, copies))
        rows.append(row_of("random weights", [random_weights(wanted.weights_gib, Path(folder))]))
    write_tables([rows], wanted.output)


if __name__ == "__main__":
    main()
