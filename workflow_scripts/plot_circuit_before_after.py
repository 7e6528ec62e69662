"""Stage ``plot_circuit_before_after``: one run's circuit before and after fine-tuning, layer by layer."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.config.figures import Figures
from circuitdrift.figures.circuit_map import compare_for_map, draw_circuit_map
from circuitdrift.figures.labels import checkpoint_label
from circuitdrift.figures.style import save_figure, theme
from circuitdrift.provenance import Provenance
from circuitdrift.storage import provenance_of, read_table, write_table


def main(
    before_edges: Path,
    after_edges: Path,
    before_nodes: Path,
    after_nodes: Path,
    pdf: Path,
    svg: Path,
    png: Path,
    table: Path,
    style: Figures,
    provenance: Provenance,
) -> None:
    """Draw the figure.

    Args:
        before_edges: edges table of the earlier circuit.
        after_edges: edges table of the later circuit.
        before_nodes: nodes table of the earlier circuit.
        after_nodes: nodes table of the later circuit.
        pdf: output.
        svg: output.
        png: output.
        table: output, every node and every edge of either circuit, with its status and place.
        style: the study's figure settings.
        provenance: origin of the outputs.
    """
    circuit = compare_for_map(
        read_table(before_edges, "edges"),
        read_table(after_edges, "edges"),
        read_table(before_nodes, "nodes"),
        read_table(after_nodes, "nodes"),
    )
    write_table(table, circuit.as_table(), "figure", provenance)
    before, after = (
        checkpoint_label(provenance_of(path).wildcards.get("checkpoint", "00")) for path in (before_edges, after_edges)
    )
    with theme(style):
        save_figure(draw_circuit_map(circuit, (f"Before: {before}", f"After: {after}"), style), pdf, svg, png)


if __name__ == "__main__":
    stage.run(main)
