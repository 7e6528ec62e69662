"""Lay out a run with allocated ranks as an experiment of the method_comparison of the PEFT repository."""

from circuitdrift import stage

import logging
from pathlib import Path

from circuitdrift.config.methods import MethodConfig, Training
from circuitdrift.models.manifest import base_model_name, read_manifest
from circuitdrift.storage import read_json, read_table, write_json
from circuitdrift.training.learning_rates import chosen_rate

logger = logging.getLogger(__name__)


def main(
    *,
    manifest: Path,
    train: Path,
    adapter_config: Path,
    trials: Path | None,
    experiment: Path,
    training_params: Path,
    method: MethodConfig,
    training: Training,
    seed: int,
) -> None:
    """Copy the ranks, and write the run's training in the keys of that benchmark (docs/howto.md).

    Args:
        manifest: the base model.
        train: the train split, whose size sets the number of steps.
        adapter_config: the allocated ranks.
        trials: the search that chose the run's learning rate, if there was one.
        experiment: output, the same LoRA configuration.
        training_params: output, what differs from the benchmark's default_training_params.json.
        method: the method.
        training: the training section.
        seed: seed of the fine-tuning.
    """
    model, _ = base_model_name(manifest)
    found = read_manifest(manifest)
    if found.source["source"] != "hub":
        logger.warning(
            "model '%s' is not from the hub, so the benchmark cannot load it by this name: write the path of its "
            "folder as model_id",
            model,
        )
    steps = training.steps_of(method, len(read_table(train, "examples")))
    rate = chosen_rate(trials) if trials else method.learning_rate or training.learning_rate_lora
    write_json(experiment, read_json(adapter_config))
    write_json(
        training_params,
        {
            "model_id": model,
            "dtype": found.dtype,
            "batch_size": training.batch_size,
            "max_steps": steps,
            "eval_steps": max(1, steps // training.checkpoints),
            "seed": seed,
            "grad_norm_clip": training.gradient_clip,
            "optimizer_type": "AdamW",
            "optimizer_kwargs": {"lr": rate, "weight_decay": training.weight_decay},
            "lr_scheduler": "cosine",
        },
    )


if __name__ == "__main__":
    stage.run(main)
