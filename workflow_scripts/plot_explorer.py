"""Stage ``plot_explorer``: the interactive page in which a reader picks a run and a checkpoint."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.config.figures import Figures
from circuitdrift.figures.explorer import as_html, build_chart, tables_for_explorer
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_tables, write_text


def main(
    accuracy: list[Path],
    faithfulness: list[Path],
    transitions: list[Path],
    layers: list[Path],
    html: Path,
    study: str,
    fraction: float,
    style: Figures,
    provenance: Provenance,
) -> None:
    """Write the page.

    Args:
        accuracy: accuracy tables of all runs.
        faithfulness: faithfulness tables of all circuits, the base models' included.
        transitions: transitions tables of all runs with circuits.
        layers: layers tables of all runs with circuits.
        html: output, one file that needs no network.
        study: the study's name, for the heading.
        fraction: the configured circuit size, as a share of all edges.
        style: the study's figure settings.
        provenance: origin of the output; a page has no place for it, so it is not written.
    """
    tables = tables_for_explorer(
        read_tables(accuracy, "accuracy"),
        read_tables(faithfulness, "faithfulness"),
        read_tables(transitions, "transitions"),
        read_tables(layers, "layers"),
    )
    write_text(html, as_html(build_chart(tables, fraction, style), study))


if __name__ == "__main__":
    stage.run(main)
