"""The prompts of the real-model study, as far as they can be checked without its tokenizer."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

CSV = Path(__file__).resolve().parents[2] / "configs" / "prompts" / "complex_ioi.csv"


@pytest.fixture(scope="module")
def prompts() -> pd.DataFrame:
    return pd.read_csv(CSV)


def test_answers_follow_from_the_prompts(prompts: pd.DataFrame) -> None:
    pattern = (
        r"^(?P<one>\w+) needed (?P<first>\w+), (?P<other>\w+) wanted (?P<second>\w+), \w+ handed (?P<given>\w+) to$"
    )
    for prompt, answer in (("clean", "answer"), ("corrupted", "corrupted_answer")):
        scene = prompts[prompt].str.extract(pattern)
        owner = scene["one"].where(scene["given"] == scene["first"], scene["other"])
        assert (scene["given"] == scene["first"]).ne(scene["given"] == scene["second"]).all()
        assert (" " + owner == prompts[answer]).all()


def test_corruption_changes_the_handed_object_only(prompts: pd.DataFrame) -> None:
    clean, corrupted = prompts["clean"].str.split(), prompts["corrupted"].str.split()
    differing = [
        [place for place, (a, b) in enumerate(zip(*pair, strict=True)) if a != b]
        for pair in zip(clean, corrupted, strict=True)
    ]
    assert all(places == [8] for places in differing)
    assert (prompts["answer"] != prompts["corrupted_answer"]).all()


def test_splits_share_no_prompt(prompts: pd.DataFrame) -> None:
    long = prompts.melt(id_vars="split", value_vars=["clean", "corrupted"], value_name="prompt")
    assert not long["prompt"].duplicated().any()
    assert prompts["split"].value_counts().to_dict() == {"train": 1280, "test": 300, "circuit": 100}


def test_neither_person_nor_position_gives_the_answer_away(prompts: pd.DataFrame) -> None:
    assert prompts["answer"].value_counts(normalize=True).max() < 0.05
    first = [row.clean.startswith(row.answer.strip()) for row in prompts.itertuples()]
    assert 0.45 < sum(first) / len(first) < 0.55


def test_file_is_small_enough_for_a_repository() -> None:
    assert CSV.stat().st_size < 250_000
