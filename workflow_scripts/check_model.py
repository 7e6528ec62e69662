"""Check that a study's methods and circuits fit a model, before any training of it."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.checks.fit import FitError, problems_of_fit
from circuitdrift.checks.shapes import shape_of_settings
from circuitdrift.config.circuits import Selection
from circuitdrift.config.methods import MethodConfig
from circuitdrift.models.files import model_folder_without_weights
from circuitdrift.models.folder import settings_of_folder
from circuitdrift.storage import write_json


def main(manifest: Path, checked: Path, methods: dict[str, MethodConfig], choice: Selection) -> None:
    """Write the shape of the model, once everything fits it.

    Args:
        manifest: manifest of the model, whose folder has its name.
        checked: output, the model's layers, heads, width and number of edges as JSON.
        methods: the study's methods.
        choice: how the study selects circuits.

    Raises:
        ManifestError: the model's files are not there or were changed.
        FitError: a rank, a layer or the fraction does not fit the model; the message names each key.
    """
    shape = shape_of_settings(settings_of_folder(model_folder_without_weights(manifest)))
    if shape is None:
        from circuitdrift.models.loading import load_config  # imports torch, for the rare file that leaves sizes out

        shape = shape_of_settings(load_config(manifest).to_dict())
    if shape is None:
        raise FitError(f"{manifest}: the model's config.json names no layers, heads or width; save it again")
    if problems := problems_of_fit(manifest.parent.name, shape, methods, choice):
        raise FitError("\n".join(problems))
    write_json(checked, vars(shape))


if __name__ == "__main__":
    stage.run(main)
