"""The class of all errors that CircuitDrift raises on purpose, and what mends a refusal of the operating system."""

from __future__ import annotations

import errno
import os
import re


class CircuitDriftError(ValueError):
    """Something that CircuitDrift refuses: its message says what is wrong, where, and how to mend it.

    Every error class of the library derives from this one. Such an error ends a job with its message alone, because the
    message is all that the user needs (``stage.run``). Any other exception is a fault of the program, and its traceback
    goes to the job's log file. So raise this class, or one of its own kind, for whatever files, settings or the machine
    can cause, and leave the built-in exceptions to mistakes in the code.

    It is a ValueError because pydantic reports a ValueError that a validator raises as a problem of the config.
    """


_FIXES = {
    errno.ENOSPC: "make room on that file system, or move the results to a larger one",
    errno.EDQUOT: "your quota on that file system is used up: make room, or move the results to another one",
    errno.EROFS: "that file system is mounted read-only: mount it for writing, or work in another folder (--directory)",
    errno.EACCES: "give yourself the right to read and write it, or work in another folder (--directory)",
    errno.EPERM: "give yourself the right to read and write it, or work in another folder (--directory)",
}


def fix_of(error: OSError) -> str | None:
    """How to mend what the operating system has refused; None where the fault may be one of the program."""
    fix = _FIXES.get(error.errno or 0)
    return fix and f"{fix}, then call again: what is finished is kept"


def system_error_of(error: Exception) -> OSError | None:
    """The error of the operating system that an exception is or stands for; None if there is none.

    Libraries in Rust (safetensors, tokenizers) raise errors of their own, whose text ends in ``(os error 28)``.
    """
    if isinstance(error, OSError):
        return error
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None
