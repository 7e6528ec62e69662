"""Stage ``plot_accuracy_and_faithfulness``: test accuracy and the circuit's faithfulness over checkpoints."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.config.figures import Figures
from circuitdrift.figures.curves import draw_accuracy_and_faithfulness
from circuitdrift.figures.style import save_figure, theme
from circuitdrift.figures.tidy import accuracy_and_faithfulness
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_tables, write_table


def main(
    accuracy: list[Path],
    faithfulness: list[Path],
    pdf: Path,
    svg: Path,
    png: Path,
    table: Path,
    style: Figures,
    provenance: Provenance,
) -> None:
    """Draw the figure.

    Args:
        accuracy: accuracy tables of all runs.
        faithfulness: faithfulness tables of all circuits, the base models' included.
        pdf: output.
        svg: output.
        png: output.
        table: output, the tidy table that the figure is drawn from.
        style: the study's figure settings.
        provenance: origin of the outputs.
    """
    curves = accuracy_and_faithfulness(read_tables(accuracy, "accuracy"), read_tables(faithfulness, "faithfulness"))
    write_table(table, curves, "figure", provenance)
    with theme(style):
        save_figure(draw_accuracy_and_faithfulness(curves, style), pdf, svg, png)


if __name__ == "__main__":
    stage.run(main)
