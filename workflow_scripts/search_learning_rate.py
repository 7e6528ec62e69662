"""Try learning rates for a method on a task: train on a part of the train split, and choose by the other part."""

from circuitdrift import stage

import logging
import math
from dataclasses import replace
from pathlib import Path

from circuitdrift.compute import resolve_device, resolve_precision
from circuitdrift.config.learning_rates import LearningRateSearch
from circuitdrift.config.methods import MethodConfig, Training
from circuitdrift.models.loading import load_model
from circuitdrift.models.manifest import base_model_name
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table
from circuitdrift.training.adapters import causal_lm
from circuitdrift.training.evaluation import Score, evaluate
from circuitdrift.training.examples import Examples
from circuitdrift.training.learning_rates import Trial, hold_out, trials_table
from circuitdrift.training.loop import DivergenceError, fine_tune, plan_run
from circuitdrift.training.preparation import prepare_model

logger = logging.getLogger(__name__)


def main(
    *,
    manifest: Path,
    train: Path,
    adapter_config: Path | None,
    trials: Path,
    method: MethodConfig,
    training: Training,
    search: LearningRateSearch,
    device: str,
    provenance: Provenance,
) -> None:
    """Train once with each learning rate, and write the table that marks the best one.

    Trials are on the right answers also for a method on permuted answers, which so takes the rate of its true twin.

    Args:
        manifest: manifest of the base model.
        train: the train split; a part of it is held out and judges the trials. No other split is read.
        adapter_config: the allocated ranks, for methods that have them.
        trials: table to write.
        method: the method.
        training: the training section.
        search: the learning_rate_search section.
        device: execution.device.
        provenance: origin of the file.
    """
    target = resolve_device(device)
    precision = resolve_precision(training.precision, target)
    parts = hold_out(read_table(train, "examples"), search.validation_share, search.seed)
    examples, held_out = (Examples(part, target) for part in parts)
    own_plan = plan_run(method, training, len(examples), precision, search.seed)

    def score_of(learning_rate: float) -> Score | None:
        base = load_model(manifest, target)
        name, alpha = base_model_name(manifest), training.lora_alpha_per_rank
        model = prepare_model(base, name, method, alpha, adapter_config, examples, own_plan.steps, search.seed)
        plan = replace(own_plan, learning_rate=learning_rate)
        try:
            score = fine_tune(model, examples, plan, lambda number: evaluate(causal_lm(model), held_out)).scores[-1]
        except DivergenceError as error:
            logger.info("learning rate %g diverged: %s", learning_rate, error)
            return None
        logger.info("learning rate %g: %d of %d right", learning_rate, score.correct, score.n)
        return score if math.isfinite(score.answer_loss) else None

    rates = [(factor, factor * own_plan.learning_rate) for factor in search.rates]
    table = trials_table([Trial(factor, rate, score_of(rate)) for factor, rate in rates], len(held_out))
    write_table(trials, table, "trials", provenance.with_seed(search.seed).on(target, precision))


if __name__ == "__main__":
    stage.run(main)
