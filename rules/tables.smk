# Tables, one rule for each table of the list in circuitdrift/figures/catalogue.py.
#
# needs     the tables that the list names: accuracy, circuits, drift, allocations, trials, benchmarks
# makes     tables/{name}.csv, .md, .tex and .html, which the report shows
# steps     tabulate_{name}
from circuitdrift.figures import catalogue

tables_of_study = catalogue.of_study(catalogue.TABLES, study)

for table in tables_of_study:

    rule:
        """Write a table."""
        name:
            f"tabulate_{table.name}"
        input:
            **{name: when_planned(catalogue.files, table, name, study) for name in table.reads},
        output:
            csv=layout.table(table.name, "csv"),
            md=layout.table(table.name, "md"),
            tex=layout.table(table.name, "tex"),
            html=report(
                layout.table(table.name, "html"),
                caption=f"../docs/captions/table_{table.name}.rst",
                category=table.heading,
                labels={"result": catalogue.label(table)},
            ),
        log:
            f"<logs>/tabulate_{table.name}.log",
        conda:
            "../environment.yml"
        resources:
            mem_mb=2000,
            runtime=30,
        params:
            table=table.name,
            reads=lambda wildcards, input: paths_by_name(input),
            settings=when_planned(catalogue.settings, table, study),
            methods=settings(study.config)["methods"],
            code=code_of("write_table", f"figures.{table.name}"),
        script:
            "../workflow_scripts/write_table.py"

    del table


rule tables:
    """Write every table."""
    input:
        [layout.table(table.name, "csv") for table in tables_of_study],
