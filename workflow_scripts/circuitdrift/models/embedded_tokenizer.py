"""The embedded model's tokenizer: words, signs, and every integer up to a bound as one token each.

With numbers as single tokens, the answers of the paper's tasks have one token by construction. A word-level vocabulary
of about six hundred entries keeps the head of a small model smaller than its blocks.
"""

from __future__ import annotations

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<eos>"
UNKNOWN = "<unk>"

# A number, a word (apostrophes included), or one sign; white space separates them and is dropped.
PIECES = r"\d+|[A-Za-z']+|[^\sA-Za-z\d]"

# The words of the arithmetic tasks' prompts.
PROMPT_WORDS = (
    "Calculate the result of the following arithmetic expression and provide only the final answer "
    "Derive sequence least common multiple LCM two numbers There is a function y x Given Is Answer Yes No"
)

# Words of the pre-training corpus alone.
CORPUS_WORDS = (
    "plus minus times over divides after before comes more less than equal to count by up down from then "
    "list section page room line part code size shelf box row"
)

SIGNS = list("+-*/=().,:;?!><'")


def vocabulary(largest_number: int) -> dict[str, int]:
    """Map every token of the embedded tokenizer to its id: special tokens, words, signs, then the integers in order.

    Args:
        largest_number: the integers 0..largest_number are tokens; a larger one becomes the unknown token.
    """
    words = dict.fromkeys([END_OF_TEXT, UNKNOWN, *PROMPT_WORDS.split(), *CORPUS_WORDS.split(), *SIGNS])
    return {token: index for index, token in enumerate([*words, *map(str, range(largest_number + 1))])}


def build_tokenizer(largest_number: int) -> PreTrainedTokenizerFast:
    """Build the tokenizer, which puts ``<eos>`` (also its BOS token) in front of every text.

    Args:
        largest_number: the integers 0..largest_number are one token each.
    """
    ids = vocabulary(largest_number)
    backend = Tokenizer(WordLevel(vocab=ids, unk_token=UNKNOWN))
    backend.pre_tokenizer = Split(Regex(PIECES), behavior="removed", invert=True)
    backend.post_processor = TemplateProcessing(
        single=f"{END_OF_TEXT} $A",
        pair=f"{END_OF_TEXT} $A $B",
        special_tokens=[(END_OF_TEXT, ids[END_OF_TEXT])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
