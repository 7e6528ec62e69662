"""Starting the processes of a run, and ending all of them when one fails.

A Snakemake job is one Python process. For a run on several devices it starts a worker for each, waits, passes their
messages to its own log, and raises the first error. The workers are new interpreters ("spawn"), because a copy ("fork")
of a process that has used CUDA or threads can deadlock. ``multiprocessing`` starts them, because ``torchrun`` and
``accelerate launch`` start a script by its command line, while a job's script gets its settings from Snakemake;
accelerate's ``notebook_launcher`` takes a function, but forks. Within a worker, accelerate chooses the device and the
communication (NCCL between GPUs, gloo between processors). The workers meet through a file, and the sockets over which
they communicate listen on the loopback interface alone.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
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

import psutil
import torch
from accelerate import PartialState

from circuitdrift.errors import CircuitDriftError
from circuitdrift.training.processes import ALONE, Processes

START_METHOD: Final = "spawn"
LONGEST_WAIT = timedelta(hours=2)
"""Limit of the wait for another process, e.g. while process 0 writes a checkpoint. An exit is noticed at once."""
LOOPBACK: Final = "127.0.0.1"
SECONDS_OF_GRACE = 1.0
"""Wait after a failure for an earlier failure of another process."""


class ProcessError(CircuitDriftError):
    """A run whose processes cannot start as configured, or one of which has failed; the message says why."""


class Failure(NamedTuple):
    """A worker's failure: the time by the machine's clock, the error, and its traceback; none if raised on purpose."""

    seconds: float
    message: str
    traceback: str | None


def resolve_processes(wanted: int | Literal["auto"], device: torch.device) -> int:
    """The number of processes by ``execution.processes``; ``auto`` is one for each visible CUDA device.

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
            f"execution.processes: {wanted} processes need a device each, but only {devices} of type {device.type} are "
            "visible; set it to auto or to a smaller number, or give the job more devices (docs/clusters.md)"
        )
    return wanted


class Worker:
    """A process of a run as the starting process sees it, and its failure, if it reported one."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self.process = process
        self.connection = connection
        self.failure: Failure | None = None
        self.has_ended = False

    def receive(self) -> None:
        """Wait for a message: pass a log record to this process's log, keep a failure, or note the exit."""
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
        """Whether the process exited without reporting, e.g. killed."""
        return self.has_ended and self.failure is None and self.process.exitcode != 0


def launch(count: int, device: torch.device, work: Callable[[Processes], None]) -> None:
    """Call ``work`` in ``count`` processes at the same time, and wait.

    Args:
        count: number of processes; with 1, ``work`` is called in this process.
        device: a device of the type to use; each process gets its own.
        work: the body of a process, picklable: a function at the top level of a module, or a partial of one.

    Raises:
        ProcessError: the first error of any process, raised there on purpose, or a process that was killed; the other
            processes have been ended.
        RuntimeError: likewise, an error that was not raised on purpose, with the traceback of its process as a note.
    """
    if count == 1:
        work(ALONE)
        return
    context = multiprocessing.get_context(START_METHOD)
    threads = max(1, torch.get_num_threads() // count)
    workers: list[Worker] = []
    with tempfile.TemporaryDirectory() as folder:
        rendezvous_file = Path(folder) / "rendezvous"
        try:
            for index in range(count):
                receiver, sender = context.Pipe(duplex=False)
                level = logging.getLogger().getEffectiveLevel() if index == 0 else logging.WARNING
                place = (Processes(index, count), device.type, rendezvous_file, threads, sender, level)
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
    """Pass on the workers' messages until all have succeeded or one has failed.

    Raises:
        ProcessError, RuntimeError: see :func:`launch`. It is the error of the worker that failed first; the others fail
            after it, because it does not answer.
    """
    while not all(worker.has_ended for worker in workers):
        _receive(workers)
        if any(worker.failure or worker.has_vanished for worker in workers):
            end = time.monotonic() + SECONDS_OF_GRACE
            while not all(worker.has_ended for worker in workers) and time.monotonic() < end:
                _receive(workers, end - time.monotonic())
            raise _first_error(workers)


def _receive(workers: Sequence[Worker], seconds: float | None = None) -> None:
    """Wait until any worker has a message, and take one from each worker that has."""
    running = [worker for worker in workers if not worker.has_ended]
    ready = wait([worker.connection for worker in running], seconds)
    for worker in running:
        if worker.connection in ready:
            worker.receive()


def _first_error(workers: Sequence[Worker]) -> Exception:
    for index, worker in enumerate(workers):
        if worker.has_vanished:
            code = worker.process.exitcode or 0
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
            what = f"process {index + 1} of {len(workers)} {how}"
            return ProcessError(f"{what}; if memory ran out, give the job more (mem_mb)")
    first = min((worker.failure for worker in workers if worker.failure), key=lambda failure: failure.seconds)
    if first.traceback is None:
        return ProcessError(first.message)
    unexpected = RuntimeError(first.message)
    unexpected.add_note(first.traceback)
    return unexpected


def _work(
    processes: Processes,
    device_type: str,
    rendezvous_file: Path,
    threads: int,
    sender: Connection,
    level: int,
    work: Callable[[Processes], None],
) -> None:
    """The body of a worker: meet the others, run, and report a failure."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.root.handlers = [Messages(sender)]
    logging.root.setLevel(level)
    index, count = str(processes.index), str(processes.count)
    os.environ |= {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    try:
        os.environ |= dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), loopback_interface())
        state = PartialState(
            cpu=device_type == "cpu",
            init_method=rendezvous_file.as_uri(),
            rank=processes.index,
            world_size=processes.count,
            timeout=LONGEST_WAIT,
        )
        work(replace(processes, device=state.device))
        state.destroy_process_group()
    except Exception as error:
        message = f"process {processes.index + 1} of {processes.count}: {type(error).__name__}: {error}"
        is_on_purpose = isinstance(error, CircuitDriftError)
        sender.send(Failure(time.monotonic(), message, None if is_on_purpose else traceback.format_exc()))
        sys.exit(1)


def loopback_interface() -> str:
    """Name of the network interface over which this machine talks to itself alone, such as ``lo``.

    Raises:
        ProcessError: there is none.
    """
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.family == socket.AF_INET and address.address == LOOPBACK for address in addresses):
            return name
    raise ProcessError(f"no network interface has the address {LOOPBACK}; enable it, or set execution.processes to 1")


class Messages(logging.Handler):
    """Sends log records to the starting process as text, with their arguments filled in."""

    def __init__(self, sender: Connection) -> None:
        super().__init__()
        self._sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        place = (record.name, record.levelno, record.pathname, record.lineno)
        self._sender.send(logging.LogRecord(*place, self.format(record), None, None))


def _end_with_parent() -> None:
    """Wait until the starting process ends, however it does, and end too: nothing would read the results."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
