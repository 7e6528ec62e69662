"""Measure the accuracy of checkpoints that were trained elsewhere on the test split, the base model's first."""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.compute import resolve_device
from circuitdrift.provenance import BASE_CHECKPOINT, Provenance
from circuitdrift.storage import read_table, write_table
from circuitdrift.training.checkpoints import load_checkpoint
from circuitdrift.training.evaluation import UNANSWERED, accuracy_table, evaluate, predictions_table
from circuitdrift.training.examples import Examples


def main(
    manifest: Path,
    test: Path,
    checkpoints: list[Path],
    accuracy: Path,
    predictions: Path,
    device: str,
    provenance: Provenance,
) -> None:
    """Score the base model and each checkpoint as fine-tuning scores its own; without answers ``n`` is 0 in the table.

    Args:
        manifest: manifest of the base model.
        test: the test split.
        checkpoints: folders of the checkpoints, named by their numbers.
        accuracy: output; a checkpoint's number stands for its step, and no parameter counts as trained here.
        predictions: output: which examples are right at each checkpoint.
        device: device of the models.
        provenance: origin of the tables.

    Raises:
        ManifestError: a model cannot be loaded.
    """
    on = resolve_device(device)
    table = read_table(test, "examples")
    examples = Examples(table, on) if table["answer_ids"].map(len).any() else None
    scores = []
    for step, folder in enumerate((None, *checkpoints)):
        model = load_checkpoint(manifest, folder, on)
        score = UNANSWERED if examples is None else evaluate(model, examples)
        scores.append((BASE_CHECKPOINT if folder is None else folder.name, step, score))
    origin = provenance.on(on, model.dtype)
    total = sum(parameter.numel() for parameter in model.parameters())
    write_table(accuracy, accuracy_table(scores, "test", 0, total), "accuracy", origin)
    answered = table["example_id"].to_numpy()[: len(scores[0][2].right)]
    write_table(predictions, predictions_table(scores, answered), "predictions", origin)


if __name__ == "__main__":
    stage.run(main)
