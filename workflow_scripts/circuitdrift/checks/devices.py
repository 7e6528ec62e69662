"""Whether this machine has the accelerator that the config names, asked of the system alone."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path


def missing_device(device: str) -> str | None:
    """A warning if ``execution.device`` names an accelerator of which this machine has no trace; otherwise None.

    It is no error: jobs may run elsewhere, and files that need no accelerator can be made here. The first job that does
    need it stops before it loads anything (:func:`circuitdrift.compute.resolve_device`).
    """
    if device in {"auto", "cpu"} or (_has_driver() if device == "cuda" else sys.platform == "darwin"):
        return None
    return (
        f"execution.device: '{device}' is not on this machine; jobs that need it stop at their start unless they run "
        "on another one; auto takes what there is"
    )


def _has_driver() -> bool:
    """Whether NVIDIA's driver, or AMD's, which torch calls cuda too, is installed."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True
