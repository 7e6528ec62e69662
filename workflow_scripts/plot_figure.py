"""Stage ``plot_figure``: a figure of the list in ``circuitdrift.figures.catalogue``, and its tidy table."""

from circuitdrift import stage

from pathlib import Path
from typing import Any

from circuitdrift.config.figures import Figures
from circuitdrift.config.methods import MethodConfig
from circuitdrift.figures.labels import MethodLabels
from circuitdrift.figures.modules import call, module_of, read_files
from circuitdrift.figures.style import save_figure, theme
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table, write_text


def main(
    figure: str,
    reads: dict[str, list[Path]],
    files: dict[str, Path],
    settings: dict[str, Any],
    methods: dict[str, MethodConfig],
    style: Figures,
    provenance: Provenance,
) -> None:
    """Draw the figure.

    Args:
        figure: the name of its module.
        reads: the files that the module reads, by the keyword that takes them.
        files: outputs by ending: ``pdf``, ``svg``, ``png`` and ``parquet``, the tidy table that the figure is drawn
            from; or ``html`` alone, a page that holds its tables itself.
        settings: what else the module takes, by keyword.
        methods: the study's methods, for their labels.
        style: the study's figure settings.
        provenance: origin of the tidy table.
    """
    module = module_of(figure)
    given = {
        **read_files(reads, getattr(module, "READS_ITSELF", ())),
        **settings,
        "style": style,
        "labels": MethodLabels(methods),
    }
    given["table"] = call(module.tidy, given)
    with theme(style):
        drawn = call(module.draw, given)
        if "html" in files:
            write_text(files["html"], drawn)
        else:
            write_table(files["parquet"], given["table"], "figure", provenance)
            save_figure(drawn, files["pdf"], files["svg"], files["png"])


if __name__ == "__main__":
    stage.run(main)
