"""Order a model's layers by how much the circuit drifted there in phase 1, and mark the critical layers."""

import logging
from pathlib import Path

import pandas as pd

from circuitdrift import stage
from circuitdrift.circuits.score_file import read_scores
from circuitdrift.circuits.selection import determined_by_scores
from circuitdrift.config.circuits import Selection
from circuitdrift.config.methods import CircuitLoraMethod
from circuitdrift.drift.fold_circuits import comparable_fold_scores
from circuitdrift.drift.layer_certainty import resample_layers
from circuitdrift.drift.layer_order import order_layers
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table

logger = logging.getLogger(__name__)


def main(
    *,
    layers: Path,
    scores: list[Path],
    critical_layers: Path,
    method: CircuitLoraMethod,
    choice: Selection,
    resamples: int,
    provenance: Provenance,
) -> None:
    """Order all layers by each policy, mark the first ones as critical, and say how often they come first.

    Args:
        layers: changes layer by layer of the method's phase 1, same seed.
        scores: score files of the base model and of the last checkpoint of phase 1; none for circuits made elsewhere.
        critical_layers: output, every layer once for each policy.
        method: the method that allocates LoRA ranks by this order; ``critical_layers`` is the number of layers to mark
            and ``credit`` the layer to which an edge's change counts.
        choice: the study's selection; ``minimal`` is replaced by top circuits of ``fraction`` in resamples.
        resamples: resamples of the folds.
        provenance: origin of the output.

    Raises:
        DriftError: the table has no net changes or values that are not finite, or fewer layers than are to be marked;
            or the score files are of different graphs or of different prompts.
    """
    resampled = None
    if scores:
        files = [read_scores(path) for path in scores]
        before, after = comparable_fold_scores(files).values()
        graph, selection = files[0].graph, determined_by_scores(choice)
        resampled = resample_layers(graph, before, after, selection, method.credit, resamples)
    ordered = order_layers(read_table(layers, "layers"), method.critical_layers, str(layers), method.credit, resampled)
    _warn_of_layers_without_change(ordered, method.critical_layers, layers)
    write_table(critical_layers, ordered, "critical_layers", provenance)


def _warn_of_layers_without_change(ordered: pd.DataFrame, wanted: int, layers: Path) -> None:
    """Name the policies by which fewer layers changed than are to be marked."""
    for policy, marked in ordered.groupby("policy", sort=False)["critical"].sum().items():
        if marked < wanted:
            found = f"{marked} layers have" if marked else "nothing changed: no layer has"
            logger.warning(
                "%s: policy %s: %s a change above zero, where critical_layers asks for %d; a layer without change is "
                "never critical",
                layers,
                policy,
                found,
                wanted,
            )


if __name__ == "__main__":
    stage.run(main)
