# Tables, one rule for each table of the list in figures/catalogue.py. An edit of a table's module writes it alone.
#
# needs     accuracy and cost of runs, circuits, tables of drift, allocations, learning rates, as the list says
# makes     tables/<name>.csv, .md and .tex
# steps     tabulate_<name>
from circuitdrift.figures import catalogue

tables_of_study = catalogue.of_study(catalogue.TABLES, study)

for table in tables_of_study:

    rule:
        name:
            f"tabulate_{table.name}"
        input:
            **catalogue.files(table, study),
        output:
            csv=report(
                f"{study.results}/tables/{table.name}.csv",
                caption=f"../docs/captions/table_{table.name}.rst",
                category="Tables",
                labels={"table": table.name.replace("_", " ")},
            ),
            md=f"{study.results}/tables/{table.name}.md",
            tex=f"{study.results}/tables/{table.name}.tex",
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
            settings=catalogue.settings(table, study),
            methods=settings(study.config)["methods"],
            code=code_of("write_table", f"figures.{table.name}"),
        script:
            "../workflow_scripts/write_table.py"

    del table


rule tables:
    input:
        [f"{study.results}/tables/{table.name}.csv" for table in tables_of_study],
