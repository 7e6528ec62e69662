"""What a job has used of the machine: time, processor and memory.

Snakemake's own ``benchmark`` looks at the processes that it has started, and so not at a fork of the preloaded process.
"""

from __future__ import annotations

import resource
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import psutil

_BYTES_OF_A_UNIT = 1 if sys.platform == "darwin" else 1024
"""The kernel counts the largest memory of a process in these."""


class Usage(NamedTuple):
    """What this process has used since it started.

    Attributes:
        seconds: wall time.
        cpu_seconds: of all cores, with its children that have ended.
        memory: the most that it, or one of its children, has held at once, in MiB.
    """

    seconds: float
    cpu_seconds: float
    memory: float

    @classmethod
    def of_this_process(cls) -> Usage:
        """Until now."""
        kinds = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return cls(
            time.time() - psutil.Process().create_time(),
            sum(used.ru_utime + used.ru_stime for used in kinds),
            max(used.ru_maxrss for used in kinds) * _BYTES_OF_A_UNIT / 2**20,
        )

    def __str__(self) -> str:
        """As a job's log ends with it."""
        return f"done in {self.seconds:.1f} s, {self.cpu_seconds:.1f} s of processor time, {self.memory:.0f} MiB"

    def write(self, path: Path) -> None:
        """Write it with the columns that Snakemake's ``benchmark`` gives the same quantities.

        The time stands there twice, so that a reader can tell that the file is whole.
        """
        clock = timedelta(seconds=int(self.seconds))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"s\th:m:s\tmax_rss\tcpu_time\n{self.seconds:.4f}\t{clock}\t{self.memory:.2f}\t{self.cpu_seconds:.2f}\n"
        )
