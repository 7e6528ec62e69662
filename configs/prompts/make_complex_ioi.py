"""Write the prompts of complex_ioi.csv, beside this script: indirect objects that two people compete for.

``Robert needed brush, Kelly wanted pan, Daniel handed brush to`` is answered by `` Robert``. The corrupted prompt hands
the other object over, so its answer is the other person. In half of the clean prompts the first person is right. Names
and objects are single tokens of the study's tokenizer, so that all prompts have the same length.

Run it once the study's model is there (the draw is seeded: the same tokenizer gives the same bytes)::

    .venv/bin/python configs/prompts/make_complex_ioi.py results/smollm2_quick/models/smollm2/manifest.json
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "workflow_scripts"))

from transformers import PreTrainedTokenizerBase  # noqa: E402

from circuitdrift.models.tokenizer import load_tokenizer  # noqa: E402
from circuitdrift.tasks.complex_ioi import NAMES, OBJECTS  # noqa: E402
from circuitdrift.tasks.tokenization import encode_answer, encode_prompt  # noqa: E402

SPLITS = {"train": 1280, "circuit": 100, "test": 300}
SEED = 42


def single_tokens(words: Sequence[str], tokenizer: PreTrainedTokenizerBase, first: bool) -> list[str]:
    """The words that are one token after a space and, where one may open a prompt (``first``), without it too."""
    return [
        word
        for word in words
        if len(encode_answer(tokenizer, f" {word}")) == 1 and (not first or len(encode_answer(tokenizer, word)) == 1)
    ]


def draw_row(rng: random.Random, names: list[str], objects: list[str]) -> tuple[str, str, str, str]:
    """One pair: clean prompt, corrupted prompt, clean answer, corrupted answer."""
    one, other, giver = rng.sample(names, 3)
    belongings = dict(zip((one, other), rng.sample(objects, 2), strict=True))
    right, wrong = rng.sample((one, other), 2)
    scene = f"{one} needed {belongings[one]}, {other} wanted {belongings[other]}, {giver} handed"
    return f"{scene} {belongings[right]} to", f"{scene} {belongings[wrong]} to", f" {right}", f" {wrong}"


def main(manifest: Path, csv_file: Path) -> None:
    """Draw every split and write them to one file; no scene occurs twice, not even with its pair turned round."""
    tokenizer = load_tokenizer(manifest)
    names, objects = single_tokens(NAMES, tokenizer, first=True), single_tokens(OBJECTS, tokenizer, first=False)
    rng = random.Random(SEED)
    pairs: dict[frozenset[str], tuple[str, str, str, str]] = {}
    while len(pairs) < sum(SPLITS.values()):
        row = draw_row(rng, names, objects)
        pairs.setdefault(frozenset(row[:2]), row)
    lengths = {len(encode_prompt(tokenizer, prompt)) for row in pairs.values() for prompt in row[:2]}
    if len(lengths) != 1:
        raise ValueError(f"prompts of {sorted(lengths)} tokens; take out the words that are not single tokens")
    splits = [split for split, size in SPLITS.items() for _ in range(size)]
    with csv_file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["clean", "corrupted", "answer", "corrupted_answer", "split"])
        writer.writerows((*row, split) for row, split in zip(pairs.values(), splits, strict=True))
    print(f"{csv_file.name}: {len(pairs)} pairs of {lengths.pop()} tokens, {len(names)} names, {len(objects)} objects")


if __name__ == "__main__":
    main(Path(sys.argv[1]), HERE / "complex_ioi.csv")
