"""Starting the processes of a run, and ending them all when one of them fails.

A Snakemake job is one Python process. For a run on several devices it starts one worker for each, waits, passes their
messages on to its own log, and raises the error of the first that fails. The workers are new interpreters ("spawn"):
a copy of a process that has used CUDA or threads ("fork") can deadlock. This is done here with ``multiprocessing``
rather than by ``torchrun`` or ``accelerate launch``, which start a script by its command line, where a job's script has
its settings from Snakemake; accelerate's ``notebook_launcher`` takes a function, but forks. Within a worker,
accelerate chooses the device and the way to communicate (NCCL between GPUs, gloo between processors).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final, Literal, NamedTuple

import torch
from accelerate import PartialState

from circuitdrift.training.processes import ALONE, Processes

logger = logging.getLogger(__name__)

START_METHOD: Final = "spawn"
LONGEST_WAIT = timedelta(hours=2)
"""For another process, say while the first one writes a checkpoint. A process that has ended is noticed at once."""
SECONDS_OF_GRACE = 1.0
"""After a failure, for another process to end that may have failed before."""


class ProcessError(RuntimeError):
    """A run whose processes cannot be started as configured, or of which one has failed; the message says why."""


class Failure(NamedTuple):
    """How a worker failed: when by the machine's clock, the error, and where."""

    seconds: float
    message: str
    traceback: str


def resolve_processes(wanted: int | Literal["auto"], device: torch.device) -> int:
    """The number of processes that ``execution.processes`` asks for; ``auto`` is one for each CUDA device in sight.

    Raises:
        ProcessError: there are fewer devices than processes.
    """
    if device.type == "cpu":
        return 1 if wanted == "auto" else wanted
    devices = torch.cuda.device_count() if device.type == "cuda" else 1
    if wanted == "auto":
        return devices
    if wanted > devices:
        raise ProcessError(
            f"execution.processes: {wanted} processes need a device each, and {devices} of type {device.type} can be "
            "seen here; set it to auto or to a smaller number, or give the job more devices (docs/clusters.md)"
        )
    return wanted


class Worker:
    """A process of a run as the starting one sees it, and what it has said so far."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self.process = process
        self.connection = connection
        self.failure: Failure | None = None
        self.has_ended = False

    def receive(self) -> None:
        """Wait for a message: pass a log record on to this process's log, keep a failure, or note the end."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            self.has_ended = True
            return
        if isinstance(message, Failure):
            self.failure = message
        else:
            logging.getLogger(message.name).handle(message)

    @property
    def has_vanished(self) -> bool:
        """Whether it has ended without a word, as one does that is killed."""
        return self.has_ended and self.failure is None and self.process.exitcode != 0


def launch(count: int, device: torch.device, work: Callable[[Processes], None]) -> None:
    """Call ``work`` in ``count`` processes at the same time, and wait.

    Args:
        count: how many; with 1 it is called here, and nothing is started.
        device: its type; each process has its own device of that type.
        work: what each process does; it must be picklable: a function at the top of a module, or a partial of one.

    Raises:
        ProcessError: the first error of any of the processes; the others have been ended.
    """
    if count == 1:
        work(ALONE)
        return
    context = multiprocessing.get_context(START_METHOD)
    threads = max(1, torch.get_num_threads() // count)
    workers: list[Worker] = []
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        try:
            for rank in range(count):
                receiver, sender = context.Pipe(duplex=False)
                level = logging.getLogger().getEffectiveLevel() if rank == 0 else logging.WARNING
                place = (Processes(rank, count), device.type, meeting, threads, sender, level)
                process = context.Process(target=_work, args=(*place, work), daemon=True)
                process.start()
                sender.close()
                workers.append(Worker(process, receiver))
            _wait_for(workers)
        finally:
            for worker in workers:
                worker.process.kill()
                worker.process.join()


def _wait_for(workers: Sequence[Worker]) -> None:
    """Pass on the workers' messages until all have ended well, or one has not.

    Raises:
        ProcessError: the error of the worker that failed first: the others fail after it, for want of an answer.
    """
    while not all(worker.has_ended for worker in workers):
        _receive(workers)
        if any(worker.failure or worker.has_vanished for worker in workers):
            end = time.monotonic() + SECONDS_OF_GRACE
            while not all(worker.has_ended for worker in workers) and time.monotonic() < end:
                _receive(workers, end - time.monotonic())
            raise ProcessError(_first_error(workers))


def _receive(workers: Sequence[Worker], seconds: float | None = None) -> None:
    """Take a message of each of the workers that have one, once any of them has."""
    running = [worker for worker in workers if not worker.has_ended]
    ready = wait([worker.connection for worker in running], seconds)
    for worker in running:
        if worker.connection in ready:
            worker.receive()


def _first_error(workers: Sequence[Worker]) -> str:
    for rank, worker in enumerate(workers):
        if worker.has_vanished:
            code = worker.process.exitcode or 0
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            return f"process {rank + 1} of {len(workers)} {how}; where memory ran out, give the job more (mem_mb)"
    first = min(worker.failure for worker in workers if worker.failure)
    logger.error("%s", first.traceback)
    return first.message


def _work(
    processes: Processes,
    device_type: str,
    meeting: Path,
    threads: int,
    sender: Connection,
    level: int,
    work: Callable[[Processes], None],
) -> None:
    """What a worker does: meet the others, run, and tell of a failure."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.root.handlers = [Messages(sender)]
    logging.root.setLevel(level)
    rank, count = str(processes.rank), str(processes.count)
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    try:
        state = PartialState(
            cpu=device_type == "cpu",
            init_method=meeting.as_uri(),
            rank=processes.rank,
            world_size=processes.count,
            timeout=LONGEST_WAIT,
        )
        work(replace(processes, device=state.device))
        state.destroy_process_group()
    except Exception as error:
        message = f"process {processes.rank + 1} of {processes.count}: {type(error).__name__}: {error}"
        sender.send(Failure(time.monotonic(), message, traceback.format_exc()))
        sys.exit(1)


class Messages(logging.Handler):
    """Sends log records to the starting process, as text with their arguments filled in."""

    def __init__(self, sender: Connection) -> None:
        super().__init__()
        self._sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        place = (record.name, record.levelno, record.pathname, record.lineno)
        self._sender.send(logging.LogRecord(*place, self.format(record), None, None))


def _end_with_parent() -> None:
    """Wait for the end of the starting process, however it comes, and end too: nobody would read the results."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
