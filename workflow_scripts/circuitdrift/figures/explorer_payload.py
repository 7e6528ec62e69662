"""The explorer's data as the page holds them: text as JSON, edges as bits and numbers of three digits, compressed.

The page reads the format in ``explorer_page/data.js``. All of it is one gzip stream: four bytes with the length of the
header, the header in JSON, then the sections that the header's ``sections`` names.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Num, UInt8, UInt16

LEAST_EXPONENT, EXPONENTS = -25, 36
NOT_A_NUMBER = 0x7FFF
_MANTISSAS = 900


def three_digits(values: Num[np.ndarray, " value"]) -> UInt16[np.ndarray, " value"]:
    """Numbers rounded to three significant decimal digits, as the page shows them, in two bytes each.

    0 stands for zero, and otherwise 1 + 900 (exponent + 25) + (digits - 100), with the highest bit set for negative
    numbers. Numbers below 1e-25 become zero.

    Raises:
        ValueError: a number is 1e11 or larger.
    """
    exact = values.astype(np.float64)
    size = np.abs(exact)
    known = np.isfinite(exact) & (size >= 10.0**LEAST_EXPONENT)
    exponent = np.floor(np.log10(np.where(known, size, 1.0))).astype(np.int64)
    digits = _scaled(np.where(known, size, 1.0), 2 - exponent)
    exponent += digits == 1000
    digits = np.where(digits == 1000, 100, digits)
    if (exponent >= LEAST_EXPONENT + EXPONENTS).any() or np.isinf(exact).any():
        raise ValueError("a number of the explorer is too large to be stored with three digits")
    codes = np.where(known, 1 + _MANTISSAS * (exponent - LEAST_EXPONENT) + digits - 100, 0)
    codes = np.where(np.isnan(exact), NOT_A_NUMBER, codes | ((exact < 0) & known).astype(np.int64) << 15)
    return codes.astype(np.uint16)


def _scaled(size: Num[np.ndarray, " value"], power: Num[np.ndarray, " value"]) -> Num[np.ndarray, " value"]:
    """The nearest whole numbers to size * 10 ** power; powers of ten up to 22 are exact."""
    up, down = np.clip(power, 0, 22), np.clip(-power, 0, 22)
    rest = power - up + down
    scaled = np.rint(size * 10.0**up / 10.0**down * 10.0**rest).astype(np.int64)
    return np.maximum(scaled, 100)  # log10 may round up to the next power


def membership(held: list[Bool[np.ndarray, " edge"]]) -> UInt8[np.ndarray, " byte"]:
    """Rows of bits, the lowest first, each less the row before it: what changes little takes little room."""
    rows = np.stack([np.packbits(row, bitorder="little") for row in held]) if held else np.zeros((0, 0), np.uint8)
    rows[1:] ^= rows[:-1].copy()
    return rows.reshape(-1)


def pack(header: Mapping[str, Any], sections: Mapping[str, np.ndarray]) -> bytes:
    """One compressed stream of a header and of sections of bytes or of two-byte numbers.

    Of two-byte numbers all low bytes come first, which compresses better.
    """
    places, parts, start = {}, [], 0
    for name, values in sections.items():
        two_bytes = values.dtype == np.uint16
        content = np.concatenate([values & 0xFF, values >> 8]).astype(np.uint8) if two_bytes else values
        places[name] = {"start": start, "length": len(values), "bytes": 2 if two_bytes else 1}
        parts.append(content.tobytes())
        start += len(parts[-1])
    text = json.dumps({**header, "sections": places}, separators=(",", ":"), allow_nan=False).encode()
    return gzip.compress(len(text).to_bytes(4, "little") + text + b"".join(parts), compresslevel=9, mtime=0)
