"""The circuit split with each prompt replaced by a fresh one of the same kind, in the same fold."""

from __future__ import annotations

import pandas as pd


def perturbed_split(train: pd.DataFrame, circuit: pd.DataFrame) -> pd.DataFrame | None:
    """The first rows of the train split that can stand for the rows of the circuit split, one by one.

    Row i of the result has the kind of row i of the circuit split, so folds hold as many prompts of each kind. No
    clean prompt is in the circuit split, and none comes twice.

    Args:
        train: the train split in the order of its folds, with the column ``kind``.
        circuit: the circuit split, likewise.

    Returns:
        As many rows as the circuit split has, in the columns of the train split; None where the train split has too
        few rows of a kind.
    """
    fresh = train[~train["clean"].isin(circuit["clean"])].drop_duplicates("clean")
    places = pd.DataFrame({"kind": circuit["kind"].to_numpy()})
    places["place"] = range(len(places))
    places["turn"] = places.groupby("kind").cumcount()
    matched = places.merge(fresh.assign(turn=fresh.groupby("kind").cumcount()), on=["kind", "turn"])
    if len(matched) < len(circuit):
        return None
    return matched.sort_values("place", ignore_index=True)[list(train.columns)]
