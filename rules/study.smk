# The study as a whole: its report, and its removal.
#
# needs     for the report, all that the target all makes, and docs/captions
# makes     report.html; report.zip, the same as a folder
# steps     report; report_folder; clean_study, which removes the results and logs of this study and nothing else. Each only when it is
#           named as the target


rule report:
    """Make the report of the finished study, report.html, with everything that it shows."""
    input:
        rules.all.input,
        when_planned(lambda: sorted(map(str, ROOT.glob("docs/captions/*.rst")))),
        stylesheet=str(ROOT / "docs" / "captions" / "report.css"),
    output:
        report=layout.report,
    log:
        "<logs>/report.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        snakefile=str(ROOT / "Snakefile"),
        settings=settings(study.config),
        code=code_of("report"),
    script:
        "../workflow_scripts/report.py"


use rule report as report_folder with:
    """Make the same report as a folder, report.zip, whose page loads each result when it is opened."""
    output:
        report=layout.report_folder,
    log:
        "<logs>/report_folder.log",


rule clean_study:
    """Remove the results and logs of this study, after printing what they are."""
    log:
        f"logs/clean_study/{study.config.study}.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        study=study.config.study,
        results=layout.results,
        logs=f"logs/{study.config.study}",
        code=code_of("clean_study"),
    script:
        "../workflow_scripts/clean_study.py"
