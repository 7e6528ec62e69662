"""Write a task's three splits of prompts, encoded by the model's own tokenizer, and the second wording of one."""

from circuitdrift import stage

import logging
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pandas as pd

from circuitdrift.models.tokenizer import load_tokenizer, tokenizers_only
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table
from circuitdrift.tasks.compositional import CompositionalTask
from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import Example
from circuitdrift.tasks.families import TaskConfig
from circuitdrift.tasks.folds import order_by_fold
from circuitdrift.tasks.from_file import FileTask, examples_from_file
from circuitdrift.tasks.generation import generate_examples
from circuitdrift.tasks.prompt_file import Fault
from circuitdrift.tasks.splits import SPLITS, Split
from circuitdrift.tasks.wording import WordingError, reword_examples

log = logging.getLogger(__name__)


def main(
    manifest: Path,
    prompts: Path | None,
    train: Path,
    circuit: Path,
    test: Path,
    circuit_reworded: Path | None,
    dropped: Path | None,
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
        circuit_reworded: output, the circuit split with other instructions, of a task that has a second wording;
            otherwise None.
        dropped: output, the rows of a task file that are left out, of a task that leaves out rows; otherwise None.
        task: the task's section of the config.
        parent: the compositional task that a sub-task belongs to; None for other tasks.
        folds: number of folds that each split is ordered for: example i belongs to fold i mod ``folds``.
        provenance: origin of the outputs.

    Raises:
        WordingError: the family has no second wording, or the tokenizer does not take it.
    """
    encoding, origin = Encoding.of(load_tokenizer(manifest), task.answer_tokens), provenance.with_seed(task.seed)
    if isinstance(task, FileTask):
        found = examples_from_file(task.model_copy(update={"path": prompts or task.path}), encoding)
        splits, left_out = found.splits, found.dropped
    else:
        splits, left_out = generate_examples(task, encoding, parent), ()
    if dropped is not None:
        write_table(dropped, _table_of_dropped(left_out), "dropped", origin)
    tables = {}
    first_id = 0
    for split, path in zip(SPLITS, (train, circuit, test), strict=True):
        examples = splits[split]
        order = order_by_fold([example.kind for example in examples], folds, Random(f"{task.seed} {split}"))
        ordered = [examples[place] for place in order]
        tables[split] = _table(ordered, first_id)
        write_table(path, tables[split], "examples", origin)
        log.info("%s: %d examples, such as %s", split, len(ordered), _shown(ordered, split))
        first_id += len(ordered)
    if circuit_reworded is not None:
        if task.wording is None:
            raise WordingError(f"family {task.family} has no second wording; declare one beside its prompts in tasks/")
        write_table(circuit_reworded, reword_examples(tables["circuit"], task.wording, encoding), "examples", origin)


def _table(examples: Sequence[Example], first_id: int) -> pd.DataFrame:
    """One row for each example; ids continue over the splits, so that each is unique within a task."""
    frame = pd.DataFrame([vars(example) for example in examples], columns=list(Example.__annotations__))
    frame.insert(0, "example_id", range(first_id, first_id + len(frame)))
    return frame


def _table_of_dropped(left_out: Sequence[Fault]) -> pd.DataFrame:
    """One row for each row that was left out, counted from 0 without the header."""
    return pd.DataFrame([(fault.row, fault.reason) for fault in left_out], columns=["row", "reason"])


def _shown(examples: Sequence[Example], split: Split) -> str:
    return repr(examples[0].clean + examples[0].answer) if examples else f"(none: {split} is empty)"


if __name__ == "__main__":
    with tokenizers_only():
        stage.run(main)
