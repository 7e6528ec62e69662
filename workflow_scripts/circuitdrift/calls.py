"""One call of Snakemake at a time on the results of a study, however the call before it ended.

A call locks the file ``.in_use`` in the study's results (``flock``). The kernel takes the lock away when the process
ends, also when it is killed, so that a lock that can be taken has no living holder. Snakemake's own lock is a file that
outlives its process. The file lies with the results and not with the caller, so that two checkouts that share one
results folder through a symbolic link see each other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from circuitdrift.errors import CircuitDriftError, fix_of

WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What the kernel says where a file system has no locks; Snakemake's own lock must do there."""

STAMP = ".snakemake_timestamp"
"""The file inside a folder from whose time Snakemake takes the folder's."""


class CallError(CircuitDriftError):
    """A call that cannot start, because another one is running or its folder cannot be written."""


class Holder(NamedTuple):
    """The process that holds a lock, or held it when it was killed."""

    process: int
    host: str

    @property
    def is_here(self) -> bool:
        """Whether it ran on this machine, where the kernel knows for certain whether it still runs."""
        return self.host == socket.gethostname()

    def __str__(self) -> str:
        """Its number and machine, as messages name it."""
        return f"process {self.process} on {self.host}"


@contextmanager
def only_call(path: Path) -> Iterator[Holder | None]:
    """Hold a study's results for one call of Snakemake, and no other.

    Args:
        path: the lock file in the study's results; the folder is made if it is missing.

    Yields:
        The holder before this one, if it ended without giving the folder back (killed, or a loss of power); None if it
        did give it back, and where the file system has no locks.

    Raises:
        CallError: another call holds the folder, or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path)
    except OSError as error:
        raise _unwritable(path, error) from None
    if descriptor is None:
        yield None
        return
    try:
        before = _holder(path)
        try:
            path.write_text(f"{os.getpid()} {socket.gethostname()}\n")
        except OSError as error:
            raise _unwritable(path, error) from None
        yield before
    finally:
        with suppress(OSError):  # the folder may have become read-only
            path.unlink()
        os.close(descriptor)


def bring_to_the_present(paths: Iterable[Path]) -> list[Path]:
    """Give the present time to files and folders that date from the future, as after a clock that was set back.

    Snakemake deletes what a job has made if an input is newer.

    Returns:
        The paths that had a future time.
    """
    now = time.time()
    late = []
    for path in paths:
        stamps = [stamp for stamp in (path, path / STAMP) if stamp.exists()]
        if any(stamp.stat().st_mtime > now for stamp in stamps):
            late.append(path)
            for stamp in stamps:
                os.utime(stamp)
    return late


def _locked(path: Path) -> int | None:
    """Open a file, made if it is missing, and lock it; None where the file system has no locks.

    Raises:
        CallError: another process has locked it.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            holder = _holder(path) or "its process is starting or ending"
            raise CallError(
                f"{path.parent}: another call of snakemake works on this study ({holder}); wait until it has ended, or "
                "stop it with Ctrl-C, then call again. Nothing was changed"
            ) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno in WITHOUT_LOCKS:
                return None
            raise
        if _is_still_at(path, descriptor):
            return descriptor
        os.close(descriptor)


def _is_still_at(path: Path, descriptor: int) -> bool:
    """Whether an open file still has its name; the holder before may have removed it before we had the lock."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> Holder | None:
    """Who wrote a lock file; None if nobody has."""
    process, _, host = path.read_text(errors="replace").strip().partition(" ") if path.exists() else ("", "", "")
    return Holder(int(process), host) if process.isdecimal() and host else None


def _unwritable(path: Path, error: OSError) -> CallError:
    fix = fix_of(error) or "see to it that files can be written there"
    return CallError(f"{path}: cannot be written ({error.strerror}); {fix}")
