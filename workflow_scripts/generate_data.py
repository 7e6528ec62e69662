"""Write a task's three splits of prompts, encoded by the model's own tokenizer."""

import logging
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pandas as pd

from circuitdrift import stage
from circuitdrift.models.tokenizer import load_tokenizer, tokenizers_only
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table
from circuitdrift.tasks.compositional import CompositionalTask
from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import Example
from circuitdrift.tasks.families import TaskConfig
from circuitdrift.tasks.folds import order_by_fold
from circuitdrift.tasks.from_file import FileTask
from circuitdrift.tasks.generation import generate_examples
from circuitdrift.tasks.splits import SPLITS, Split

log = logging.getLogger(__name__)


def main(
    manifest: Path,
    prompts: Path | None,
    train: Path,
    circuit: Path,
    test: Path,
    task: TaskConfig,
    parent: CompositionalTask | None,
    folds: int,
    provenance: Provenance,
) -> None:
    """Generate the examples, or read them from the task's file, and write one table for each split.

    Args:
        manifest: manifest of the model whose tokenizer encodes the prompts.
        prompts: the file of a task of family ``file``; None for other tasks.
        train: output, the examples to fine-tune on.
        circuit: output, the examples to extract circuits from.
        test: output, the examples to measure accuracy on.
        task: the task's section of the config.
        parent: the compositional task that a sub-task belongs to; None for other tasks.
        folds: number of folds that each split is ordered for: example i belongs to fold i mod ``folds``.
        provenance: origin of the outputs.
    """
    if isinstance(task, FileTask) and prompts is not None:
        task = task.model_copy(update={"path": prompts})
    splits = generate_examples(task, Encoding.of(load_tokenizer(manifest), task.answer_tokens), parent)
    first_id = 0
    for split, path in zip(SPLITS, (train, circuit, test), strict=True):
        examples = splits[split]
        order = order_by_fold([example.kind for example in examples], folds, Random(f"{task.seed} {split}"))
        ordered = [examples[place] for place in order]
        write_table(path, _table(ordered, first_id), "examples", provenance.with_seed(task.seed))
        log.info("%s: %d examples, such as %s", split, len(ordered), _shown(ordered, split))
        first_id += len(ordered)


def _table(examples: Sequence[Example], first_id: int) -> pd.DataFrame:
    """One row for each example; ids continue over the splits, so that each is unique within a task."""
    frame = pd.DataFrame([vars(example) for example in examples], columns=list(Example.__annotations__))
    frame.insert(0, "example_id", range(first_id, first_id + len(frame)))
    return frame


def _shown(examples: Sequence[Example], split: Split) -> str:
    return repr(examples[0].clean + examples[0].answer) if examples else f"(none: {split} is empty)"


if __name__ == "__main__":
    with tokenizers_only():
        stage.run(main)
