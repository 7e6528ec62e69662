"""The graphics cards of a machine, shared among jobs that no scheduler tells which card is theirs. No torch.

Snakemake counts a resource such as ``gpu`` but gives no job the number of its card, and torch takes the first one. So
each job claims its cards here before CUDA starts: it holds an exclusive lock on one file for each card, waits while all
cards are taken, and shows torch its own cards alone, through ``CUDA_VISIBLE_DEVICES``. The kernel releases the locks of
a process that ends, however it ends. Under SLURM, which assigns the cards itself, nothing is claimed.

Only jobs of one user on one machine see each other's locks.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Literal

from circuitdrift.errors import CircuitDriftError

logger = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
SECONDS_BETWEEN_TRIES = 0.5
LONGEST_IDENTIFIER = 96
"""Bytes of a card's UUID as NVIDIA's library writes it, its end included."""


@contextmanager
def claimed_cards(wanted: int | Literal["auto"]) -> Iterator[None]:
    """Hold cards that no other job holds, and show CUDA these alone; without cards to share, do nothing.

    It waits as long as too few cards are free. Jobs that wait take turns, so that two jobs that want several cards each
    never hold a part of them and wait for each other. If the machine has fewer cards than wanted, all are claimed.

    Args:
        wanted: number of cards; ``auto`` claims all that the job may use.

    Raises:
        CircuitDriftError: the folder of the locks belongs to someone else.
    """
    cards = _cards_to_share()
    if not cards:
        yield
        return
    count = len(cards) if wanted == "auto" else min(wanted, len(cards))
    with ExitStack() as held:
        found = _claim(cards, count, held)
        logger.info("graphics cards of this job: %s", ", ".join(found))
        before = os.environ.get(VISIBLE)
        os.environ[VISIBLE] = ",".join(found)
        try:
            yield
        finally:
            if before is None:
                del os.environ[VISIBLE]
            else:
                os.environ[VISIBLE] = before


def installed_cards() -> tuple[str, ...]:
    """The UUID of each NVIDIA card of this machine, in the order of the driver; none without the driver."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return ()
    if library.nvmlInit_v2() != 0:
        return ()
    count = ctypes.c_uint(0)
    library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    found = []
    for index in range(count.value):
        card, identifier = ctypes.c_void_p(), ctypes.create_string_buffer(LONGEST_IDENTIFIER)
        if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(card)) == 0:
            library.nvmlDeviceGetUUID(card, identifier, LONGEST_IDENTIFIER)
            found.append(identifier.value.decode())
    library.nvmlShutdown()
    return tuple(found)


def _cards_to_share() -> tuple[str, ...]:
    """The cards that this job may claim: none under SLURM, otherwise those that the user's variable names, or all."""
    if "SLURM_JOB_ID" in os.environ or not (installed := installed_cards()):
        return ()
    if (chosen := os.environ.get(VISIBLE)) is None:
        return installed
    names = [name.strip() for name in chosen.split(",")]
    numbers = {str(index): identifier for index, identifier in enumerate(installed)}
    return tuple(numbers.get(name, name) for name in names if name in numbers or name.startswith(("GPU-", "MIG-")))


def _claim(cards: Sequence[str], count: int, held: ExitStack) -> list[str]:
    """Lock so many of the cards, and leave the locks to ``held``; the cards in their order."""
    folder = _folder_of_locks()
    with (folder / "queue").open("w") as turn:
        if not _try_to_lock(turn):
            logger.info("waiting for %d of %d graphics cards", count, len(cards))
            fcntl.flock(turn, fcntl.LOCK_EX)
        found: list[str] = []
        while len(found) < count:
            for card in cards:
                if card not in found and len(found) < count:
                    lock = (folder / card.replace("/", "-")).open("w")
                    if _try_to_lock(lock):
                        held.enter_context(lock)
                        found.append(card)
                    else:
                        lock.close()
            if len(found) < count:
                time.sleep(SECONDS_BETWEEN_TRIES)
    return sorted(found, key=cards.index)


def _try_to_lock(file: IO[str]) -> bool:
    """Lock a file for this process alone, without waiting; whether that worked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _folder_of_locks() -> Path:
    """The folder of this user's locks, among the temporary files of this machine and not on a shared file system."""
    folder = Path(tempfile.gettempdir()) / f"circuitdrift-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise CircuitDriftError(
            f"{folder}: the folder of the locks on graphics cards belongs to another user; remove it, or set TMPDIR to "
            "a folder of your own, the same for all jobs"
        )
    return folder
