"""Fine-tune a model on a task; at uniform steps, save a checkpoint and measure its accuracy."""

from circuitdrift import stage

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from circuitdrift.compute import resolve_device, resolve_precision
from circuitdrift.config.methods import MethodConfig, Training
from circuitdrift.models.loading import load_model
from circuitdrift.models.manifest import base_model_name
from circuitdrift.provenance import Provenance, checkpoint_names
from circuitdrift.storage import read_table, write_table
from circuitdrift.training.adalora import final_parameter_counts
from circuitdrift.training.adapters import causal_lm
from circuitdrift.training.checkpoints import save_checkpoint
from circuitdrift.training.evaluation import Score, accuracy_table, evaluate, predictions_table
from circuitdrift.training.examples import Examples
from circuitdrift.training.job import FineTuning
from circuitdrift.training.launching import launch, resolve_processes
from circuitdrift.training.learning_rates import chosen_rate
from circuitdrift.training.loop import TrainingError, fine_tune, plan_run
from circuitdrift.training.preparation import prepare_model
from circuitdrift.training.processes import Processes
from circuitdrift.training.resume import ResumeFolder, identity_of_run
from circuitdrift.training.sham import permute_answers
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
    predictions: Path,
    method: MethodConfig,
    training: Training,
    seed: int,
    device: str,
    processes: int | Literal["auto"],
    sharding: Literal["none", "full"],
    resume: Path,
    provenance: Provenance,
) -> None:
    """Fine-tune in as many processes as the config asks for; the keywords are the fields of ``FineTuning``."""
    job = FineTuning(**locals())
    names = [folder.name for folder in checkpoints]
    if (expected := list(checkpoint_names(training.checkpoints))) != names:
        raise TrainingError(f"training.checkpoints asks for {expected}, the rule for {names}")
    target = resolve_device(device)
    launch(resolve_processes(processes, target), target, partial(train_and_score, job))


def train_and_score(job: FineTuning, processes: Processes) -> None:
    """Train and score in one of the processes of a fine-tuning; the first process alone writes files."""
    target = resolve_device(job.device)
    precision = resolve_precision(job.training.precision, target)
    origin = job.provenance.with_seed(job.seed).on(target, precision)
    train_table, test_table = (read_table(split, "examples") for split in (job.train, job.test))
    if job.method.answers == "permuted":
        train_table = permute_answers(train_table, job.seed)
    train_examples, test_examples = (Examples(table, target) for table in (train_table, test_table))
    if job.sharding == "full" and processes.count > 1:
        processes = replace(processes, sharded=True)
        train_examples, test_examples = train_examples.without_shared_tokens(), test_examples.without_shared_tokens()
    plan = plan_run(job.method, job.training, len(train_examples), precision, job.seed)
    if job.trials:
        plan = replace(plan, learning_rate=chosen_rate(job.trials))
    base = load_model(job.manifest, target)
    dtype = base.dtype
    name, alpha = base_model_name(job.manifest), job.training.lora_alpha_per_rank
    model = prepare_model(base, name, job.method, alpha, job.adapter_config, train_examples, plan.steps, job.seed)
    if processes.sharded:
        shard(causal_lm(model), processes)
    sections = {"method": job.method.model_dump(mode="json"), "training": job.training.model_dump(mode="json")}
    settings = sections | {"processes": processes.count, "sharding": job.sharding}
    identity = identity_of_run(origin, settings, [job.manifest, job.train, job.test, job.adapter_config, job.trials])
    states = ResumeFolder(job.resume, identity, job.checkpoints, origin, processes)

    def at_checkpoint(number: int) -> Score:
        folder = job.checkpoints[number]
        save_checkpoint(model, folder, dtype, origin.for_checkpoint(folder.name), processes)
        return evaluate(causal_lm(model), test_examples)

    history = fine_tune(model, train_examples, plan, at_checkpoint, states, processes)
    if not processes.is_first:
        return
    names = [folder.name for folder in job.checkpoints]
    scores = list(zip(names, plan.checkpoint_steps, history.scores, strict=True))
    write_table(job.training_log, history.log_table(), "training_log", origin)
    write_table(job.accuracy, accuracy_table(scores, "test", *final_parameter_counts(model)), "accuracy", origin)
    write_table(job.predictions, predictions_table(scores, test_examples.example_ids), "predictions", origin)
    states.remove()


if __name__ == "__main__":
    stage.run(main)
