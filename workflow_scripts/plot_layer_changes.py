"""Stage ``plot_layer_changes``: what changed in each layer from the base model to the last checkpoint."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.config.figures import Figures
from circuitdrift.figures.curves import draw_layer_changes
from circuitdrift.figures.style import save_figure, theme
from circuitdrift.figures.tidy import net_layer_changes
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_tables, write_table


def main(
    layers: list[Path],
    pdf: Path,
    svg: Path,
    png: Path,
    table: Path,
    top_layers: int,
    style: Figures,
    provenance: Provenance,
) -> None:
    """Draw the figure.

    Args:
        layers: layers tables of all runs with circuits.
        pdf: output.
        svg: output.
        png: output.
        table: output, the tidy table that the figure is drawn from.
        top_layers: how many layers of each method are marked as critical.
        style: the study's figure settings.
        provenance: origin of the outputs.
    """
    changes = net_layer_changes(read_tables(layers, "layers"), top_layers)
    write_table(table, changes, "figure", provenance)
    with theme(style):
        save_figure(draw_layer_changes(changes, style), pdf, svg, png)


if __name__ == "__main__":
    stage.run(main)
