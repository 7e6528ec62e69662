"""Pre-train the embedded model: build its tokenizer and corpus, train it, and write its manifest."""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.compute import resolve_device, resolve_precision
from circuitdrift.config.models import ScratchModel
from circuitdrift.models.embedded_corpus import build_corpus
from circuitdrift.models.embedded_model import ROW_LENGTH, build_model, save_model
from circuitdrift.models.embedded_tokenizer import build_tokenizer
from circuitdrift.models.manifest import write_manifest
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table, writing
from circuitdrift.training.pretraining import pretrain


def main(
    manifest: Path,
    weights: Path,
    tokenizer: Path,
    log: Path,
    model: ScratchModel,
    device: str,
    provenance: Provenance,
) -> None:
    """Pre-train an embedded model and write it in the Hugging Face layout.

    Args:
        manifest: the ``manifest.json`` to write, in the model's folder.
        weights: ``model.safetensors`` there; the configuration files are written beside it.
        tokenizer: ``tokenizer.json`` there.
        log: table of the training, one row a step.
        model: the model's entry in the config.
        device: where to train, as in ``execution.device``.
        provenance: origin of the outputs.

    Raises:
        TrainingDivergedError: the loss of a step is not finite.
    """
    trained_on = resolve_device(device)
    corpus = build_corpus(model.largest_number, model.steps * model.batch_size, ROW_LENGTH, model.seed)
    network = build_model(model).to(trained_on)
    precision = resolve_precision(model.precision, trained_on)
    table = pretrain(network, corpus, model.batch_size, model.learning_rate, precision)
    origin = provenance.with_seed(model.seed).on(trained_on, precision)
    folder = weights.parent
    files = [*save_model(network, weights, origin), *_save_tokenizer(model.largest_number, folder)]
    write_table(log, table, "training_log", origin)
    source = {key: value for key, value in model.model_dump(mode="json").items() if key != "dtype"}
    write_manifest(manifest, source=source, folder=folder, files=files, dtype=model.dtype)


def _save_tokenizer(largest_number: int, folder: Path) -> list[str]:
    """Write the tokenizer's files and return their names."""
    with writing(folder):
        files = build_tokenizer(largest_number).save_pretrained(folder)
    return [Path(file).name for file in files if Path(file).is_file()]


if __name__ == "__main__":
    stage.run(main)
