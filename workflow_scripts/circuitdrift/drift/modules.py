"""Changes of single edges, credited to the modules that they touch: what rank allocation by module builds on.

An edge carries what its source writes to one input of its target. So its change is credited twice: at the target to
the linear that reads (the q, k or v projection of a head's attention, or the input linears of an MLP), and at the
source to the linear that writes (the attention's output projection, or the MLP's output linear). The embedding and the
logits have no such linear: an edge from ``input``, or to ``logits``, is credited at its other end alone.

Here the q, k and v edges to a head are edges of their own. In the changes by layer they are merged before they are
compared (:mod:`circuitdrift.drift.series`), so that what moves from q to k counts there for nothing, and here for both.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from circuitdrift.decoder.linears import MODULES
from circuitdrift.drift.layers import Scores, score_changes, unit_mass
from circuitdrift.drift.series import EDGE_KEY, DriftError, check_kept_edges

_WRITES = {"a": "output", "m": "mlp_output"}
_COLUMNS = ["layer", "module", *EDGE_KEY, "score_before", "score_after", "score_change", "score_change_normalised"]


def tabulate_module_changes(before: pd.DataFrame, after: pd.DataFrame, origins: tuple[str, str]) -> pd.DataFrame:
    """Every edge that one of two circuits keeps, with the change of its score, once for each module that it touches.

    Args:
        before: the edges table of one circuit: every edge of the graph.
        after: the edges table of the other; the order of the rows does not matter.
        origins: where the two come from, for messages.

    Returns:
        Columns of the ``module_changes`` schema, by layer, module (in the order of :data:`MODULES`) and edge.
        ``layer`` and ``module`` say which module a row credits. Scores are 0 in a circuit that lacks the edge;
        ``score_change`` is the absolute difference, in the unit of the scores, and ``score_change_normalised`` the
        same with each circuit scaled to unit mass over its edges.

    Raises:
        DriftError: a table repeats an edge or holds a kept edge without a finite score, or the tables are of
            different graphs.
    """
    for edges, origin in zip((before, after), origins, strict=True):
        check_kept_edges(edges, origin)
    places = [*EDGE_KEY, "source_layer", "target_layer"]
    both = before[places].assign(score_before=_kept_scores(before), kept_before=before["in_circuit"])
    both = both.merge(
        after[places].assign(score_after=_kept_scores(after), kept_after=after["in_circuit"]), on=places, how="outer"
    )
    if not len(both) == len(before) == len(after):
        raise DriftError(
            f"circuits of different graphs cannot be compared: {origins[0]} and {origins[1]} hold different edges; "
            "take the checkpoints of one model, selected by one version of the code"
        )
    scores_before, scores_after = both["score_before"].to_numpy(), both["score_after"].to_numpy()
    both["score_change"] = score_changes(scores_before, scores_after)
    both["score_change_normalised"] = score_changes(unit_mass(scores_before), unit_mass(scores_after))
    kept = both.loc[both["kept_before"] | both["kept_after"]]
    read = kept["qkv"].where(kept["qkv"].notna(), kept["target"].str[0].map({"m": "mlp_input"}))
    at_target = kept.assign(layer=kept["target_layer"], module=read)
    at_source = kept.assign(layer=kept["source_layer"], module=kept["source"].str[0].map(_WRITES))
    credited = pd.concat([at_target, at_source]).dropna(subset=["module"])
    place = credited["module"].map({module: number for number, module in enumerate(MODULES)})
    ordered = credited.assign(place=place).sort_values(["layer", "place", *EDGE_KEY], ignore_index=True)
    table: pd.DataFrame = ordered[_COLUMNS]
    return table


def _kept_scores(edges: pd.DataFrame) -> Scores:
    """Scores in float64, 0 for the edges that the circuit lacks."""
    return np.where(edges["in_circuit"], edges["score"].to_numpy(dtype="float64"), 0.0)
