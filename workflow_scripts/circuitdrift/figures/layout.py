"""Common parts of all tables: tidy numbers for CSV, and their layout for reading in Markdown and LaTeX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from circuitdrift.storage import write_text

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{EN DASH}": "--",
}
EMPTY = "\N{EN DASH}"


@dataclass(frozen=True)
class Table:
    """One table: its numbers, one observation a row, and its layout for readers, all text."""

    title: str
    note: str
    tidy: pd.DataFrame
    layout: pd.DataFrame


def write_table_files(table: Table, csv: Path, md: Path, tex: Path) -> None:
    """Write the tidy numbers as CSV, the layout as Markdown and as a LaTeX table (needs the booktabs package)."""
    write_text(csv, table.tidy.to_csv(index=False, lineterminator="\n"))
    write_text(md, as_markdown(table))
    write_text(tex, as_latex(table))


def as_markdown(table: Table) -> str:
    """Title, table and note in GitHub's Markdown."""
    head = [str(column) for column in table.layout.columns]
    rows = [head, ["---"] * len(head), *table.layout.astype(str).to_numpy().tolist()]
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    return f"**{table.title}**\n\n" + "\n".join(lines) + f"\n\n{table.note}\n"


def as_latex(table: Table) -> str:
    """A table environment with booktabs rules, every sign escaped."""
    head = [str(column) for column in table.layout.columns]
    lines = [
        " & ".join(escape_latex(cell) for cell in row) + r" \\" for row in table.layout.astype(str).to_numpy().tolist()
    ]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{escape_latex(table.title)}. {escape_latex(table.note)}}}",
            rf"  \begin{{tabular}}{{{'l' * len(head)}}}",
            r"    \toprule",
            "    " + " & ".join(escape_latex(cell) for cell in head) + r" \\",
            r"    \midrule",
            *(f"    {line}" for line in lines),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(character, character) for character in text)


def layout_of(rows: list[dict[str, str]]) -> pd.DataFrame:
    """Rows as a frame of text; without the column of the model where there is one model."""
    frame = pd.DataFrame(rows).fillna(EMPTY)
    return frame.drop(columns="Model") if frame["Model"].nunique() <= 1 else frame


def percent_with_interval(value: float, lower: float, upper: float) -> str:
    """A percentage and its interval with one decimal each."""
    return f"{value:.1f} [{lower:.1f}, {upper:.1f}]"


def seeds_phrase(means: pd.DataFrame) -> str:
    """The number of seeds behind mean rows (``tidy.with_seed_means``) in words."""
    return "one seed" if means["seeds"].max() == 1 else f"{counts_phrase(means['seeds'])} seeds"


def counts_phrase(counts: pd.Series) -> str:
    """A count, or the lowest and the highest of several."""
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
