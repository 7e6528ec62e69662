"""All claims of one model with their verdicts, one row each (docs/method.md#verdicts)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from circuitdrift.comparisons import holm
from circuitdrift.verdicts.claims import CLAIMS, Claim
from circuitdrift.verdicts.decision import Estimate, Verdict, decide, estimate
from circuitdrift.verdicts.tables import Tables

COLUMNS = ["name", "claim", "published", "place", "model", "measured", "lower", "upper", "null", "margin", "claimed"]
COLUMNS += ["verdict", "p_value", "p_holm", "unit", "replicates", "over", "tasks", "remark", "reads"]


def tabulate_verdicts(tables: Tables, model: str, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """The verdict on each claim for one model.

    Args:
        tables: of the study.
        model: the name of the model.
        claims: all of the paper's.

    Returns:
        Columns :data:`COLUMNS`, a row for each claim in their order.
    """
    own = tables.of_model(model)
    found = [estimate(claim.measure(own), claim.null, claim.scale).within(*claim.bounds) for claim in claims]
    corrected = _corrected(claims, found)
    rows = [_row(model, *each) for each in zip(claims, found, corrected, strict=True)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _corrected(claims: Sequence[Claim], found: Sequence[Estimate]) -> list[float]:
    """p-values after Holm's correction over the claims of one kind; NaN for claims of equivalence."""
    tested = [_p_value(*each) for each in zip(claims, found, strict=True)]
    corrected = [float("nan")] * len(claims)
    for kind in {claim.kind for claim in claims}:
        places = [place for place, claim in enumerate(claims) if claim.kind == kind]
        for place, value in zip(places, holm([tested[place] for place in places]), strict=True):
            corrected[place] = value
    return corrected


def _p_value(claim: Claim, found: Estimate) -> float:
    """That of the null; a claim of equivalence is not tested by it."""
    return float("nan") if claim.claimed == "within" else found.p_value


def _row(model: str, claim: Claim, found: Estimate, p_corrected: float) -> dict[str, object]:
    also_needed = p_corrected if claim.kind == "accuracy" else None
    verdict = decide(found.lower, found.upper, claim.null, claim.claimed, claim.margin, also_needed)
    return {
        "name": claim.name,
        "claim": claim.sentence,
        "published": claim.published.value,
        "place": claim.published.place,
        "model": model,
        "measured": found.value,
        "lower": found.lower,
        "upper": found.upper,
        "null": claim.null,
        "margin": claim.margin,
        "claimed": claim.claimed,
        "verdict": verdict,
        "p_value": _p_value(claim, found),
        "p_holm": p_corrected,
        "unit": claim.unit,
        "replicates": found.replicates,
        "over": found.over,
        "tasks": found.tasks,
        "remark": "; ".join(filter(None, (found.remark, _why_undecided(claim, found, verdict)))),
        "reads": " ".join(claim.reads),
    }


def _why_undecided(claim: Claim, found: Estimate, verdict: Verdict) -> str:
    """Why an interval decides nothing; where there is none, the estimate's own remark says why."""
    if verdict != "undecided" or found.lower != found.lower:
        return ""
    if claim.claimed == "within":
        return "the interval crosses the margin"
    if found.lower <= claim.null <= found.upper:
        return "the interval holds the null"
    return "the interval excludes the null, but not after the correction"
