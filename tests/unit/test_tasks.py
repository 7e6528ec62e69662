"""The generated task families, with a tokenizer that knows the integers 0..500 and with one that splits numbers."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from functools import cache
from itertools import pairwise

import pytest
from pydantic import TypeAdapter
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split as SplitPieces
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from circuitdrift.tasks import compositional
from circuitdrift.tasks.capitals import CAPITALS
from circuitdrift.tasks.complex_ioi import NAMES, OBJECTS
from circuitdrift.tasks.compositional import CompositionalTask
from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import Example, TaskError
from circuitdrift.tasks.families import TaskConfig
from circuitdrift.tasks.generation import generate_examples
from circuitdrift.tasks.splits import SPLITS, Splits, allot

SIZES = {"train": 400, "circuit": 40, "test": 80}
TASKS = {
    "add_sub": {"family": "add_sub"},
    "add_sub_500": {"family": "add_sub", "max_operand": 500},
    "mul_div": {"family": "mul_div", "max_result": 500},
    "sequence": {"family": "sequence"},
    "lcm": {"family": "lcm"},
    "function": {"family": "function"},
    "compositional": {"family": "compositional"},
    "comparison": {"family": "comparison"},
    "complex_ioi": {"family": "complex_ioi"},
    "capital_country": {"family": "capital_country"},
    "sub_add_sub": {"family": "sub_task", "of": "compositional", "part": "add_sub"},
    "sub_mul_div": {"family": "sub_task", "of": "compositional", "part": "mul_div"},
}
GENERATED = [name for name in TASKS if not name.startswith("sub_")]
INSTRUCTION = "Calculate the result of the following arithmetic expression and provide only the final answer:"
TERM = re.compile(r"(\d+) ([-+*/]) (\d+) =$")


def word_level(numbers: range | None) -> Encoding:
    """A tokenizer of words, signs and the given integers; None: digits are tokens, numbers are not."""
    words = re.findall(
        r"[A-Za-z']+|[^\sA-Za-z\d]",
        f"{INSTRUCTION} Derive sequence least common multiple LCM two numbers There is a function y x Given .,()+-*/=>?"
        f" Is Answer Yes No needed wanted handed If corresponds then to {' '.join(NAMES + OBJECTS)}"
        f" {' '.join(CAPITALS)} {' '.join(CAPITALS.values())}",
    )
    numerals = [str(n) for n in numbers or range(10)]
    ids = {token: i for i, token in enumerate(dict.fromkeys(["<eos>", "<unk>", *words, *numerals]))}
    backend = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    digits = r"\d+" if numbers else r"\d"
    backend.pre_tokenizer = SplitPieces(Regex(digits + r"|[A-Za-z']+|[^\sA-Za-z\d]"), "removed", invert=True)
    backend.post_processor = TemplateProcessing(single="<eos> $A", special_tokens=[("<eos>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<eos>", eos_token="<eos>", unk_token="<unk>"
    )
    return Encoding.of(tokenizer)


@cache
def encoding() -> Encoding:
    return word_level(range(501))


def generate(raw: dict[str, object], **settings: object) -> Splits:
    task = TypeAdapter(TaskConfig).validate_python({**raw, **SIZES, **settings})
    parent = CompositionalTask(family="compositional", **SIZES) if raw["family"] == "sub_task" else None
    return generate_examples(task, encoding(), parent)


@cache
def splits_of(name: str) -> Splits:
    return generate(TASKS[name])


def rows(name: str) -> list[Example]:
    return [example for split in SPLITS for example in splits_of(name)[split]]


def value(prompt: str) -> int:
    """A slow second opinion: read the expression behind the instruction as Python."""
    return eval(prompt.removeprefix(INSTRUCTION).removesuffix("=").replace("/", "//"))


@pytest.mark.parametrize("name", TASKS)
def test_no_clean_prompt_stands_twice(name: str) -> None:
    prompts = [example.clean for example in rows(name)]
    assert len(set(prompts)) == len(prompts)


@pytest.mark.parametrize("name", GENERATED)
def test_splits_have_the_sizes_asked_for(name: str) -> None:
    assert {split: len(members) for split, members in splits_of(name).items()} == SIZES


@pytest.mark.parametrize("name", TASKS)
def test_same_task_gives_the_same_examples_and_another_seed_gives_others(name: str) -> None:
    assert generate(TASKS[name]) == splits_of(name)
    if name in GENERATED:
        assert [e.clean for e in generate(TASKS[name], seed=1)["test"]] != [e.clean for e in splits_of(name)["test"]]


@pytest.mark.parametrize("name", TASKS)
def test_prompts_are_known_and_equally_long_and_answers_are_one_known_token(name: str) -> None:
    for example in rows(name):
        assert list(example.clean_ids) == encoding().encode_prompt(example.clean)
        assert list(example.corrupted_ids) == encoding().encode_prompt(example.corrupted)
        assert len(example.clean_ids) == len(example.corrupted_ids)
        assert list(example.answer_ids) == encoding().encode_answer(example.answer)
        assert list(example.corrupted_answer_ids) == encoding().encode_answer(example.corrupted_answer)
        assert len(example.answer_ids) == len(example.corrupted_answer_ids) == 1
        assert encoding().unknown_id not in (*example.clean_ids, *example.corrupted_ids, *example.answer_ids)
        assert example.answer != example.corrupted_answer
        assert example.clean != example.corrupted


@pytest.mark.parametrize("name", GENERATED)
def test_always_giving_one_answer_earns_little_in_every_split(name: str) -> None:
    largest_share = 0.5 if name == "comparison" else 0.04
    for members in splits_of(name).values():
        most = Counter(example.answer for example in members).most_common(1)[0][1]
        assert most <= max(1, largest_share * len(members) + 2)


@pytest.mark.parametrize("name", ["add_sub", "add_sub_500", "mul_div", "compositional"])
def test_operators_are_balanced_in_every_split(name: str) -> None:
    for members in splits_of(name).values():
        operators = Counter(re.sub(r"[^-+*/]", "", e.clean.removeprefix(INSTRUCTION)) for e in members)
        assert len(operators) == (4 if name == "compositional" else 2)
        assert max(operators.values()) - min(operators.values()) <= 2


@pytest.mark.parametrize("name", ["add_sub", "add_sub_500", "mul_div", "compositional", "sub_add_sub", "sub_mul_div"])
def test_arithmetic_is_right(name: str) -> None:
    for example in rows(name):
        assert example.clean.startswith(INSTRUCTION)
        assert example.answer == f" {value(example.clean)}"
        assert example.corrupted_answer == f" {value(example.corrupted)}"


@pytest.mark.parametrize("name", ["mul_div", "compositional", "sub_mul_div"])
def test_division_leaves_no_remainder_and_an_answer_of_at_least_two(name: str) -> None:
    divisions = [p for e in rows(name) for p in (e.clean, e.corrupted) if "/" in p]
    assert divisions
    for prompt in divisions:
        dividend, divisor = prompt.removeprefix(INSTRUCTION).removesuffix(" =").split("/")
        assert eval(dividend) % int(divisor) == 0
        assert eval(dividend) // int(divisor) >= 2


@pytest.mark.parametrize("name", ["add_sub", "sub_add_sub"])
def test_add_sub_corruption_flips_the_operator_alone(name: str) -> None:
    for example in rows(name):
        flip = str.maketrans("+-", "-+")
        assert example.corrupted == example.clean.translate(flip)
        first, _, second = TERM.search(example.clean).groups()  # type: ignore[union-attr]
        assert 100 >= int(first) >= int(second) >= 1


def test_add_sub_prompts_and_their_flips_stay_in_one_split() -> None:
    splits = generate({"family": "add_sub", "max_operand": 25})
    everything = {split: {p for e in m for p in (e.clean, e.corrupted)} for split, m in splits.items()}
    assert not everything["train"] & everything["test"]
    assert not everything["train"] & everything["circuit"]
    assert not everything["circuit"] & everything["test"]


@pytest.mark.parametrize("name", ["mul_div", "sub_mul_div"])
def test_mul_div_corruption_replaces_the_first_operand_alone(name: str) -> None:
    for example in rows(name):
        clean, corrupted = TERM.search(example.clean), TERM.search(example.corrupted)
        assert clean is not None
        assert corrupted is not None
        assert clean.groups()[1:] == corrupted.groups()[1:]


def test_sequences_follow_their_rule_and_one_late_term_is_corrupted() -> None:
    for example in rows("sequence"):
        terms = [int(t) for t in re.findall(r"\d+", example.clean + example.answer)]
        assert len(terms) == 5
        steps = {b - a for a, b in pairwise(terms)}
        ratios = {b / a for a, b in pairwise(terms)}
        assert len(steps) == 1 or len(ratios) == 1
        shown = [int(t) for t in re.findall(r"\d+", example.corrupted)]
        changed = [i for i in range(4) if shown[i] != terms[i]]
        assert changed in ([2], [3])
        assert 1 <= shown[changed[0]] - terms[changed[0]] <= 100
        assert int(example.corrupted_answer) == shown[3] + (shown[3] - shown[2])


def geometric_sequences() -> int:
    """By hand: start 1..10, ratio 2..10, and a fifth term of at most 500."""
    return sum(start * ratio**4 <= 500 for start in range(1, 11) for ratio in range(2, 11))


@pytest.mark.parametrize("settings", [{}, {"max_term": 500}, {"train": 2000, "circuit": 200, "test": 300}])
def test_all_geometric_sequences_are_taken_and_every_split_has_its_share(settings: dict[str, int]) -> None:
    splits = generate({"family": "sequence"}, **settings)
    kinds = {split: Counter(example.kind for example in members) for split, members in splits.items()}
    share = geometric_sequences() / sum(map(len, splits.values()))
    assert sum(count["geometric"] for count in kinds.values()) == geometric_sequences() == 17
    for split, members in splits.items():
        assert abs(kinds[split]["geometric"] - share * len(members)) <= 2, split
        assert kinds[split]["geometric"] >= 1


def test_geometric_sequences_are_at_most_half() -> None:
    splits = generate({"family": "sequence"}, train=14, circuit=4, test=6)
    for members in splits.values():
        kinds = Counter(example.kind for example in members)
        assert kinds["geometric"] == kinds["arithmetic"]


def test_kinds_of_sequences_say_what_they_are() -> None:
    for example in rows("sequence"):
        first, second, third, *_ = (int(term) for term in re.findall(r"\d+", example.clean))
        assert example.kind == ("arithmetic" if second - first == third - second else "geometric")


def kind_of(name: str, example: Example) -> str:
    """A slow second opinion, from the prompt alone."""
    if name == "lcm":
        pair = [int(number) for number in re.findall(r"\d+", example.clean)][-2:]
        divisor = math.gcd(*pair)
        return "multiple" if divisor == min(pair) else "coprime" if divisor == 1 else "common factor"
    if name in {"function", "capital_country"}:
        return {"function": "function", "capital_country": "country"}[name]
    if name == "comparison":
        first, second = (int(number) for number in re.findall(r"\d+", example.clean))
        return "greater" if first > second else "smaller"
    if name == "complex_ioi":
        return "first" if example.clean.startswith(example.answer.strip()) else "second"
    return re.sub(r"[^-+*/]", "", example.clean.removeprefix(INSTRUCTION))


@pytest.mark.parametrize("name", [name for name in TASKS if name != "sequence"])
def test_every_example_has_the_kind_that_its_prompt_shows(name: str) -> None:
    for example in rows(name):
        assert example.kind == kind_of(name, example)


def test_lcm_prompts_are_right_and_query_pairs_stay_in_one_split() -> None:
    homes: dict[tuple[int, ...], str] = {}
    kinds: Counter[str] = Counter()
    for split, members in splits_of("lcm").items():
        for example in members:
            a, b, shown, c, d = map(int, re.findall(r"\d+", example.clean))
            assert math.lcm(a, b) == shown
            assert example.answer == f" {math.lcm(c, d)}"
            *demonstration, e, f = map(int, re.findall(r"\d+", example.corrupted))
            assert demonstration == [a, b, shown]
            assert example.corrupted_answer == f" {math.lcm(e, f)}"
            assert homes.setdefault(tuple(sorted((c, d))), split) == split
            g = math.gcd(c, d)
            kinds["coprime" if g == 1 else "multiple" if g == min(c, d) else "common"] += 1
    assert max(kinds.values()) - min(kinds.values()) <= 1


def test_functions_are_right_and_the_corruption_replaces_the_intercept() -> None:
    form = re.compile(r"There is a function y=(\d+)x\+(\d+)\. Given x=1,2,3,4, y=(\d+),(\d+),(\d+),$")
    for example in rows("function"):
        slopes = []
        for prompt, answer in ((example.clean, example.answer), (example.corrupted, example.corrupted_answer)):
            slope, intercept, *shown = map(int, form.match(prompt).groups())  # type: ignore[union-attr]
            assert [*shown, int(answer)] == [slope * x + intercept for x in (1, 2, 3, 4)]
            assert not answer.startswith(" "), "the list in the prompt has no spaces either"
            slopes.append(slope)
        assert slopes[0] == slopes[1]


def test_compositional_corruption_changes_the_last_number_alone() -> None:
    for example in rows("compositional"):
        clean, corrupted = compositional.read(example.clean), compositional.read(example.corrupted)
        assert (clean.first, clean.inner, clean.second, clean.outer) == (
            corrupted.first, corrupted.inner, corrupted.second, corrupted.outer,
        )  # fmt: skip
        assert clean.middle >= 2


def test_comparisons_are_right_and_swapped_and_each_answer_is_half() -> None:
    for members in splits_of("comparison").values():
        for example in members:
            first, second = (int(number) for number in re.findall(r"\d+", example.clean))
            assert example.clean == f"Is {first} > {second}? Answer:"
            assert example.corrupted == f"Is {second} > {first}? Answer:"
            assert example.answer == (" Yes" if first > second else " No")
            assert {example.answer, example.corrupted_answer} == {" Yes", " No"}
        counts = Counter(example.answer for example in members)
        assert abs(counts[" Yes"] - counts[" No"]) <= 1


def test_who_gets_the_object_follows_from_the_scene_and_the_corruption_hands_over_the_other() -> None:
    scene = re.compile(r"(\w+) needed (\w+), (\w+) wanted (\w+), (\w+) handed (\w+) to$")
    homes: dict[tuple[str, ...], str] = {}
    for split, members in splits_of("complex_ioi").items():
        for example in members:
            owners = []
            for prompt, answer in ((example.clean, example.answer), (example.corrupted, example.corrupted_answer)):
                one, first, other, second, giver, given = scene.match(prompt).groups()  # type: ignore[union-attr]
                assert answer == f" { {first: one, second: other}[given] }"
                assert len({one, other, giver}) == 3
                assert first != second
                owners.append((one, first, other, second, giver))
            assert owners[0] == owners[1]
            assert homes.setdefault(owners[0], split) == split


def capitals_asked(splits: Splits) -> dict[str, list[tuple[str, str, str]]]:
    """The worked country, the country that is asked for and that of the corrupted prompt, by split."""
    form = re.compile(r"If (.+) corresponds to (.+), then (.+) corresponds to$")
    found: dict[str, list[tuple[str, str, str]]] = {}
    for split, members in splits.items():
        for example in members:
            worked, capital, asked = form.match(example.clean).groups()  # type: ignore[union-attr]
            other_worked, _, other = form.match(example.corrupted).groups()  # type: ignore[union-attr]
            assert (capital, example.answer) == (CAPITALS[worked], f" {CAPITALS[asked]}")
            assert (other_worked, example.corrupted_answer) == (worked, f" {CAPITALS[other]}")
            assert len({worked, asked, other}) == 3
            found.setdefault(split, []).append((worked, asked, other))
    return found


def test_capitals_are_right_and_no_two_splits_have_the_same_two_countries() -> None:
    homes: dict[frozenset[str], str] = {}
    for split, members in capitals_asked(splits_of("capital_country")).items():
        for worked, asked, _ in members:
            assert homes.setdefault(frozenset((worked, asked)), split) == split


def test_held_out_countries_are_asked_for_in_one_split_alone_and_given_in_none() -> None:
    asked = capitals_asked(generate({"family": "capital_country"}, held_out="countries"))
    countries = {split: {country for _, country, _ in members} for split, members in asked.items()}
    worked = {country for members in asked.values() for country, _, _ in members}
    for one, other in (("train", "circuit"), ("train", "test"), ("circuit", "test")):
        assert not countries[one] & countries[other]
    assert not worked & set().union(*countries.values())
    assert min(map(len, countries.values())) >= 3


def test_the_list_of_capitals_has_each_country_and_each_capital_once() -> None:
    assert len(CAPITALS) > 140
    assert len(set(CAPITALS.values())) == len(CAPITALS)
    assert not set(CAPITALS) & set(CAPITALS.values())


@pytest.mark.parametrize("name", ["complex_ioi", "capital_country", "comparison"])
def test_families_of_words_are_refused_where_the_tokenizer_lacks_the_words(name: str) -> None:
    numbers_alone = Encoding(lambda text: [0], lambda text: [0], unknown_id=0)
    task = TypeAdapter(TaskConfig).validate_python({**TASKS[name], **SIZES})
    with pytest.raises(TaskError, match="fit this model's tokenizer"):
        generate_examples(task, numbers_alone)


@pytest.mark.parametrize("part", ["add_sub", "mul_div"])
def test_sub_task_prompts_are_steps_of_the_parents_items_of_the_same_split(part: str) -> None:
    for split in SPLITS:
        items = [compositional.read(e.clean) for e in splits_of("compositional")[split]]
        steps = {getattr(item, part)().clean.prompt for item in items}
        found = {e.clean for e in splits_of(f"sub_{part}")[split]}
        assert found
        assert found <= steps


def test_scarce_examples_leave_train_at_least_half_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        splits = generate({"family": "add_sub", "max_operand": 20}, train=4000, circuit=200, test=500)
    sizes = {split: len(members) for split, members in splits.items()}
    assert sizes["train"] >= sum(sizes.values()) / 2
    assert sizes["test"] > sizes["circuit"] > 0
    assert "asked for 4700 examples" in caplog.text


@pytest.mark.parametrize("total", [4, 5, 10, 100, 701, 1399, 1400, 1401, 4699, 4700])
def test_allotted_sizes_are_used_up_and_never_more_than_asked(total: int) -> None:
    task = TypeAdapter(TaskConfig).validate_python({"family": "add_sub"})
    sizes = allot(total, task)
    assert sum(sizes.values()) == total
    assert min(sizes.values()) >= 1
    assert sizes["train"] >= total / 2
    assert sizes["circuit"] <= 200
    assert sizes["test"] <= 500
    if total >= 1400:
        assert (sizes["circuit"], sizes["test"]) == (200, 500)


@pytest.mark.parametrize(
    "raw", [{"family": "sequence"}, {"family": "lcm"}, {"family": "mul_div", "max_result": 99}, {"family": "add_sub"}]
)
def test_a_tokenizer_that_splits_numbers_is_refused_with_the_reason(raw: dict[str, object]) -> None:
    digits = word_level(None)
    task = TypeAdapter(TaskConfig).validate_python({**raw, "train": 4000})
    with pytest.raises(TaskError, match="tokenizer keeps numbers whole"):
        generate_examples(task, digits)
