"""Where and how numbers are computed: device, precision, reproducibility, and the progress of long work."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from circuitdrift.errors import CircuitDriftError

Item = TypeVar("Item")

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0

CONTROL_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def resolve_device(wanted: str) -> torch.device:
    """The device named by ``execution.device``; ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        CircuitDriftError: this machine does not have the device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available.get(wanted, False):
        there = [name for name, is_there in available.items() if is_there]
        raise CircuitDriftError(f"execution.device: '{wanted}' is not available here; set it to auto or one of {there}")
    return torch.device(wanted)


def resolve_precision(wanted: str, device: torch.device) -> torch.dtype:
    """The dtype of the passes: ``auto`` takes bfloat16 where the device multiplies it faster than float32."""
    if wanted == "auto":
        return torch.bfloat16 if _has_fast_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[wanted]


def precision_of_weights(wanted: str, weights: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype of a loaded model's passes: ``auto`` keeps the model's own, except bfloat16 where it gains too little.

    That is every device but CUDA: on no CPU that was measured is attribution in bfloat16 twice as fast as in float32,
    and it exchanges edges of the circuit (docs/benchmarks.md#precision).
    """
    if wanted == "auto" and weights == torch.bfloat16 and device.type != "cuda":
        return torch.float32
    if wanted == "auto" and weights == torch.bfloat16:
        return resolve_precision("auto", device)
    return weights if wanted == "auto" else resolve_precision(wanted, device)


def free_memory(device: torch.device) -> int:
    """Bytes that a job may still allocate; on the CPU within the limits of its control group and SLURM job."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    used = psutil.Process().memory_info().rss
    given = [psutil.virtual_memory().available]
    if "SLURM_MEM_PER_NODE" in os.environ:
        given.append(int(os.environ["SLURM_MEM_PER_NODE"]) * 2**20 - used)
    if CONTROL_GROUP_LIMIT.is_file() and (limit := CONTROL_GROUP_LIMIT.read_text().strip()) != "max":
        given.append(int(limit) - used)
    return max(0, min(given))


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return False


def progress(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """Pass items through and show progress: a bar on a terminal, otherwise a log line every few seconds."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc=what, total=total)
        return
    started = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES or done == total:
            last = now
            left = (now - started) / done * (total - done)
            logger.info("%s: %d of %d, %.0f s left", what, done, total, left)
