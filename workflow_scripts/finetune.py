"""Fine-tune a model on a task, saving a checkpoint and measuring its accuracy at uniform steps."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from circuitdrift import stage
from circuitdrift.compute import resolve_device, resolve_precision
from circuitdrift.config.methods import MethodConfig, Training
from circuitdrift.models.loading import load_model
from circuitdrift.models.manifest import base_model_name
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table
from circuitdrift.training.adapters import causal_lm, parameter_counts
from circuitdrift.training.checkpoints import save_checkpoint
from circuitdrift.training.evaluation import Score, accuracy_table, evaluate
from circuitdrift.training.examples import Examples
from circuitdrift.training.launching import launch, resolve_processes
from circuitdrift.training.learning_rates import chosen_rate
from circuitdrift.training.loop import TrainingError, fine_tune, plan_run
from circuitdrift.training.preparation import prepare_model
from circuitdrift.training.processes import Processes
from circuitdrift.training.resume import ResumeFolder, identity_of_run
from circuitdrift.training.sharding import shard


def main(
    *,
    manifest: Path,
    train: Path,
    test: Path,
    adapter_config: Path | None,
    trials: Path | None,
    checkpoints: list[Path],
    training_log: Path,
    accuracy: Path,
    method: MethodConfig,
    training: Training,
    seed: int,
    device: str,
    processes: int | Literal["auto"],
    sharding: Literal["none", "full"],
    resume: Path,
    provenance: Provenance,
) -> None:
    """Train, and write the checkpoint folders, the training log, and the accuracy on the test split at each checkpoint.

    Args:
        manifest: the base model.
        train: the split to train on.
        test: the split to measure accuracy on.
        adapter_config: the allocated ranks, for the methods that have any.
        trials: the search for the method's learning rate, where there is one; it replaces the configured rate.
        checkpoints: checkpoint folders, from 00 (before any step) to the end of the run.
        training_log: table to write.
        accuracy: table to write.
        method: the method.
        training: the training section.
        seed: seed of the data order and of the adapters' first values.
        device: execution.device.
        processes: execution.processes.
        sharding: execution.sharding.
        resume: undeclared folder in which a run that is killed leaves what the next one continues from.
        provenance: origin of the files.
    """
    names = [f"{number:02d}" for number in range(training.checkpoints + 1)]
    if [folder.name for folder in checkpoints] != names:
        raise TrainingError(f"training.checkpoints asks for {names}, the rule for {[f.name for f in checkpoints]}")
    target = resolve_device(device)
    arguments = {
        "manifest": manifest, "train": train, "test": test, "adapter_config": adapter_config, "trials": trials,
        "checkpoints": checkpoints, "training_log": training_log, "accuracy": accuracy, "method": method,
        "training": training, "seed": seed, "target": target, "sharding": sharding, "resume": resume,
        "provenance": provenance,
    }  # fmt: skip
    launch(resolve_processes(processes, target), target, train_and_score, arguments)


def train_and_score(
    *, manifest: Path, train: Path, test: Path, adapter_config: Path | None, trials: Path | None,
    checkpoints: list[Path], training_log: Path, accuracy: Path, method: MethodConfig, training: Training, seed: int,
    target: torch.device, sharding: str, resume: Path, provenance: Provenance, processes: Processes,
) -> None:  # fmt: skip
    """What each of the processes of a run does; the first one alone writes files. The arguments are those of main."""
    precision = resolve_precision(training.precision, target)
    origin = provenance.with_seed(seed).on(target, precision)
    train_examples, test_examples = (Examples(read_table(split, "examples"), target) for split in (train, test))
    if sharding == "full" and processes.count > 1:
        processes = replace(processes, sharded=True)
        train_examples, test_examples = train_examples.without_shared_tokens(), test_examples.without_shared_tokens()
    plan = plan_run(method, training, len(train_examples), precision, seed)
    if trials:
        plan = replace(plan, learning_rate=chosen_rate(trials))
    base = load_model(manifest, target)
    dtype = base.dtype
    name, alpha = base_model_name(manifest), training.lora_alpha_per_rank
    model = prepare_model(base, name, method, alpha, adapter_config, train_examples, plan.steps, seed)
    if processes.sharded:
        shard(causal_lm(model), processes)
    sections = {"method": method.model_dump(mode="json"), "training": training.model_dump(mode="json")}
    settings = sections | {"processes": processes.count, "sharding": sharding}
    identity = identity_of_run(origin, settings, [manifest, train, test, adapter_config, trials])
    states = ResumeFolder(resume, identity, checkpoints, origin, processes)

    def at_checkpoint(number: int) -> Score:
        save_checkpoint(model, checkpoints[number], dtype, origin.for_checkpoint(checkpoints[number].name), processes)
        return evaluate(causal_lm(model), test_examples)

    history = fine_tune(model, train_examples, plan, at_checkpoint, states, processes)
    if not processes.is_first:
        return
    scores = list(zip([folder.name for folder in checkpoints], plan.checkpoint_steps, history.scores, strict=True))
    write_table(training_log, history.log_table(), "training_log", origin)
    write_table(accuracy, accuracy_table(scores, "test", *parameter_counts(model)), "accuracy", origin)
    states.remove()


if __name__ == "__main__":
    stage.run(main)
