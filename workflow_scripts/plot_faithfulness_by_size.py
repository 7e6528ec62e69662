"""Stage ``plot_faithfulness_by_size``: faithfulness over circuit size, before and after fine-tuning."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.config.figures import Figures
from circuitdrift.figures.curves import draw_faithfulness_by_size
from circuitdrift.figures.style import save_figure, theme
from circuitdrift.figures.tidy import faithfulness_by_size
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_tables, write_table


def main(
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
        faithfulness: faithfulness tables of the base models' circuits and of the last checkpoints'.
        pdf: output.
        svg: output.
        png: output.
        table: output, the tidy table that the figure is drawn from.
        style: the study's figure settings.
        provenance: origin of the outputs.
    """
    curves = faithfulness_by_size(read_tables(faithfulness, "faithfulness"))
    write_table(table, curves, "figure", provenance)
    with theme(style):
        save_figure(draw_faithfulness_by_size(curves, style), pdf, svg, png)


if __name__ == "__main__":
    stage.run(main)
