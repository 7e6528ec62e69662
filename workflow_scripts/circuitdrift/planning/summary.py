"""The last lines of a call: where the results lie and what they say, or which jobs failed and why."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from circuitdrift.layout import Layout


def lines_of_success(layout: Layout, study: str) -> list[str]:
    """Where figures, tables and report of a study lie, as far as they are there, and the verdicts on its claims."""
    folders = {"figures": Path(layout.figures), "tables": Path(layout.tables), "report": Path(layout.report)}
    places = [f"{name}: {path}" for name, path in folders.items() if path.exists()]
    return [f"{study}: done. {'   '.join(places)}".rstrip(), *lines_of_verdicts(Path(layout.table("verdicts", "csv")))]


def lines_of_verdicts(table: Path) -> list[str]:
    """How many claims the study supports, and a line for each that it decides; none without the table of verdicts."""
    if not table.is_file():
        return []
    with table.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    counts = Counter(row["verdict"] for row in rows)
    counted = ", ".join(f"{number} {verdict}" for verdict, number in counts.most_common())
    decided = [row for row in rows if row["verdict"] != "undecided"]
    return [f"verdicts: {counted} ({table})", *(f"  {_line_of(row)}" for row in decided)]


def _line_of(row: Mapping[str, str]) -> str:
    interval = f" [{_short(row['lower'])}, {_short(row['upper'])}]" if row["lower"] and row["upper"] else ""
    measured = f"; measured {_short(row['measured'])}{interval}" if row["measured"] else ""
    published = f", published {row['published']}" if row["published"] else ""
    model = f" ({row['model']})" if row["model"] else ""
    return f"{row['verdict']}: {row['claim']}{model}{measured}{published}"


def _short(number: str) -> str:
    """A number of the table to three digits."""
    return f"{float(number):.3g}"


def lines_of_failure(failed: Mapping[str, Path | None]) -> list[str]:
    """The jobs that failed, each with its log and the line of it that matters.

    Args:
        failed: the log file of each, by the job's name; None of a job without one.
    """
    number = "1 job" if len(failed) == 1 else f"{len(failed)} jobs"
    lines = [f"{number} failed; what is finished is kept, and the next call goes on from there."]
    for name, log in failed.items():
        told = telling_line(log.read_text(errors="replace")) if log and log.is_file() else ""
        lines.append(f"  {name}: {told or 'its log says nothing'}")
        if log:
            lines.append(f"    log: {log}")
    return lines


def telling_line(text: str) -> str:
    """The line of a log that says why a job failed: the last with ``error: ``, or else the last that says anything."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "error: " in line.lower()), lines[-1] if lines else "")
