"""Speed and memory of the training loop, beside Hugging Face's Trainer on the same model, data and steps.

    python benchmarks/training.py --shapes embedded pythia-160m --threads 1 2 --output benchmark.md

The Trainer follows the recipe of the paper's code: prompts with their answers padded to 32 tokens, head and loss taken
at all positions. Only the labels differ: they are those of the answer, so that both loops train on one loss and their
curves can be compared. Both take the same examples in the same order and the same AdamW with a linear schedule (their
warm-ups differ). Both run eager attention, the faster kind on a CPU. Neither evaluates, saves or reports. Speed is that
of the median step, from the end of one step to the end of the next, after one step of rate zero. Each run has a process
of its own; its memory is the largest resident set. The two loops alternate, and the fastest run of each counts, because
other work on the machine disturbs it least.

``embedded`` is the embedded model before pre-training, on Add/Sub in its own tokens. ``pythia-160m`` has random weights
and random prompts as long as Add/Sub prompts in Pythia's tokens. ``--model-manifest`` takes a model of a study, on
Add/Sub in its tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from measuring import (
    IN_THIS_PROCESS,
    SHAPES,
    VOCABULARY,
    add_sub_like_prompts,
    largest_resident_set,
    random_gpt_neox,
    row_of_own_process,
    write_tables,
)
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from circuitdrift.config.methods import FullMethod, LoraMethod, MethodConfig, Training
from circuitdrift.config.models import ScratchModel
from circuitdrift.models.embedded_model import build_model
from circuitdrift.models.embedded_tokenizer import build_tokenizer
from circuitdrift.models.loading import load_model
from circuitdrift.models.tokenizer import load_tokenizer
from circuitdrift.tasks.add_sub import AddSubTask
from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.generation import generate_examples
from circuitdrift.training.evaluation import Score
from circuitdrift.training.examples import Examples
from circuitdrift.training.loop import Plan, fine_tune, rows_of_step
from circuitdrift.training.preparation import prepare_model

METHODS: dict[str, MethodConfig] = {"lora_r2": LoraMethod(kind="lora", rank=2), "full": FullMethod(kind="full")}
LOOPS = ("Trainer", "CircuitDrift")
PADDED_LENGTH = 32
EXAMPLES = 2000
STEPS, STEPS_OF_LARGE = 60, 8
ANSWERS = 100
WINDOWS = 6
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Moment:
    """Readings of two clocks in seconds: wall time, and this process's CPU time on all cores."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Moment:
        """This moment."""
        return cls(time.perf_counter(), time.process_time())


@dataclass(frozen=True)
class Timed:
    """When each step ended (the first moment is before any), and the loss of each before its update."""

    ends: list[Moment]
    losses: list[float]

    def per_step(self) -> Moment:
        """The median step on each clock; other work on the machine disturbs it less than the mean."""
        steps = list(pairwise(self.ends))
        return Moment(
            statistics.median(later.wall - earlier.wall for earlier, later in steps),
            statistics.median(later.cpu - earlier.cpu for earlier, later in steps),
        )


def model_and_table(shape: str, manifest: Path | None) -> tuple[PreTrainedModel, pd.DataFrame]:
    """The base model in float32 with eager attention, and a split to train on."""
    if manifest:
        return load_model(manifest, CPU).float(), add_sub_table(load_tokenizer(manifest))
    if shape == "embedded":
        section = ScratchModel(source="scratch")
        return build_model(section), add_sub_table(build_tokenizer(section.largest_number))
    answers = torch.randint(VOCABULARY, (ANSWERS,), generator=torch.Generator().manual_seed(2)).tolist()
    prompts = add_sub_like_prompts(EXAMPLES)
    table = pd.DataFrame({"clean_ids": prompts, "answer_ids": [[answers[ids[-1] % ANSWERS]] for ids in prompts]})
    return random_gpt_neox(shape), table.assign(example_id=range(EXAMPLES))


def add_sub_table(tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    """The train split of Add/Sub with operands up to 100, as a tokenizer writes it."""
    task = AddSubTask(family="add_sub", max_operand=100, train=EXAMPLES, circuit=4, test=1, answer_tokens="any")
    examples = generate_examples(task, Encoding.of(tokenizer, task.answer_tokens))["train"]
    return pd.DataFrame([vars(example) for example in examples]).assign(example_id=range(len(examples)))


def plan_of(method: MethodConfig, steps: int) -> Plan:
    """The default training settings for a number of steps, without warm-up."""
    training = Training()
    full = isinstance(method, FullMethod)
    return Plan(
        steps=steps,
        checkpoint_steps=tuple(range(steps + 1)),
        batch_size=training.batch_size,
        micro_batch_size=training.batch_size,
        learning_rate=training.learning_rate_full if full else training.learning_rate_lora,
        warmup_steps=0,
        weight_decay=training.weight_decay,
        gradient_clip=training.gradient_clip,
        precision=torch.float32,
        seed=0,
    )


def rows_of_run(table: pd.DataFrame, plan: Plan) -> Int[np.ndarray, " rows"]:
    """The table's rows in the order in which a run takes them."""
    return np.concatenate([rows_of_step(step, len(table), plan) for step in range(1, plan.steps + 1)])


def lengths(table: pd.DataFrame) -> Int[np.ndarray, " rows"]:
    """Tokens of each prompt with its answer."""
    return (table["clean_ids"].str.len() + table["answer_ids"].str.len()).to_numpy()


def run_loop(model: PreTrainedModel | PeftModel, examples: Examples, plan: Plan) -> Timed:
    """The project's loop; its checkpoints, one a step, read the clock and save nothing."""
    ends = []

    def at_checkpoint(number: int) -> Score:
        ends.append(Moment.now())
        return Score((False,), 0.0)

    history = fine_tune(model, examples, plan, at_checkpoint)
    return Timed(ends, [row.loss for row in history.rows])


def padded(prompt: Sequence[int], answer: Sequence[int], length: int) -> dict[str, Tensor]:
    """One example for the Trainer: prompt and answer padded on the right, labels on the answer only."""
    tokens = [*prompt, *answer]
    filler = length - len(tokens)
    return {
        "input_ids": torch.tensor([*tokens, *[0] * filler]),
        "attention_mask": torch.tensor([*[1] * len(tokens), *[0] * filler]),
        "labels": torch.tensor([*[-100] * len(prompt), *answer, *[-100] * filler]),
    }


class RecordingTrainer(Trainer):
    """The Trainer, keeping the loss of each step; its own log has only means."""

    losses: list[Tensor]

    def training_step(self, *given, **named) -> Tensor:
        """Run one step and keep its loss."""
        loss = super().training_step(*given, **named)
        self.losses.append(loss)
        return loss


class Clock(TrainerCallback):
    """Reads the clock before the first step and at the end of each step."""

    def __init__(self) -> None:
        self.ends: list[Moment] = []

    def on_train_begin(self, args, state, control, **others) -> None:
        """Read the clock once training begins."""
        self.ends.append(Moment.now())

    def on_step_end(self, args, state, control, **others) -> None:
        """Read the clock after an update."""
        self.ends.append(Moment.now())


def run_trainer(model: PreTrainedModel | PeftModel, table: pd.DataFrame, plan: Plan) -> Timed:
    """Hugging Face's Trainer on the examples of the same steps, in the same order."""
    length = max(PADDED_LENGTH, lengths(table).max())
    rows = rows_of_run(table, plan)
    data = [padded(table["clean_ids"].iloc[row], table["answer_ids"].iloc[row], length) for row in rows]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            max_steps=plan.steps,
            per_device_train_batch_size=plan.batch_size,
            train_sampling_strategy="sequential",
            learning_rate=plan.learning_rate,
            lr_scheduler_type="linear",
            weight_decay=plan.weight_decay,
            max_grad_norm=plan.gradient_clip,
            seed=plan.seed,
            use_cpu=True,
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = RecordingTrainer(model=model, args=settings, train_dataset=data, callbacks=[clock])
        trainer.losses = []
        trainer.train()
    return Timed(clock.ends, torch.stack(trainer.losses).tolist())


def measure(loop: str, shape: str, method: str, threads: int, steps: int, manifest: Path | None) -> dict[str, object]:
    """One row: one loop on one shape, its losses as means over windows of steps."""
    torch.set_num_threads(threads)
    settings = METHODS[method]
    base, table = model_and_table(shape, manifest)
    plan, examples = plan_of(settings, steps), Examples(table, CPU)
    alpha_per_rank = Training().lora_alpha_per_rank
    model = prepare_model(base, (shape, None), settings, alpha_per_rank, None, examples, steps, seed=0)
    idle = replace(plan, steps=1, checkpoint_steps=(0, 1), learning_rate=0.0)
    for setting in (idle, plan):
        timed = run_loop(model, examples, setting) if loop == "CircuitDrift" else run_trainer(model, table, setting)
    step = timed.per_step()
    examples_per_second = plan.batch_size / step.wall
    tokens_per_example = float(lengths(table)[rows_of_run(table, plan)].mean())
    return {
        "shape": shape,
        "method": method,
        "threads": threads,
        "loop": loop,
        "examples/s": float(f"{examples_per_second:.4g}"),
        "tokens/s": round(examples_per_second * tokens_per_example),
        "CPU time of a step (ms)": float(f"{1000 * step.cpu:.4g}"),
        "peak memory (GiB)": round(largest_resident_set(), 2),
        "losses": [float(np.mean(part)) for part in np.array_split(timed.losses, min(WINDOWS, steps))],
    }


def compared(trainer: dict[str, object], ours: dict[str, object]) -> list[dict[str, object]]:
    """The table's rows of both loops, with their ratio and the largest difference of their losses."""
    ratio = ours["examples/s"] / trainer["examples/s"]
    difference = np.abs(np.subtract(trainer["losses"], ours["losses"])).max()
    rows = []
    for row, speed_up, apart in ((trainer, "", ""), (ours, f"{ratio:.2f}", f"{difference:.1e}")):
        shown = {key: value for key, value in row.items() if key != "losses"}
        losses = " ".join(f"{loss:.4f}" for loss in row["losses"])
        rows.append({**shown, "speed-up": speed_up, "mean loss by window": losses, "largest difference": apart})
    return rows


def main() -> None:
    """Measure both loops on each shape, method and number of threads, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", choices=["embedded", *SHAPES], default=["embedded", "pythia-160m"])
    parser.add_argument(
        "--model-manifest", type=Path, action="append", default=[], help="and a model that is there already"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["lora_r2"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument(
        "--steps", type=int, help=f"of each run; {STEPS} of the embedded model, {STEPS_OF_LARGE} of others"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="alternating runs of both loops, of which the fastest count"
    )
    parser.add_argument("--output", type=Path, help="markdown file; standard output without it")
    parser.add_argument("--loop", choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument(IN_THIS_PROCESS, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.in_this_process:
        (method,), (threads,) = given.methods, given.threads
        manifest = next(iter(given.model_manifest), None)
        shape = manifest.resolve().parent.name if manifest else given.shapes[0]
        print(json.dumps(measure(given.loop, shape, method, threads, given.steps, manifest)))
        return
    models = [["--shapes", shape] for shape in given.shapes]
    models += [["--shapes", "--model-manifest", manifest] for manifest in given.model_manifest]
    rows = []
    for model, method, threads in product(models, given.methods, given.threads):
        steps = given.steps or (STEPS if "embedded" in model else STEPS_OF_LARGE)
        options = [*model, "--methods", method, "--threads", threads, "--steps", steps]
        rounds = [
            [row_of_own_process(__file__, [*options, "--loop", loop]) for loop in LOOPS] for _ in range(given.rounds)
        ]
        rows += compared(*(max(of_loop, key=lambda row: row["examples/s"]) for of_loop in zip(*rounds, strict=True)))
    write_tables([rows], given.output)


if __name__ == "__main__":
    main()
