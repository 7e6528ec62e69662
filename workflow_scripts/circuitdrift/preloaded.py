"""Jobs that start at once: forks of a process that has imported what the stages import.

The imports of torch, transformers and peft take seconds of a core, as long as many a stage works. So a call with many
jobs on this machine starts one process that imports all stages, once (:func:`preload`). A job's own process hands its
script over to it (:func:`hand_over`). A fork runs the script with the environment, working folder and open files of the
job's own process, which waits, passes signals on, and ends as the fork ends. If the job's own process is killed, so is
the fork.

A job starts by itself, with the same result, where this cannot be: with more than one thread, since libraries read the
number when they are loaded; on a cluster; in an environment or a container of its own; beside graphics cards, since a
fork cannot use CUDA if an import has started it; outside Linux.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from circuitdrift.cards import installed_cards

ADDRESS = "CIRCUITDRIFT_PRELOADED"
"""The environment variable in which Snakemake gives the preloaded process's socket to its jobs on the same machine."""

FEWEST_JOBS = 10
"""In a shorter call the imports of the preloaded process would take longer than they save."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
"""What Snakemake tells the libraries of a job with one thread."""

QUIET_AND_OFFLINE = dict.fromkeys(("HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS"), "1")
"""What huggingface_hub and transformers read when they are imported: the screen has lines of its own."""

_LENGTH = struct.Struct("!Q")
_STATUS = struct.Struct("!i")
_STANDARD_FILES = (0, 1, 2)
_WAITING_JOBS = 512


def preloads(jobs: int) -> bool:
    """Whether a call preloads that has so many jobs to run on this machine. Its jobs of one thread are then forks."""
    return jobs >= FEWEST_JOBS and sys.platform == "linux" and not installed_cards()


def preload(scripts: Path, jobs: int) -> subprocess.Popen[bytes] | None:
    """Start the preloaded process, and tell the jobs of this process where it is. It ends with this process.

    Args:
        scripts: the folder of the stage scripts.
        jobs: how many jobs are to run on this machine.

    Returns:
        The process, to be kept until the last job has ended; None where jobs start by themselves.
    """
    if not preloads(jobs):
        return None
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            folder = tempfile.mkdtemp(prefix="circuitdrift-")
        except OSError:  # nothing can be written there
            return None
        try:
            listener.bind(f"{folder}/jobs")
        except OSError:  # the path is longer than the 107 bytes of a socket's
            os.rmdir(folder)
            return None
        listener.listen(_WAITING_JOBS)
        process = subprocess.Popen(
            [sys.executable, "-m", "circuitdrift.preloaded", str(listener.fileno()), folder, str(scripts)],
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            env={**os.environ, **ONE_THREAD, **QUIET_AND_OFFLINE, "PYTHONPATH": str(scripts)},
        )
    os.environ[ADDRESS] = f"{folder}/jobs"
    return process


def hand_over() -> None:
    """In a job's own process: let the preloaded process run the script, and end as it ends.

    It returns only where the job must start by itself.
    """
    if ADDRESS not in os.environ or os.environ.get("OMP_NUM_THREADS") != "1":
        return
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(os.environ[ADDRESS])
            _send_job(connection)
            fork = _received(connection, _STATUS.size)
        except OSError:
            return
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)  # the connection closes, and a fork that has begun is killed
        if fork:
            _wait_for(connection, *_STATUS.unpack(fork))


def _send_job(connection: socket.socket) -> None:
    job = {
        "python": sys.prefix,
        "script": sys.argv[0],
        "folder": os.getcwd(),
        "environment": dict(os.environ),
    }
    message = json.dumps(job).encode()
    socket.send_fds(connection, [_LENGTH.pack(len(message))], _STANDARD_FILES)
    connection.sendall(message)


def _wait_for(connection: socket.socket, fork: int) -> NoReturn:
    def pass_on(number: int, _: Any) -> None:
        with suppress(ProcessLookupError):
            os.kill(fork, number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the fork, too
    ended = _received(connection, _STATUS.size)
    if not ended:
        pass_on(signal.SIGKILL, None)
        print("error: the preloaded process was killed; call snakemake again", file=sys.stderr)
        sys.exit(1)
    status = os.waitstatus_to_exitcode(*_STATUS.unpack(ended))
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


def _received(connection: socket.socket, size: int) -> bytes:
    """So many bytes; fewer, down to none, where the other side has closed."""
    parts = b""
    while len(parts) < size and (part := connection.recv(size - len(parts))):
        parts += part
    return parts


@dataclass
class Job:
    """A script that a job's own process has handed over.

    Attributes:
        connection: the other end is the job's own process.
        files: its standard input, output and error, opened here.
        description: its Python, script, working folder and environment.
    """

    connection: socket.socket
    files: list[int]
    description: Mapping[str, Any]

    @classmethod
    def from_connection(cls, connection: socket.socket) -> Job | None:
        """The job that is offered; None where its process has ended, or runs another Python."""
        start, files, _, _ = socket.recv_fds(connection, _LENGTH.size, len(_STANDARD_FILES))
        start += _received(connection, _LENGTH.size - len(start))
        (length,) = _LENGTH.unpack(start.ljust(_LENGTH.size, b"\0"))
        message = _received(connection, length)
        job = cls(connection, files, json.loads(message) if message and len(message) == length else {})
        if job.description.get("python") == sys.prefix and len(files) == len(_STANDARD_FILES):
            return job
        job.close()
        return None

    def close(self) -> None:
        """Close the connection and the files."""
        self.connection.close()
        self.close_files()

    def close_files(self) -> None:
        """Close the files, which a fork has of its own."""
        for file in self.files:
            os.close(file)

    def become(self) -> str:
        """Take over, in a fresh fork, what the job's own process was started with.

        Returns:
            The script to run.
        """
        for number, file in zip(_STANDARD_FILES, self.files, strict=True):
            os.dup2(file, number)
        self.close()
        gc.enable()
        os.environ.clear()
        os.environ.update(self.description["environment"])
        del os.environ[ADDRESS]  # a fork hands nothing over, nor does a process that it starts
        os.chdir(self.description["folder"])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = [self.description["script"]]
        sys.path[0] = str(Path(sys.argv[0]).parent)
        return sys.argv[0]


@dataclass
class Server:
    """The preloaded process between its forks.

    Attributes:
        listener: the socket that jobs connect to.
        running: the connection and the number of each fork that runs, by the file that tells of its end.
        events: all files that it waits for.
    """

    listener: socket.socket
    running: dict[int, tuple[socket.socket, int]] = field(default_factory=dict)
    events: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def next_script(self) -> str | None:
        """Serve jobs.

        Returns:
            In each fork, the script to run; in the preloaded process None, when Snakemake has ended.
        """
        self.events.register(sys.stdin.fileno(), selectors.EVENT_READ)
        self.events.register(self.listener, selectors.EVENT_READ)
        while True:
            for key, _ in self.events.select():
                if key.fd == sys.stdin.fileno():
                    return None
                if key.fileobj is self.listener:
                    job = Job.from_connection(self.listener.accept()[0])
                    if job is not None and not self._start(job):
                        return job.become()
                elif isinstance(key.fileobj, socket.socket):  # a job's own process has ended before its fork
                    self._kill(key.fileobj)
                else:
                    self._report(key.fd)

    def _start(self, job: Job) -> int:
        """Fork; 0 in the fork."""
        process = os.fork()
        if process == 0:
            self._close()
            return 0
        end = os.pidfd_open(process)
        self.running[end] = job.connection, process
        self.events.register(end, selectors.EVENT_READ)
        self.events.register(job.connection, selectors.EVENT_READ)
        with suppress(OSError):
            job.connection.sendall(_STATUS.pack(process))
        job.close_files()
        return process

    def _report(self, end: int) -> None:
        connection, process = self.running.pop(end)
        _, status = os.waitpid(process, 0)
        with suppress(OSError):
            connection.sendall(_STATUS.pack(status))
        for file in (end, connection):
            self.events.unregister(file)
        os.close(end)
        connection.close()

    def _kill(self, lost: socket.socket) -> None:
        for connection, process in self.running.values():
            if connection is lost:
                os.kill(process, signal.SIGKILL)

    def _close(self) -> None:
        self.events.close()
        self.listener.close()
        for end, (connection, _) in self.running.items():
            os.close(end)
            connection.close()


def import_stages(scripts: Path) -> None:
    """Import the library and all stage scripts, and with them whatever they import."""
    library = importlib.import_module(__package__ or "circuitdrift")
    for module in pkgutil.walk_packages(library.__path__, f"{library.__name__}."):
        importlib.import_module(module.name)
    for script in sorted(scripts.glob("*.py")):
        importlib.import_module(script.stem)


def serve(listener: int, folder: Path, scripts: Path) -> None:
    """In the preloaded process: import, then run jobs in forks until Snakemake ends. In a fork: run the job.

    Args:
        listener: the file number of the socket.
        folder: holds the socket; it is removed at the end.
        scripts: the folder of the stage scripts.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    import_stages(scripts)
    gc.freeze()
    script = Server(socket.socket(fileno=listener)).next_script()
    if script is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        _run(script)


def _run(script: str) -> NoReturn:
    """Run a script and end the process as the interpreter does, but leave what is imported to the kernel.

    Freeing it would take half a second: the fork gets a copy of each page that it touches.
    """
    status = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
