"""Common parts of all tables: tidy numbers for CSV, and their layout for reading in Markdown, LaTeX and HTML."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from html import escape as html_escape
from pathlib import Path
from typing import Any

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

_STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;margin:1.5rem;color:#1f2937}h1{font-size:1.1rem}"
    "table{border-collapse:collapse}th,td{padding:.25rem .7rem;text-align:left;border-bottom:1px solid #e5e7eb;"
    "vertical-align:top}th{border-bottom:2px solid #6b7280}p{max-width:60rem}"
)
"""The look of a table in HTML; the page loads nothing."""

_FORMULA = ("=", "+", "-", "@")
_BREAKING = {"Cc", "Cf", "Zl", "Zp"}
"""Unicode's categories of characters that end a line, change the direction of text, or cannot be seen."""


@dataclass(frozen=True)
class Table:
    """One table: its numbers, one observation a row, and its layout for readers, all text."""

    title: str
    note: str
    tidy: pd.DataFrame
    layout: pd.DataFrame


def write_table_files(table: Table, csv: Path, md: Path, tex: Path, html: Path) -> None:
    """Write the tidy numbers as CSV, the layout as Markdown, as a LaTeX table (needs booktabs), and as HTML."""
    write_text(csv, as_csv(table))
    write_text(md, as_markdown(table))
    write_text(tex, as_latex(table))
    write_text(html, as_html(table))


def as_csv(table: Table) -> str:
    """The tidy numbers; text that a spreadsheet would take for a formula starts with an apostrophe."""
    return table.tidy.map(_csv_cell).to_csv(index=False, lineterminator="\n")


def _csv_cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = on_one_line(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def on_one_line(text: str) -> str:
    """Text without spaces at its ends, and with one for each character that ends a line, turns text, or is unseen."""
    return "".join(" " if unicodedata.category(character) in _BREAKING else character for character in text).strip()


def as_markdown(table: Table) -> str:
    """Title, table and note in GitHub's Markdown, without HTML and links in them."""
    head = [str(column) for column in table.layout.columns]
    rows = [head, ["---"] * len(head), *table.layout.astype(str).to_numpy().tolist()]
    lines = ["| " + " | ".join(escape_markdown(cell).replace("|", r"\|") for cell in row) + " |" for row in rows]
    return f"**{escape_markdown(table.title)}**\n\n" + "\n".join(lines) + f"\n\n{escape_markdown(table.note)}\n"


def escape_markdown(text: str) -> str:
    """Text on one line, in which no tag of HTML and no link starts."""
    escaped = on_one_line(text).replace("\\", r"\\").replace("](", r"]\(")
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", escaped)


def as_html(table: Table) -> str:
    """A page of its own for the report: title, table and note, every sign escaped; it loads nothing."""
    head = "".join(f"<th>{_html_cell(column)}</th>" for column in table.layout.columns)
    rows = [
        "<tr>" + "".join(f"<td>{_html_cell(cell)}</td>" for cell in row) + "</tr>"
        for row in table.layout.astype(str).to_numpy().tolist()
    ]
    title, note = _html_cell(table.title), _html_cell(table.note)
    return "\n".join(
        [
            f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>',
            f"<style>{_STYLE}</style></head>",
            f"<body>\n<h1>{title}</h1>\n<table>\n<thead><tr>{head}</tr></thead>",
            *("<tbody>", *rows, "</tbody>"),
            f"</table>\n<p>{note}</p>\n</body>\n</html>\n",
        ]
    )


def _html_cell(value: Any) -> str:
    return html_escape(on_one_line(str(value)))


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
    """Text on one line, with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(character, character) for character in on_one_line(text))


def layout_of(rows: list[dict[str, str]]) -> pd.DataFrame:
    """Rows as a frame of text; without the column of the model where there is one model."""
    frame = pd.DataFrame(rows).fillna(EMPTY)
    return frame.drop(columns="Model") if frame["Model"].nunique() <= 1 else frame


def percent_with_interval(value: float, lower: float, upper: float) -> str:
    """A percentage and its interval with one decimal each."""
    return f"{value:.1f} [{lower:.1f}, {upper:.1f}]"


def prompts_phrase(needed: float) -> str:
    """A number of prompts, rounded up; no number reaches a reliability that is not positive."""
    return "more" if math.isinf(needed) else f"{math.ceil(needed):,}"


def seeds_phrase(means: pd.DataFrame) -> str:
    """The number of seeds behind mean rows (``tidy.with_seed_means``) in words."""
    return "one seed" if means["seeds"].max() == 1 else f"{counts_phrase(means['seeds'])} seeds"


def counts_phrase(counts: pd.Series) -> str:
    """A count, or the lowest and the highest of several."""
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
