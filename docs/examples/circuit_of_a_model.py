"""From a Hugging Face model and a file of prompts to edge scores, a circuit, its faithfulness and its reliability."""

import sys
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from circuitdrift.circuits.metrics import measure_circuits, summarise
from circuitdrift.circuits.prompts import prompt_pairs
from circuitdrift.circuits.scoring import score_prompts
from circuitdrift.circuits.selection import edge_table, select_circuit
from circuitdrift.config.circuits import Attribution, Faithfulness, Selection
from circuitdrift.decoder.anatomy import anatomy_of
from circuitdrift.drift.fold_circuits import edges_by_fold, features_of_circuits
from circuitdrift.drift.recipes import tabulate_recipe_reliability
from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.from_file import FileTask
from circuitdrift.tasks.generation import generate_examples

name, prompt_file = sys.argv[1:]
anatomy = anatomy_of(AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32))
encoding = Encoding.of(AutoTokenizer.from_pretrained(name))
splits = generate_examples(FileTask(family="file", path=Path(prompt_file), train=1, circuit=200, test=100), encoding)
prompts = {split: prompt_pairs(pd.DataFrame(map(vars, examples))) for split, examples in splits.items()}

scores = score_prompts(anatomy, prompts["circuit"], Attribution(steps=5))
choice = Selection(fraction=0.05)
circuit = select_circuit(anatomy.graph, scores.scores, choice)
edges = edge_table(anatomy.graph, scores.scores, circuit)
print(edges[edges["in_circuit"]].sort_values("score", key=abs, ascending=False))

outcome = measure_circuits(anatomy, prompts["test"], circuit[None], Faithfulness())[0]
print(pd.DataFrame([summarise(metric, values, 1000) for metric, values in outcome.items()]))

folds = edges_by_fold(anatomy.graph, scores.by_fold, scores.fold_sizes)
noise = tabulate_recipe_reliability({name: folds}, features_of_circuits(anatomy.graph, choice), half_splits=100)
print(noise[["level", "measure", "examples", "within", "lower", "upper"]])
