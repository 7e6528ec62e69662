"""A second wording of a task's prompts: another instruction before the same operands (docs/method.md#controls)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circuitdrift.errors import CircuitDriftError
from circuitdrift.tasks.encoding import Encoding

if TYPE_CHECKING:
    import pandas as pd


class WordingError(CircuitDriftError):
    """Prompts that cannot be reworded; the message names the first of them and the fix."""


@dataclass(frozen=True)
class Wording:
    """Two instructions of one meaning; all prompts of the family begin with the first.

    Both end in the same sign, so that the text after it is split into the same tokens.
    """

    first: str
    second: str

    def reworded(self, prompt: str) -> str:
        """The prompt with the second instruction.

        Raises:
            WordingError: the prompt does not begin with the first instruction.
        """
        if not prompt.startswith(self.first):
            raise WordingError(f"{prompt!r} does not begin with {self.first!r}; generate the data again")
        return self.second + prompt.removeprefix(self.first)


def reword_examples(examples: pd.DataFrame, wording: Wording, encoding: Encoding) -> pd.DataFrame:
    """The same examples in the same order, hence in the same folds, with the second instruction in both prompts.

    Args:
        examples: table of schema "examples".
        wording: the two instructions.
        encoding: the model's tokenizer.

    Raises:
        WordingError: a prompt lacks the first instruction, has text outside the vocabulary, or has another number of
            tokens than its pair.
    """
    texts = {name: [wording.reworded(prompt) for prompt in examples[name]] for name in ("clean", "corrupted")}
    ids = {f"{name}_ids": [encoding.prompt(prompt) for prompt in prompts] for name, prompts in texts.items()}
    for prompt, clean, corrupted in zip(texts["clean"], ids["clean_ids"], ids["corrupted_ids"], strict=True):
        if not (encoding.knows(clean) and encoding.knows(corrupted)):
            raise WordingError(f"{prompt!r} has text outside the vocabulary; choose a second wording of known words")
        if len(clean) != len(corrupted):
            raise WordingError(
                f"{prompt!r} has {len(clean)} tokens, its corrupted prompt {len(corrupted)}; choose a second wording "
                "that ends in the same sign as the first"
            )
    replaced: dict[str, Any] = {**texts, **ids}
    return examples.assign(**replaced)
