"""Differences judged by a margin, and the number of prompts that would resolve them."""

from __future__ import annotations

import math

import pytest

from circuitdrift.drift.equivalence import MARGIN, Difference, about


@pytest.mark.parametrize(
    ("value", "half_width", "verdict"),
    [
        (0.0, MARGIN, "equal"),
        (0.02, 0.02, "equal"),
        (-0.02, 0.02, "equal"),
        (0.02, 0.04, "unresolved"),
        (-0.08, 0.02, "different"),
        (0.08, 0.02, "different"),
        (-0.08, 0.04, "unresolved"),
        (math.nan, math.nan, "unresolved"),
    ],
)
def test_an_interval_lies_within_the_margin_outside_it_or_across(value: float, half_width: float, verdict: str) -> None:
    assert Difference(value, half_width, half_width, 100).verdict == verdict


@pytest.mark.parametrize(("value", "of_seeds"), [(0.01, 0.0), (0.01, 0.02), (-0.09, 0.03)])
def test_with_the_prompts_needed_the_interval_just_reaches_the_margin(value: float, of_seeds: float) -> None:
    of_prompts = 0.06
    found = Difference(value, math.hypot(of_prompts, of_seeds), of_prompts, 100)
    assert found.verdict == "unresolved"
    then = math.hypot(of_prompts * math.sqrt(100 / found.prompts_needed), of_seeds)
    assert abs(value) + then == pytest.approx(MARGIN) or abs(value) - then == pytest.approx(MARGIN)


@pytest.mark.parametrize("found", [Difference(MARGIN, 0.02, 0.02, 100), Difference(0.03, 0.05, 0.03, 100)])
def test_no_number_of_prompts_helps_on_the_margin_or_where_seeds_scatter(found: Difference) -> None:
    assert found.prompts_needed == math.inf


def test_numbers_of_prompts_are_rounded_up_to_two_digits() -> None:
    assert [about(n) for n in (7.2, 41.0, 101.0, 1234.5, 99_001.0)] == ["8", "41", "110", "1,300", "100,000"]
