# Figures, one rule for each figure of the list in circuitdrift/figures/catalogue.py.
#
# needs     the tables that the list names: accuracy, circuits, drift
# makes     figures/{name}.svg, .pdf, .png and .parquet (the table that the figure is drawn from), and explorer.html
# steps     plot_{name}: a figure is drawn again if its tables, its settings, the style or its own module changed
from circuitdrift.figures import catalogue

figures_of_study = catalogue.of_study(catalogue.FIGURES, study)

for figure in figures_of_study:

    rule:
        """Draw a figure."""
        name:
            f"plot_{figure.name}"
        input:
            **{name: when_planned(catalogue.files, figure, name, study) for name in figure.reads},
        output:
            **{
                figure.formats[0]: report(
                    layout.figure(figure.name, figure.formats[0]),
                    caption=f"../docs/captions/{figure.name}.rst",
                    category=figure.heading,
                    labels={"result": catalogue.label(figure)},
                )
            },
            **{ending: layout.figure(figure.name, ending) for ending in figure.formats[1:]},
        log:
            f"<logs>/plot_{figure.name}.log",
        conda:
            "../environment.yml"
        resources:
            mem_mb=2000,
            runtime=30,
        params:
            figure=figure.name,
            reads=lambda wildcards, input: paths_by_name(input),
            files=lambda wildcards, output: {ending: str(path) for ending, path in output.items()},
            settings=when_planned(catalogue.settings, figure, study),
            methods=settings(study.config)["methods"],
            style=settings(study.config.figures),
            code=code_of("plot_figure", f"figures.{figure.name}"),
        script:
            "../workflow_scripts/plot_figure.py"

    del figure


rule figures:
    """Draw every figure and the explorer."""
    input:
        [layout.figure(figure.name, figure.formats[0]) for figure in figures_of_study],
