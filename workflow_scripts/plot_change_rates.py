"""Stage ``plot_change_rates``: change rates of nodes against those of edges, beside the controls."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.config.figures import Figures
from circuitdrift.figures.comparisons import draw_change_rates
from circuitdrift.figures.style import save_figure, theme
from circuitdrift.figures.tidy import change_rates
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_tables, write_table


def main(
    summary: list[Path],
    controls: list[Path],
    pdf: Path,
    svg: Path,
    png: Path,
    table: Path,
    style: Figures,
    provenance: Provenance,
) -> None:
    """Draw the figure.

    Args:
        summary: summary tables of all runs with circuits.
        controls: controls tables of the same models, tasks and methods.
        pdf: output.
        svg: output.
        png: output.
        table: output, the tidy table that the figure is drawn from.
        style: the study's figure settings.
        provenance: origin of the outputs.
    """
    rates = change_rates(read_tables(summary, "summary"), read_tables(controls, "controls"))
    write_table(table, rates, "figure", provenance)
    with theme(style):
        save_figure(draw_change_rates(rates, style), pdf, svg, png)


if __name__ == "__main__":
    stage.run(main)
