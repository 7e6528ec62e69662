"""The binder between Snakemake and a stage script: it calls the script's ``main`` with a job's files and settings.

A failing job ends here too. A :class:`~circuitdrift.errors.CircuitDriftError`, which the library raises on purpose,
ends with its message on the screen and in the log file; so do a full disk, a file that cannot be written, and Ctrl-C.
Any other exception ends with one line on the screen and its traceback in the log file. A job whose Snakemake has been
killed ends at once.

A job that may use a graphics card gets one of its own first (:mod:`circuitdrift.cards`), and no job but the download
reaches the model hub.

A script that is started by hand gets its job from :mod:`circuitdrift.planned_job`.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from circuitdrift.cards import claimed_cards
from circuitdrift.errors import CircuitDriftError, fix_of, system_error_of
from circuitdrift.preloaded import QUIET_AND_OFFLINE, hand_over

logger = logging.getLogger(__name__)

ONLINE = {"fetch_model", "fetch_checkpoint", "plan"}
"""Scripts that ask the model hub: the downloads, and the estimate for a model that is not here yet."""

SNAKEMAKE = "CIRCUITDRIFT_SNAKEMAKE"
"""The environment variable in which Snakemake gives its process number to its jobs on the same machine."""

LOG_ALONE = "CIRCUITDRIFT_LOG_ALONE"
"""The environment variable by which jobs leave the screen to the lines of their call, but for warnings and errors."""

SECONDS_BETWEEN_LOOKS = 0.5
"""A job looks so often whether its Snakemake is alive; a call of Snakemake takes longer to start its first job."""

if hasattr(sys.modules["__main__"], "snakemake"):
    # Read by huggingface_hub when it is imported, so every script imports this module before any that leads there.
    # A job's file is tmpab12.fetch_model.py. Its rule may have another name in a module of another workflow.
    if Path(getattr(sys.modules["__main__"], "__file__", "")).stem.rpartition(".")[2] not in ONLINE:
        os.environ |= QUIET_AND_OFFLINE
        hand_over()
    # In a job, the imports after this one make objects that stay. Looking for garbage among them slows the start.
    gc.disable()


def run(main: Callable[..., None]) -> None:
    """Call ``main`` with the values of a Snakemake job: the job of the script, or the job that the command line names.

    :mod:`circuitdrift.job_arguments` says which values these are. Messages go to the job's log file and to the screen.
    A job whose rule has an output ``benchmark`` leaves there what it has used. In a script that is started by hand,
    exceptions go on to the interpreter and the debugger.

    Raises:
        SystemExit: with code 1, where ``main`` failed in a job of Snakemake.
    """
    gc.freeze()  # what is imported stays, so that no later search for garbage goes through it
    gc.enable()
    script = sys.modules["__main__"]
    if hasattr(script, "snakemake"):
        job = script.snakemake
        if SNAKEMAKE in os.environ:
            threading.Thread(target=_end_with, args=(int(os.environ[SNAKEMAKE]),), daemon=True).start()
        with _ending_in_own_lines(_log_of(job)):
            _call(main, job)
    else:
        # Loaded by name, so that the digests of stages do not follow what helps to debug them.
        planning = importlib.import_module("circuitdrift.planned_job")
        _call(main, planning.job_of_command_line(Path(str(script.__file__)).resolve(), sys.argv[1:]))


def _call(main: Callable[..., None], job: Any) -> None:
    # A job that is handed over needs neither of them before.
    from circuitdrift.job_arguments import arguments
    from circuitdrift.job_usage import Usage

    _log_to(_log_of(job))
    given = arguments(main, job)
    if given.get("device") in {"auto", "cuda"}:
        with claimed_cards(given.get("processes", 1)):
            main(**given)
    else:
        main(**given)
    usage = Usage.of_this_process()
    if benchmark := job.output.get("benchmark"):
        usage.write(Path(benchmark))
    logger.info("%s", usage)


def _log_of(job: Any) -> Path | None:
    return Path(job.log[0]) if job.log else None


def _log_to(log: Path | None) -> None:
    """Send log records to the job's log file and to the screen; with LOG_ALONE the screen gets warnings and errors."""
    screen = logging.StreamHandler()
    screen.setLevel(logging.WARNING if log is not None and LOG_ALONE in os.environ else logging.INFO)
    handlers: list[logging.Handler] = [screen]
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log, mode="w"))
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it lists what it leaves out of each font of a figure
    logging.raiseExceptions = False  # a log file on a full disk is no reason for a traceback with each message
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers)


@contextmanager
def _ending_in_own_lines(log: Path | None) -> Iterator[None]:
    """Turn a failure into the lines that the user needs, and exit code 1.

    Without a log file the traceback of an unexpected exception goes to the screen.
    """
    try:
        yield
    except CircuitDriftError as error:
        logger.error("error: %s", error)
        sys.exit(1)
    except KeyboardInterrupt:
        logger.error("interrupted; the next call goes on from here")
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        refused = system_error_of(error)
        if refused and (fix := fix_of(refused)):
            logger.error("error: %s: %s; %s", refused.filename or "a file of this job", refused.strerror, fix)
            sys.exit(1)
        if log is None:
            raise
        logger.error("unexpected error: %s: %s", type(error).__name__, str(error).partition("\n")[0])
        with suppress(OSError), log.open("a") as opened:
            traceback.print_exc(file=opened)
        sys.exit(1)


def _end_with(snakemake: int) -> None:
    """Wait until the Snakemake process that started this job ends, however it does, and end too.

    The next call of Snakemake starts the job again, and two processes would write the same files.
    """
    import psutil

    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(snakemake)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGKILL)
