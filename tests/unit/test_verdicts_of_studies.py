"""The script that puts the verdicts of several studies side by side."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest
from verdict_tables import tables

from circuitdrift.verdicts.claims import CLAIMS
from circuitdrift.verdicts.tabulation import tabulate_verdicts

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "examples" / "verdicts_of_studies.py"


@pytest.fixture
def study(tmp_path):
    """Writes a study with these numbers for its first claim, and nothing measured for the others."""

    def write(name, model, **numbers):
        verdicts = tabulate_verdicts(tables(), model)
        verdicts = verdicts.astype(dict.fromkeys(numbers, object))
        verdicts.loc[0, list(numbers)] = list(numbers.values())
        (tmp_path / name / "tables").mkdir(parents=True)
        verdicts.to_csv(tmp_path / name / "tables" / "verdicts.csv", index=False)
        return tmp_path / name

    return write


def rows_of(capsys, monkeypatch, *studies):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, studies)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]


def test_each_study_has_a_column_beside_the_claim_and_the_published_number(study, capsys, monkeypatch):
    first = study("small", "tiny", measured=0.71234, lower=0.65, upper=0.78, verdict="not supported")
    second = study("large", "smollm2", measured=0.9, verdict="undecided")
    header, rule, *rows = rows_of(capsys, monkeypatch, first, second)
    assert header == ["Claim", "Claimed", "Published", "small, tiny", "large, smollm2"]
    assert rule == ["---"] * 5
    assert rows[0] == [
        CLAIMS[0].sentence,
        "above 0.8 (share of the full model)",
        "above 80 %",
        "**not supported**: 0.712 [0.65, 0.78]",
        "**undecided**: 0.9",
    ]
    assert [row[0] for row in rows] == [claim.sentence for claim in CLAIMS]
    assert rows[1][3:] == ["undecided (not measured)"] * 2


def test_a_claim_of_equivalence_shows_its_margin(study, capsys, monkeypatch):
    rows = rows_of(capsys, monkeypatch, study("small", "tiny", measured=0.9))
    margin = next(row for row in rows if row[0].startswith("The union of the sub-tasks' circuits is as faithful"))
    assert margin[1] == "within 0.1 of 0 (faithfulness, difference)"


def test_every_model_of_a_study_has_a_column(study, capsys, monkeypatch):
    folder = study("both", "tiny", measured=0.9, verdict="supported")
    path = folder / "tables" / "verdicts.csv"
    verdicts = pd.read_csv(path)
    pd.concat([verdicts, verdicts.assign(model="other", measured=0.5)]).to_csv(path, index=False)
    header, _, first, *_ = rows_of(capsys, monkeypatch, folder)
    assert header[3:] == ["both, other", "both, tiny"]
    assert first[3:] == ["**supported**: 0.5", "**supported**: 0.9"]
