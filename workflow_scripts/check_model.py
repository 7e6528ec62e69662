"""Check that a study's methods and circuits fit a model, before any training of it."""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.checks.fit import FitError, problems_of_fit, problems_of_given_ranks
from circuitdrift.config.circuits import Selection
from circuitdrift.config.given import DriftRanks
from circuitdrift.config.methods import MethodConfig
from circuitdrift.models.sizes import shape_of_model
from circuitdrift.storage import write_json


def main(
    manifest: Path, checked: Path, methods: dict[str, MethodConfig], given: DriftRanks | None, choice: Selection
) -> None:
    """Write the shape of the model, once everything fits it.

    Args:
        manifest: manifest of the model, whose folder has its name.
        checked: output, the model's layers, heads, width and number of edges as JSON.
        methods: the study's methods.
        given: the ranks that the drift of the model's given checkpoints leads to; None where it has none.
        choice: how the study selects circuits.

    Raises:
        ManifestError: the model's files are not there or were changed, or name no sizes.
        FitError: a rank, a layer or the fraction does not fit the model; the message names each key.
    """
    shape = shape_of_model(manifest)
    name = manifest.parent.name
    problems = problems_of_fit(name, shape, methods, choice)
    problems += problems_of_given_ranks(name, shape, given) if given else []
    if problems:
        raise FitError("\n".join(problems))
    sizes = ("layers", "heads", "width", "edges")
    write_json(checked, {size: getattr(shape, size) for size in sizes})


if __name__ == "__main__":
    stage.run(main)
