"""How long stage scripts take to start: CPU time of their imports, as a multiple of ``import torch``.

Each start is a process of its own. It imports a script as a Snakemake job does (without Snakemake's own preamble), and
then what the stage imports once it runs: the class of a GPT-NeoX for stages that load a model, transformers' tokenizers
for stages that load one. All starts of a round follow each other, ``import torch`` among them, and the table has the
medians over the rounds. One start of each, which does not count, fills the caches of files and bytecode first.
Shares of a second are the same in every round only on an idle machine, so compare the multiples.

The last row is a job that imports nothing, as most jobs on one machine are: a fork of the preloaded process. Its time
is that of the process that hands the job over and of the fork, to the end of both.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
from measuring import Row, write_tables

SCRIPTS = Path(__file__).resolve().parents[1] / "workflow_scripts"

TORCH = "import torch"
BARE_MODEL = "from transformers import GPTNeoXForCausalLM"

IN_A_JOB = "snakemake = None\n"
"""The name by which :mod:`circuitdrift.stage` knows a job."""

WHEN_IT_RUNS = f"""
import sys
if "circuitdrift.models.loading" in sys.modules:
    {BARE_MODEL}
elif "circuitdrift.models.tokenizer" in sys.modules:
    from circuitdrift.models.tokenizer import tokenizers_only
    with tokenizers_only():
        from transformers import AutoTokenizer, PreTrainedTokenizerFast
"""

COLUMNS = ("start", "CPU time (s)", "multiple of import torch", "modules", "libraries")
LIBRARIES = ("torch", "transformers", "peft")
REPORT = f"\nimport sys\nprint(len(sys.modules), *({{*{LIBRARIES!r}}} & set(sys.modules)))"


def cpu_seconds(program: str) -> tuple[float, list[str]]:
    """CPU seconds (user and system) of a Python process in the folder of the scripts, and the words that it prints."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True, cwd=SCRIPTS)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, done.stdout.split()


def rows_of_starts(stages: list[str], rounds: int) -> list[Row]:
    """A row for ``import torch``, for the bare model, and for each stage."""
    programs = {TORCH: TORCH + REPORT, BARE_MODEL: BARE_MODEL + REPORT}
    programs |= {stage: f"{IN_A_JOB}import {stage}{WHEN_IT_RUNS}{REPORT}" for stage in stages}
    imported = {name: cpu_seconds(program)[1] for name, program in programs.items()}
    spent: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            spent[name].append(cpu_seconds(program)[0])
    seconds = {name: statistics.median(times) for name, times in spent.items()}
    return [
        _row(
            name,
            seconds[name],
            seconds[TORCH],
            imported[name][0],
            ", ".join(library for library in LIBRARIES if library in imported[name]) or "none of these",
        )
        for name in programs
    ]


FORK = "a fork of the preloaded process"
EMPTY_JOB = f"""
import sys
sys.path.append({str(SCRIPTS)!r})
{IN_A_JOB}
from circuitdrift import stage
"""


def row_of_a_fork(rounds: int, seconds_of_torch: float) -> Row:
    """The row of jobs that are handed over to the preloaded process."""
    sys.path.append(str(SCRIPTS))
    from circuitdrift import preloaded

    process = preloaded.preload(SCRIPTS, preloaded.FEWEST_JOBS)
    if process is None:
        return dict.fromkeys(COLUMNS, "") | {"start": FORK, "libraries": "jobs start by themselves on this machine"}
    environment = {**os.environ, **preloaded.ONE_THREAD}
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(EMPTY_JOB)
        script.flush()
        spent = [_seconds_of_a_fork(process.pid, script.name, environment) for _ in range(rounds + 1)][1:]
    process.communicate()
    return _row(FORK, statistics.median(spent), seconds_of_torch, "", "all")


def _row(start: str, seconds: float, seconds_of_torch: float, modules: str, libraries: str) -> Row:
    values = (start, round(seconds, 2), round(seconds / seconds_of_torch, 2), modules, libraries)
    return dict(zip(COLUMNS, values, strict=True))


def _seconds_of_a_fork(preloaded: int, script: str, environment: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN), psutil.Process(preloaded).cpu_times()
    subprocess.run([sys.executable, script], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN), psutil.Process(preloaded).cpu_times()
    own = after[0].ru_utime + after[0].ru_stime - before[0].ru_utime - before[0].ru_stime
    return own + sum(after[1][:4]) - sum(before[1][:4])


def main() -> None:
    """Measure the starts and write the table."""
    every = sorted(path.stem for path in SCRIPTS.glob("*.py"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=every, default=every)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="markdown file; standard output without it")
    given = parser.parse_args()
    rows = rows_of_starts(given.stages, given.rounds)
    seconds_of_torch = next(float(row["CPU time (s)"]) for row in rows if row["start"] == TORCH)
    write_tables([[*rows, row_of_a_fork(given.rounds, seconds_of_torch)]], given.output)


if __name__ == "__main__":
    main()
