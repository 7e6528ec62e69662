"""Stage ``plot_transition_changes``: nodes and edges added and removed from each checkpoint to the next."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.config.figures import Figures
from circuitdrift.figures.curves import draw_transition_changes
from circuitdrift.figures.style import save_figure, theme
from circuitdrift.figures.tidy import transition_changes
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_tables, write_table


def main(
    transitions: list[Path], pdf: Path, svg: Path, png: Path, table: Path, style: Figures, provenance: Provenance
) -> None:
    """Draw the figure.

    Args:
        transitions: transitions tables of all runs with circuits.
        pdf: output.
        svg: output.
        png: output.
        table: output, the tidy table that the figure is drawn from.
        style: the study's figure settings.
        provenance: origin of the outputs.
    """
    changes = transition_changes(read_tables(transitions, "transitions"))
    write_table(table, changes, "figure", provenance)
    with theme(style):
        save_figure(draw_transition_changes(changes, style), pdf, svg, png)


if __name__ == "__main__":
    stage.run(main)
