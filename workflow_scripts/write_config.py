"""Write the resolved config of the study, with every default filled in."""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.config.study import StudyConfig
from circuitdrift.storage import write_json


def main(config: Path, settings: StudyConfig) -> None:
    """Write ``settings`` to ``config``: a file that can itself be given with --configfile."""
    write_json(config, settings.model_dump(mode="json"))


if __name__ == "__main__":
    stage.run(main)
