"""Stage ``plot_method_accuracy``: accuracy after fine-tuning by method, at equal numbers of parameters."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.config.figures import Figures
from circuitdrift.figures.comparisons import draw_method_accuracy
from circuitdrift.figures.style import save_figure, theme
from circuitdrift.figures.tidy import final_accuracy
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_tables, write_table


def main(
    accuracy: list[Path], pdf: Path, svg: Path, png: Path, table: Path, style: Figures, provenance: Provenance
) -> None:
    """Draw the figure.

    Args:
        accuracy: accuracy tables of all runs, with trainable_parameters and trainable_share.
        pdf: output.
        svg: output.
        png: output.
        table: output, the tidy table that the figure is drawn from.
        style: the study's figure settings.
        provenance: origin of the outputs.
    """
    final = final_accuracy(read_tables(accuracy, "accuracy"))
    write_table(table, final, "figure", provenance)
    with theme(style):
        save_figure(draw_method_accuracy(final, style), pdf, svg, png)


if __name__ == "__main__":
    stage.run(main)
