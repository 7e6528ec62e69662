"""Seals: a file holds the sha256 of its own bytes, so that a byte flipped or cut is noticed before anything is read.

The seal is a text inside the file: a label, then 64 hexadecimal digits. The digits are the sha256 of the whole file
with zeros in their place. So the seal covers every byte, those of the format's own structure too, and one pass over the
file verifies it. Of Python's secure digests sha256 is the fastest where the processor has instructions for it
(docs/benchmarks.md).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

LABEL = "circuitdrift-sha256:"
DIGITS = 64
UNSEALED = LABEL + "0" * DIGITS
"""What a file holds in the place of its seal when its digest is taken."""


def write_seal(path: Path, header_bytes: int) -> None:
    """Seal a file, in place.

    Args:
        path: a file that holds :data:`UNSEALED`.
        header_bytes: how many of its first bytes to search for it.

    Raises:
        ValueError: they do not hold it.
    """
    with path.open("r+b") as opened:
        header = opened.read(header_bytes)
        place = header.index(UNSEALED.encode()) + len(LABEL)
        digest = _digest(header, place, opened)
        opened.seek(place)
        opened.write(digest)


def seal_in(header: bytes) -> bytes | None:
    """The digits of the seal that a file's first bytes hold; None if they hold none."""
    _, label, rest = header.partition(LABEL.encode())
    return rest[:DIGITS] if label else None


def computed_seal(header: bytes, rest: BinaryIO) -> bytes:
    """The digits that a file's seal must have.

    Args:
        header: the first bytes of the file, which hold a seal.
        rest: the bytes after them.
    """
    return _digest(header, header.index(LABEL.encode()) + len(LABEL), rest)


def _digest(header: bytes, place: int, rest: BinaryIO) -> bytes:
    """The sha256 of a header with zeros for its digits at ``place``, and of what follows the header, as digits."""
    running = hashlib.sha256(header[:place])
    running.update(b"0" * DIGITS)
    running.update(header[place + DIGITS :])
    while part := rest.read(2**20):
        running.update(part)
    return running.hexdigest().encode()
