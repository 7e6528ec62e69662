"""How long Snakemake takes before the first job of a large study: CPU time of parsing, and of one model's plan.

The study has 3 models, 12 tasks, 12 methods, 5 seeds and 11 checkpoints: 2,160 fine-tunings. One model's plan is of the
same study with one of the models. Each command is a process of its own, in an empty directory.
The commands of a round follow each other, and the table has the medians over the rounds. CPU time is that of user and
system; shares of a second are the same in every round only on an idle machine.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from measuring import Row, write_tables

SNAKEFILE = Path(__file__).resolve().parents[1] / "Snakefile"
OPERANDS = (90, 100, 120, 150, 180, 200, 220, 250)
RANKS = (2, 4, 8, 16, 32, 64)


def large_study(models: int) -> dict[str, Any]:
    """The config of the study, with so many of its models."""
    tasks: dict[str, Any] = {f"add_sub_{n}": {"family": "add_sub", "max_operand": n} for n in OPERANDS}
    tasks |= {family: {"family": family} for family in ("sequence", "lcm", "function", "compositional")}
    methods: dict[str, Any] = {"full": {"kind": "full"}} | {f"lora_r{r}": {"kind": "lora", "rank": r} for r in RANKS}
    two_ranks = {"rank": 2, "critical_rank": 8, "critical_layers": 2}
    methods |= {f"random_{draw}": {"kind": "random_lora", "draw": draw, **two_ranks} for draw in range(3)}
    methods |= {"circuit": {"kind": "circuit_lora", "phase_1": "lora_r2", **two_ranks}, "ia3": {"kind": "ia3"}}
    return {
        "study": "large",
        "seeds": list(range(5)),
        "models": {f"model_{seed}": {"source": "scratch", "seed": seed} for seed in range(models)},
        "tasks": tasks,
        "methods": methods,
        "training": {"checkpoints": 10},
    }


def cpu_seconds(*options: str) -> float:
    """CPU seconds of a call of Snakemake."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "snakemake", *options], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def rows_of_commands(folder: Path, rounds: int) -> list[Row]:
    """A row for each command."""
    files = {models: folder / f"{models}_models.yaml" for models in (1, 3)}
    for models, file in files.items():
        file.write_text(yaml.safe_dump(large_study(models)))
    here = ("--snakefile", str(SNAKEFILE), "--directory", str(folder), "--configfile")
    commands = {
        "Snakemake alone": ("--list-target-rules", "--snakefile", "/dev/null"),
        "parsing, all models": ("--list-target-rules", *here, str(files[3])),
        "plan, one model's part": ("--dry-run", "--quiet", "--cores", "1", *here, str(files[1])),
    }
    spent = [{what: cpu_seconds(*options) for what, options in commands.items()} for _ in range(rounds)]
    seconds = {what: statistics.median(times[what] for times in spent) for what in commands}
    return [
        {
            "what": what,
            "CPU time (s)": round(taken, 2),
            "less Snakemake alone (s)": round(taken - seconds["Snakemake alone"], 2),
        }
        for what, taken in seconds.items()
    ]


def main() -> None:
    """Measure the commands and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="markdown file; standard output without it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_tables([rows_of_commands(Path(folder), given.rounds)], given.output)


if __name__ == "__main__":
    main()
