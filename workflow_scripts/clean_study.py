"""Remove the results and logs of a study, after printing what they are; nothing else."""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.removal import contents, remove_study


def main(study: str, results: Path, logs: Path) -> None:
    """Print the folders with their number of files and size, then remove them.

    Args:
        study: the study's name.
        results: its folder in ``results``.
        logs: its folder in ``logs``.
    """
    for folder in (results, logs):
        print(f"{study}: {contents(folder)}", flush=True)
    remove_study(results, logs)
    print(f"{study}: removed", flush=True)


if __name__ == "__main__":
    stage.run(main)
