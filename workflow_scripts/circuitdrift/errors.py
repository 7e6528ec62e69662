"""The class of all errors that CircuitDrift raises on purpose."""

from __future__ import annotations


class CircuitDriftError(ValueError):
    """Something that CircuitDrift refuses: its message says what is wrong, where, and how to mend it.

    Every error class of the library derives from this one. Such an error ends a job with its message alone, because the
    message is all that the user needs (``stage.run``). Any other exception is a fault of the program, and its traceback
    goes to the job's log file. So raise this class, or one of its own kind, for whatever files, settings or the machine
    can cause, and leave the built-in exceptions to mistakes in the code.

    It is a ValueError because pydantic reports a ValueError that a validator raises as a problem of the config.
    """
