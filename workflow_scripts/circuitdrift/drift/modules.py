"""Changes of single edges, credited to the modules that they touch: the basis of rank allocation by module.

An edge carries the output of its source to one input of its target. Its change is credited twice
(docs/method.md#layer-credit): at the target to the linear that reads (the q, k or v projection of a head's attention,
or the input linears of an MLP), and at the source to the linear that writes (the attention's output projection, or the
MLP's output linear). The embedding and the logits have no such linear: an edge from ``input``, or to ``logits``, is
credited at its other end alone.

Here the q, k and v edges to a head stay apart. The changes by layer merge them before the comparison
(:mod:`circuitdrift.drift.series`), so a move from q to k is no change there, and a change of both modules here.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from circuitdrift.decoder.modules import MODULES
from circuitdrift.drift.layers import Scores, score_changes, unit_mass
from circuitdrift.drift.series import EDGE_KEY, DriftError, check_kept_edges

_WRITES = {"a": "output", "m": "mlp_output"}
_COLUMNS = ["layer", "module", *EDGE_KEY, "score_before", "score_after", "score_change", "score_change_normalised"]


def tabulate_module_changes(before: pd.DataFrame, after: pd.DataFrame, origins: tuple[str, str]) -> pd.DataFrame:
    """Every edge that one of two circuits keeps, with the change of its score, once for each module that it touches.

    Args:
        before: the edges table of the first circuit, with every edge of the graph.
        after: the edges table of the second circuit; the order of the rows does not matter.
        origins: sources of the two tables, for messages.

    Returns:
        Columns of the ``module_changes`` schema, by layer, module (in the order of :data:`MODULES`) and edge.
        ``layer`` and ``module`` name the module that a row credits. Scores are 0 in a circuit that lacks the edge;
        ``score_change`` is the absolute difference, in the unit of the scores, and ``score_change_normalised`` the
        difference with each circuit scaled to unit mass over its edges.

    Raises:
        DriftError: a table repeats an edge or holds a kept edge without a finite score, or the tables belong to
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
            "take checkpoints of one model, selected by one version of the code"
        )
    scores_before, scores_after = both["score_before"].to_numpy(), both["score_after"].to_numpy()
    both["score_change"] = score_changes(scores_before, scores_after)
    both["score_change_normalised"] = score_changes(unit_mass(scores_before), unit_mass(scores_after))
    kept = both.loc[both["kept_before"] | both["kept_after"]]
    read = kept["qkv"].where(kept["qkv"].notna(), kept["target"].str[0].map({"m": "mlp_input"}))
    at_target = kept.assign(layer=kept["target_layer"], module=read)
    at_source = kept.assign(layer=kept["source_layer"], module=kept["source"].str[0].map(_WRITES))
    credited = pd.concat([at_target, at_source]).dropna(subset=["module"])
    position = credited["module"].map({module: number for number, module in enumerate(MODULES)})
    ordered = credited.assign(position=position).sort_values(["layer", "position", *EDGE_KEY], ignore_index=True)
    table: pd.DataFrame = ordered[_COLUMNS]
    return table


def _kept_scores(edges: pd.DataFrame) -> Scores:
    """Scores in float64, 0 for edges outside the circuit."""
    return np.where(edges["in_circuit"], edges["score"].to_numpy(dtype="float64"), 0.0)
