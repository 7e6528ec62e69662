"""Write the circuit split of a task in its second wording: other instructions, the same operands, folds and order."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.models.tokenizer import load_tokenizer, tokenizers_only
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table
from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.families import TaskConfig
from circuitdrift.tasks.wording import WordingError, reword_examples


def main(manifest: Path, circuit: Path, reworded: Path, task: TaskConfig, provenance: Provenance) -> None:
    """Replace the instruction of the prompts and encode them again.

    Args:
        manifest: manifest of the model whose tokenizer encodes the prompts.
        circuit: the circuit split.
        reworded: output.
        task: the task's section of the config.
        provenance: origin of the output.

    Raises:
        WordingError: the family has no second wording, or the tokenizer does not take it.
    """
    if task.wording is None:
        raise WordingError(f"family {task.family} has no second wording; declare one beside its prompts in tasks/")
    encoding = Encoding.of(load_tokenizer(manifest), task.answer_tokens)
    examples = reword_examples(read_table(circuit, "examples"), task.wording, encoding)
    write_table(reworded, examples, "examples", provenance.with_seed(task.seed))


if __name__ == "__main__":
    with tokenizers_only():
        stage.run(main)
