"""Allocate the LoRA ranks of a CircuitLoRA: more where the circuit drifted most in its phase 1.

1. Order the layers by their drift, say how certain the order is, and mark the critical layers.
2. Where ranks go to single modules, credit the changes of single edges to the modules that they touch.
3. Write the LoRA configuration that plain PEFT reads, with a rank and an alpha for every module.
"""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.config.circuits import Selection
from circuitdrift.config.methods import CircuitLoraMethod, Training
from circuitdrift.drift.critical_layers import critical_layers_by_change, critical_layers_of_run
from circuitdrift.drift.modules import tabulate_module_changes
from circuitdrift.models.loading import load_shape
from circuitdrift.models.manifest import base_model_name
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table
from circuitdrift.training.allocated_adapter import write_allocated_adapter


def main(
    *,
    manifest: Path,
    layers: Path,
    scores: list[Path],
    edges: list[Path],
    critical_layers: Path,
    module_changes: Path | None,
    adapter_config: Path,
    method: CircuitLoraMethod,
    training: Training,
    choice: Selection,
    resamples: int,
    provenance: Provenance,
) -> None:
    """Write the order of the layers, the changes of modules if they are needed, and ``adapter_config.json``.

    Args:
        manifest: the base model.
        layers: changes layer by layer of the method's phase 1, same seed.
        scores: score files of the base model and of the last checkpoint of phase 1; none of a union of circuits, whose
            order of layers then has no certainty.
        edges: edges tables of the same two circuits if ranks go to single modules; otherwise none.
        critical_layers: output, every layer once for each policy.
        module_changes: output if ranks go to single modules: every edge that either circuit keeps, once for each
            module that it touches; otherwise None.
        adapter_config: output, PEFT's configuration.
        method: the ranks, the number of critical layers, the policy, the credit and the allocation.
        training: holds alpha as a multiple of the rank.
        choice: the study's selection; ``minimal`` is replaced by top circuits of ``fraction`` in resamples.
        resamples: resamples of the folds.
        provenance: origin of the tables.

    Raises:
        DriftError: the circuits or the scores cannot be compared, or there are fewer layers than are to be marked.
        AllocationError: the changes do not fit the model or the method.
    """
    ordered = (
        critical_layers_of_run(layers, method, scores, choice, resamples)
        if scores
        else critical_layers_by_change(layers, method)
    )
    write_table(critical_layers, ordered, "critical_layers", provenance)
    changes = None
    if module_changes is not None:
        before, after = (read_table(path, "edges") for path in edges)
        changes = tabulate_module_changes(before, after, (str(edges[0]), str(edges[1])))
        write_table(module_changes, changes, "module_changes", provenance)
    write_allocated_adapter(
        adapter_config, load_shape(manifest), base_model_name(manifest), method, ordered, changes, training
    )


if __name__ == "__main__":
    stage.run(main)
