"""The preloaded process: a job that it runs sees and leaves what it would by itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import circuitdrift
from circuitdrift import preloaded

SCRIPTS = Path(circuitdrift.__file__).parents[1]
JOB = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background is started without it
sys.path.append({scripts!r})
from circuitdrift import preloaded
preloaded.hand_over()
by_itself = "torch" not in sys.modules
{body}
"""
"""A job as Snakemake starts it: it hands over at once. A fork, which has torch by then, runs it again and goes on."""

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="jobs start by themselves outside Linux")


@pytest.fixture(scope="module")
def preloading():
    """A preloaded process; ends with the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preloaded, "installed_cards", tuple)
        process = preloaded.preload(SCRIPTS, preloaded.FEWEST_JOBS)
        assert process is not None
        address = os.environ.pop(preloaded.ADDRESS)
        yield process, address
        process.stdin.close()
        assert process.wait(60) == 0
        assert not Path(address).parent.exists()


def started(tmp_path: Path, address: str, body: str, **settings: str) -> subprocess.Popen[str]:
    """Start a job beside a preloaded process, in a folder of its own."""
    script = tmp_path / "job.py"
    script.write_text(JOB.format(scripts=str(SCRIPTS), body=body))
    environment = {**os.environ, **preloaded.ONE_THREAD, preloaded.ADDRESS: address, **settings}
    return subprocess.Popen(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(condition, seconds: float = 30) -> None:
    """Wait for a condition that another process makes true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@needs_linux
def test_a_job_runs_in_a_fork_with_all_that_its_own_process_has(preloading, tmp_path):
    body = (
        "import gc, json, os, threading\n"
        "def main():\n"
        "    print(json.dumps([by_itself, __name__, sys.argv, os.getcwd(), os.environ['SETTING'], os.getppid(),\n"
        "        threading.active_count(), gc.isenabled()]))\n"
        "    print('to the screen', file=sys.stderr)\n"
        "main()\n"
    )
    job = started(tmp_path, preloading[1], body, SETTING="7")
    out, err = job.communicate(timeout=120)
    by_itself, name, argv, folder, setting, parent, threads, collects = json.loads(out)
    assert (by_itself, name, setting, threads) == (False, "__main__", "7", 1)
    assert argv == [str(tmp_path / "job.py")]
    assert Path(folder) == tmp_path
    assert parent == preloading[0].pid
    assert err == "to the screen\n"
    assert collects
    assert job.returncode == 0


@needs_linux
def test_a_fork_leaves_no_trace_in_the_next(preloading, tmp_path):
    first = started(tmp_path, preloading[1], "import os\nimport torch\nos.environ['LEFT'] = '1'\ntorch.left = 1\n")
    assert first.wait(120) == 0
    second = started(
        tmp_path, preloading[1], "import os\nimport torch\nprint('LEFT' in os.environ, hasattr(torch, 'left'))\n"
    )
    assert second.communicate(timeout=120)[0] == "False False\n"


@needs_linux
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("sys.exit(3)", 3),
        ("sys.exit()", 0),
        ("sys.exit('reason')", 1),
        ("raise ValueError('reason')", 1),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    ],
)
def test_a_job_ends_as_its_fork_ends(preloading, tmp_path, body, status):
    job = started(tmp_path, preloading[1], body)
    _, err = job.communicate(timeout=120)
    assert job.returncode == status
    assert ("reason" in err) == ("reason" in body)


@needs_linux
def test_what_is_registered_for_the_end_of_a_job_is_done(preloading, tmp_path):
    job = started(
        tmp_path, preloading[1], "import atexit\natexit.register(print, 'tidied')\nsys.stdout.write('said, ')\n"
    )
    assert job.communicate(timeout=120)[0] == "said, tidied\n"


WAITING = "import os, time\nopen('fork', 'w').write(str(os.getpid()))\nos.rename('fork', 'number')\ntime.sleep(600)\n"


@needs_linux
def test_a_fork_gets_the_signal_that_ends_its_own_process(preloading, tmp_path):
    body = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n" + WAITING
    job = started(tmp_path, preloading[1], body)
    until((tmp_path / "number").exists)
    job.terminate()
    assert job.wait(60) == 9


@needs_linux
def test_a_fork_whose_own_process_is_killed_is_killed(preloading, tmp_path):
    job = started(tmp_path, preloading[1], WAITING)
    until((tmp_path / "number").exists)
    fork = psutil.Process(int((tmp_path / "number").read_text()))
    job.kill()
    job.wait()
    until(lambda: not fork.is_running())


@needs_linux
def test_ctrl_c_before_the_fork_ends_a_job_without_a_traceback(tmp_path):
    """The other side has not answered yet, as while the preloaded process imports."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "jobs"))
        listener.listen()
        job = started(tmp_path, str(tmp_path / "jobs"), "print('by itself')")
        connection, _ = listener.accept()
        connection.recv(1)
        job.send_signal(signal.SIGINT)
        out, err = job.communicate(timeout=60)
        connection.close()
    assert (job.returncode, out, err) == (130, "", "")


@needs_linux
def test_jobs_run_side_by_side(preloading, tmp_path):
    """Each waits for the file of the other."""
    jobs = []
    for own, other in (("a", "b"), ("b", "a")):
        folder = tmp_path / own
        folder.mkdir()
        body = (
            "import pathlib, time\n"
            f"pathlib.Path({str(tmp_path / own)!r}, 'here').touch()\n"
            f"while not pathlib.Path({str(tmp_path / other)!r}, 'here').exists(): time.sleep(.02)\n"
        )
        jobs.append(started(folder, preloading[1], body))
    assert [job.wait(120) for job in jobs] == [0, 0]


@needs_linux
@pytest.mark.parametrize("settings", [{"OMP_NUM_THREADS": "2"}, {preloaded.ADDRESS: "/nowhere/jobs"}])
def test_a_job_starts_by_itself_with_more_threads_or_without_the_process(preloading, tmp_path, settings):
    job = started(tmp_path, preloading[1], "print(by_itself)", **settings)
    assert job.communicate(timeout=60)[0] == "True\n"


@needs_linux
def test_a_job_of_another_python_starts_by_itself(preloading, tmp_path):
    job = started(tmp_path, preloading[1], "print(by_itself)")
    assert job.communicate(timeout=120)[0] == "False\n"
    script = tmp_path / "job.py"
    script.write_text(
        script.read_text().replace("preloaded.hand_over()", "sys.prefix = '/other'\npreloaded.hand_over()")
    )
    environment = {**os.environ, **preloaded.ONE_THREAD, preloaded.ADDRESS: preloading[1]}
    again = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=True)
    assert again.stdout == "True\n"


@needs_linux
def test_a_job_starts_by_itself_if_the_process_cannot_import(tmp_path, monkeypatch):
    """It fails after the job has connected, or before."""
    (tmp_path / "circuitdrift").symlink_to(SCRIPTS / "circuitdrift")
    (tmp_path / "broken.py").write_text("raise ImportError('a stage that cannot be imported')\n")
    monkeypatch.setattr(preloaded, "installed_cards", tuple)
    process = preloaded.preload(tmp_path, preloaded.FEWEST_JOBS)
    address = os.environ.pop(preloaded.ADDRESS)
    job = started(tmp_path, address, "print(by_itself)")
    assert job.communicate(timeout=120)[0] == "True\n"
    process.stdin.close()
    assert process.wait(60) != 0


def test_a_short_call_and_a_machine_with_graphics_cards_preload_nothing(monkeypatch):
    monkeypatch.setattr(preloaded, "installed_cards", tuple)
    assert preloaded.preload(SCRIPTS, preloaded.FEWEST_JOBS - 1) is None
    monkeypatch.setattr(preloaded, "installed_cards", lambda: ("GPU-0",))
    assert preloaded.preload(SCRIPTS, 1000) is None
    assert preloaded.ADDRESS not in os.environ


def test_a_call_preloads_for_many_jobs_on_linux_without_cards(monkeypatch):
    monkeypatch.setattr(preloaded, "installed_cards", tuple)
    monkeypatch.setattr(sys, "platform", "linux")
    many = preloaded.FEWEST_JOBS
    assert [preloaded.preloads(jobs) for jobs in (0, many - 1, many)] == [False, False, True]
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not preloaded.preloads(many)
    assert preloaded.preload(SCRIPTS, many) is None


def test_a_place_for_temporary_files_with_too_long_a_name_preloads_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(preloaded, "installed_cards", tuple)
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    assert preloaded.preload(SCRIPTS, 1000) is None
    assert preloaded.ADDRESS not in os.environ
    assert list(deep.iterdir()) == []


@needs_linux
def test_if_the_process_is_killed_so_are_its_forks(tmp_path, monkeypatch):
    monkeypatch.setattr(preloaded, "installed_cards", tuple)
    process = preloaded.preload(SCRIPTS, preloaded.FEWEST_JOBS)
    address = os.environ.pop(preloaded.ADDRESS)
    job = started(tmp_path, address, WAITING)
    until((tmp_path / "number").exists, 120)
    fork = psutil.Process(int((tmp_path / "number").read_text()))
    process.kill()
    process.communicate()
    assert "call snakemake again" in job.communicate(timeout=60)[1]
    assert job.returncode == 1
    until(lambda: not fork.is_running() or fork.status() == psutil.STATUS_ZOMBIE)
    shutil.rmtree(Path(address).parent)


@needs_linux
def test_the_process_ends_when_its_snakemake_is_killed(tmp_path):
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from circuitdrift import preloaded\n"
        "preloaded.installed_cards = tuple\n"
        f"process = preloaded.preload(Path({str(SCRIPTS)!r}), 100)\n"
        "print(process.pid, os.environ[preloaded.ADDRESS], flush=True)\n"
        "time.sleep(600)\n"
    )
    snakemake = subprocess.Popen([sys.executable, "-c", program], cwd=SCRIPTS, stdout=subprocess.PIPE, text=True)
    number, address = snakemake.stdout.readline().split()
    process = psutil.Process(int(number))
    snakemake.kill()
    snakemake.wait()
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 120)
    assert not Path(address).parent.exists()
