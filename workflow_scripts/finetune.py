"""Fine-tune a model on a task, saving a checkpoint and measuring its accuracy at uniform steps."""

from pathlib import Path

from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel

from circuitdrift import stage
from circuitdrift.allocation.ranks import rank_patterns, ranks_by_layer
from circuitdrift.compute import resolve_device, resolve_precision
from circuitdrift.config.methods import FullMethod, LoraMethod, MethodConfig, Training
from circuitdrift.models.loading import load_model
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table
from circuitdrift.training.adapters import (
    attach_lora,
    base_model_name,
    block_linears,
    causal_lm,
    lora_config,
    parameter_counts,
    train_all_weights,
)
from circuitdrift.training.checkpoints import read_config, save_checkpoint
from circuitdrift.training.evaluation import Score, accuracy_table, evaluate
from circuitdrift.training.examples import Examples
from circuitdrift.training.loop import TrainingError, fine_tune, plan_run


def main(
    *,
    manifest: Path,
    train: Path,
    test: Path,
    adapter_config: Path | None,
    checkpoints: list[Path],
    training_log: Path,
    accuracy: Path,
    method: MethodConfig,
    training: Training,
    seed: int,
    device: str,
    provenance: Provenance,
) -> None:
    """Train, and write the checkpoint folders, the training log, and the accuracy on the test split at each checkpoint.

    Args:
        manifest: the base model.
        train: the split to train on.
        test: the split to measure accuracy on.
        adapter_config: the allocated ranks, for the methods that have any.
        checkpoints: checkpoint folders, from 00 (before any step) to the end of the run.
        training_log: table to write.
        accuracy: table to write.
        method: the method.
        training: the training section.
        seed: seed of the data order and of the adapters' first values.
        device: execution.device.
        provenance: origin of the files.
    """
    names = [f"{number:02d}" for number in range(training.checkpoints + 1)]
    if [folder.name for folder in checkpoints] != names:
        raise TrainingError(f"training.checkpoints asks for {names}, the rule for {[f.name for f in checkpoints]}")
    target = resolve_device(device)
    precision = resolve_precision(training.precision, target)
    origin = provenance.with_seed(seed).on(target, precision)
    train_examples, test_examples = (Examples(read_table(split, "examples"), target) for split in (train, test))
    plan = plan_run(method, training, len(train_examples), precision, seed)
    base = load_model(manifest, target)
    dtype = base.dtype
    model = prepare(base, manifest, method, training, adapter_config, seed)
    scores: list[tuple[str, int, Score]] = []

    def at_checkpoint(number: int, step: int) -> None:
        save_checkpoint(model, checkpoints[number], dtype, origin.for_checkpoint(names[number]))
        scores.append((names[number], step, evaluate(causal_lm(model), test_examples)))

    log = fine_tune(model, train_examples, plan, at_checkpoint)
    write_table(training_log, log, "training_log", origin)
    write_table(accuracy, accuracy_table(scores, "test", *parameter_counts(model)), "accuracy", origin)


def prepare(
    base: PreTrainedModel,
    manifest: Path,
    method: MethodConfig,
    training: Training,
    adapter_config: Path | None,
    seed: int,
) -> PreTrainedModel | PeftModel:
    """The model with what the method trains made trainable, and nothing else."""
    if isinstance(method, FullMethod):
        return train_all_weights(base)
    if isinstance(method, LoraMethod):
        linears = block_linears(base)
        ranks = ranks_by_layer(linears, method.rank, method.rank, ())
        patterns = rank_patterns(ranks, method.rank, training.lora_alpha_per_rank)
        return attach_lora(base, lora_config(base, linears, patterns, base_model_name(manifest)), seed)
    if adapter_config is None:
        raise TrainingError(f"method of kind {method.kind} needs the adapter_config.json of its rank allocation")
    read_config(adapter_config)
    return attach_lora(base, LoraConfig.from_pretrained(str(adapter_config.parent)), seed)


if __name__ == "__main__":
    stage.run(main)
