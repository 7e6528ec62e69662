"""Made-up but plausible tables of a study, written as the workflow writes them, for the tests of figures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from circuitdrift.config.methods import MethodConfig
from circuitdrift.drift.edge_changes import change_of
from circuitdrift.figures.labels import MethodLabels
from circuitdrift.provenance import Provenance
from circuitdrift.schemas import SCHEMAS
from circuitdrift.storage import read_table, write_table

PARAMETERS = {
    "lora_r2": 24_576,
    "lora_r8": 98_304,
    "lora_r16": 196_608,
    "circuit_lora_8_32": 196_608,
    "random_lora_8_32": 196_608,
    "full": 1_347_584,
}
_CRITICAL = {"rank": 8, "critical_rank": 32, "critical_layers": 2}
METHODS = TypeAdapter(dict[str, MethodConfig]).validate_python(
    {
        "full": {"kind": "full"},
        **{f"lora_r{rank}": {"kind": "lora", "rank": rank} for rank in (16, 2, 8)},
        "random_lora_8_32": {"kind": "random_lora", **_CRITICAL},
        "circuit_lora_8_32": {"kind": "circuit_lora", "phase_1": "lora_r2", **_CRITICAL},
    }
)
LABELS = MethodLabels(METHODS)
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
METRICS = ("kl_model_circuit", "kl_from_corrupted", "accuracy", "logit_difference")


@dataclass(frozen=True)
class MadeUpStudy:
    """Writes the tables of a study under a folder; every number is drawn from ``default_rng(0)``."""

    folder: Path
    tasks: Sequence[str] = ("add_sub_100", "sequence", "compositional")
    methods: Sequence[str] = ("lora_r2", "lora_r16", "circuit_lora_8_32", "random_lora_8_32")
    seeds: Sequence[int] = (0, 1)
    models: Sequence[str] = ("tiny-neox",)
    n_checkpoints: int = 10
    n_layers: int = 6
    n_heads: int = 4
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @property
    def checkpoints(self) -> list[str]:
        return [f"{number:02d}" for number in range(self.n_checkpoints + 1)]

    def runs(self) -> Iterator[dict[str, str]]:
        for model, task, method, seed in product(self.models, self.tasks, self.methods, self.seeds):
            yield {"model": model, "task": task, "method": method, "seed": str(seed)}

    def write(self, name: str, table: pd.DataFrame, schema: str, /, **wildcards: str) -> Path:
        path = self.folder.joinpath(*wildcards.values(), f"{name}.parquet")
        write_table(path, table, schema, Provenance.detached(**wildcards))
        return path

    def accuracy(self) -> list[Path]:
        paths = []
        ceilings = {run: 0.5 + 0.45 * self.rng.random() for run in product(self.tasks, self.methods)}
        for run in self.runs():
            ceiling = ceilings[run["task"], run["method"]] + 0.03 * self.rng.normal()
            at = np.linspace(0, 1, len(self.checkpoints))
            accuracy = np.clip(0.1 + (ceiling - 0.1) * (1 - np.exp(-4 * at)), 0, 1)
            error = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 500)
            table = pd.DataFrame({"checkpoint": self.checkpoints, "step": range(0, 50 * len(at), 50)})
            table = table.assign(split="test", n=500, accuracy=accuracy, lower=accuracy - error, upper=accuracy + error)
            parameters = PARAMETERS[run["method"]]
            table = table.assign(trainable_parameters=parameters, trainable_share=parameters / 1_400_000)
            paths.append(self.write("accuracy", table, "accuracy", **run))
        return paths

    def predictions(self, n_prompts: int = 100) -> list[Path]:
        """At the last checkpoint all methods are right on even prompts; CircuitLoRA also on every tenth odd prompt."""
        prompts, last = np.arange(n_prompts), self.checkpoints[-1]
        paths = []
        for run in self.runs():
            extra = (prompts % 20 == 2 * int(run["seed"]) + 1) & run["method"].startswith("circuit_lora")
            at_end = (prompts % 2 == 0) | extra
            tables = [
                pd.DataFrame({"checkpoint": name, "example_id": prompts + 7, "correct": at_end & (name == last)})
                for name in self.checkpoints
            ]
            paths.append(self.write("predictions", pd.concat(tables), "predictions", **run))
        return paths

    def training_logs(self) -> list[Path]:
        """Three steps a run: 100, 200 and 300 tokens, and thrice as many FLOPs as tokens times the method's rank."""
        paths = []
        for run in self.runs():
            rank = int(run["method"].rsplit("r", 1)[-1].split("_")[-1])
            tokens = np.array([100, 200, 300]) + int(run["seed"])
            table = pd.DataFrame({"step": [1, 2, 3], "epoch": 0.1, "loss": 1.0, "learning_rate": 0.1})
            table = table.assign(gradient_norm=1.0, tokens=tokens, seconds=np.nan, flops=3 * rank * tokens)
            paths.append(self.write("training_log", table, "training_log", **run))
        return paths

    def faithfulness(self) -> list[Path]:
        paths = []
        bases = [{"model": m, "task": t, "checkpoint": "00"} for m, t in product(self.models, self.tasks)]
        later = [{**run, "checkpoint": name} for run in self.runs() for name in self.checkpoints[1:]]
        for wildcards in [*bases, *later]:
            rows = []
            for fraction, metric in product(FRACTIONS, METRICS):
                value = np.clip(
                    (0.9 if metric != "kl_model_circuit" else 0.75) + 0.1 * np.log10(fraction / 0.05), -1, 1
                )
                value += 0.03 * self.rng.normal()
                rows.append(
                    (
                        fraction,
                        int(2000 * fraction),
                        fraction == 0.05,
                        metric,
                        0.0,
                        0.2,
                        1.0,
                        value,
                        value - 0.03,
                        value + 0.03,
                    )
                )
            columns = [
                "size_fraction",
                "n_edges",
                "own_circuit",
                "metric",
                "full",
                "circuit",
                "corrupted",
                "faithfulness",
                "lower",
                "upper",
            ]
            paths.append(self.write("faithfulness", pd.DataFrame(rows, columns=columns), "faithfulness", **wildcards))
        return paths

    def faithfulness_areas(self) -> list[Path]:
        """CPR 0.8 of the base model, of runs 0.85 and 0.1 more for each seed; CMD is what it lacks to 1."""
        paths = []
        bases = [{"model": m, "task": t, "checkpoint": "00"} for m, t in product(self.models, self.tasks)]
        for wildcards in [*bases, *({**run, "checkpoint": self.checkpoints[-1]} for run in self.runs())]:
            cpr = 0.85 + 0.1 * int(wildcards["seed"]) if "seed" in wildcards else 0.8
            rows = [
                (metric, area, value, value - 0.05, value + 0.05, len(FRACTIONS), FRACTIONS[0], FRACTIONS[-1])
                for metric in METRICS
                for area, value in (("cpr", cpr), ("cmd", 1 - cpr))
            ]
            columns = ["metric", "area", "value", "lower", "upper", "n_sizes", "smallest", "largest"]
            table = pd.DataFrame(rows, columns=columns)
            paths.append(self.write("faithfulness_areas", table, "faithfulness_areas", **wildcards))
        return paths

    def transitions(self) -> list[Path]:
        paths = []
        for run in self.runs():
            rows = []
            for step, (before, after) in enumerate(pairwise(self.checkpoints)):
                for level, initial, scale in (("node", 25, 4), ("edge", 130, 45)):
                    added, removed = self.rng.poisson(scale * np.exp(-0.25 * step), 2)
                    rows.append((before, after, level, initial, added, removed, added + removed, 0.7))
            columns = ["from_checkpoint", "to_checkpoint", "level", "initial", "added", "removed", "changed", "jaccard"]
            paths.append(self.write("transitions", pd.DataFrame(rows, columns=columns), "transitions", **run))
        return paths

    def summary(self) -> list[Path]:
        paths = []
        for run in self.runs():
            values = {("node", "rate_net"): 0.12, ("edge", "rate_net"): 0.45}
            values |= {("node", "rate_cumulative"): 0.7, ("edge", "rate_cumulative"): 2.1, ("edge", "rate_mean"): 0.2}
            rows = [
                (self.checkpoints[0], self.checkpoints[-1], level, measure, value * (1 + 0.15 * self.rng.normal()))
                for (level, measure), value in values.items()
            ]
            columns = ["from_checkpoint", "to_checkpoint", "level", "measure", "value"]
            paths.append(self.write("summary", pd.DataFrame(rows, columns=columns), "summary", **run))
        return paths

    def controls(self) -> list[Path]:
        paths = []
        last = self.checkpoints[-1]
        kinds = [("other_seed", last, 0.1, 0.38), ("data_split", last, 0.05, 0.17), ("data_split", "00", 0.04, 0.14)]
        kinds.append(("random_circuit", "none", 0.2, 1.8))
        for model, task, method in product(self.models, self.tasks, self.methods):
            rows = []
            for control, checkpoint, node, edge in kinds:
                for level, initial, rate in (("node", 25, node), ("edge", 130, edge)):
                    noisy = rate * (1 + 0.1 * self.rng.normal())
                    rows.append((control, checkpoint, 0, 1, level, initial, int(initial * noisy), noisy, 0.6))
            columns = ["control", "checkpoint", "seed_a", "seed_b", "level", "initial", "changed", "rate", "jaccard"]
            table = pd.DataFrame(rows, columns=columns)
            table = table.assign(pairing="two circuits", n=1, examples=100, ruzicka=0.7, spearman=0.8, pearson=0.9)
            paths.append(self.write("controls", table, "controls", model=model, task=task, method=method))
        return paths

    def reliability(self) -> list[Path]:
        """Within .8, between .5 for edges (excess .3) and .7 for nodes; seed s adds .01 s; 300 prompts for .8."""
        paths = []
        net = [(self.checkpoints[0], self.checkpoints[-1], n) for n in (25, 50, 100)]
        steps = [(*pair, 100) for pair in pairwise(self.checkpoints) if self.n_checkpoints > 1]
        for run in self.runs():
            shift = 0.01 * int(run["seed"])
            rows = []
            for (before, after, n), level, measure in product(net + steps, ("edge", "node"), ("jaccard", "pearson")):
                between = (0.5 if level == "edge" else 0.7) - shift
                excess, pearson = 0.8 - between, measure == "pearson"
                further = (between / 0.8, 0.01, 300.0, 675.0) if pearson else (np.nan, 0.01, np.nan, np.nan)
                similarities = (0.75, 0.85, between, 0.9, excess, excess - 0.05, excess + 0.05)
                rows.append((before, after, level, measure, n, *similarities, *further))
            columns = ["from_checkpoint", "to_checkpoint", "level", "measure", "examples", "within_before"]
            columns += ["within_after", "between", "paired", "excess", "lower", "upper", "corrected", "p_value"]
            table = pd.DataFrame(rows, columns=[*columns, "prompts_for_80", "prompts_for_90"])
            paths.append(self.write("reliability", table, "reliability", **run))
        return paths

    def edge_counts(self) -> list[Path]:
        """Of 300 merged edges 40 kept, 6 + seed gained, 4 lost, 30 undecided; two of them change in each seed.

        The circuits of all prompts share 50 edges; 20 are added and 18 removed. Resample Jaccard .85 and .7.
        """
        paths = []
        for run in self.runs():
            seed = int(run["seed"])
            gained = ["a -> b", *(f"s{seed} -> {number}" for number in range(5 + seed))]
            counts = {"kept": 40, "gained": 6 + seed, "lost": 4, "undecided": 30, "outside": 220 - seed}
            plain = {"in_both": 50, "added": 20, "removed": 18, "jaccard_before": 0.85, "jaccard_after": 0.7}
            row = {
                "from_checkpoint": self.checkpoints[0],
                "to_checkpoint": self.checkpoints[-1],
                "examples": 200,
                "resamples": 200,
                "n_edges": 600,
                "changed_beyond_margin": 90,
                "cutoff": 0.004,
                "n_merged_edges": 300,
                **counts,
                "gained_edges": gained,
                "lost_edges": ["c -> d", *(f"s{seed} -> {name}" for name in "xyz")],
                **plain,
            }
            paths.append(self.write("edge_counts", pd.DataFrame([row]), "edge_counts", **run))
        return paths

    def functional(self) -> list[Path]:
        """Own circuits .8, others .1 less for each checkpoint between, shared .6, random .05, other seeds .7.

        Seed s adds .01 s to all but the own circuits. Intervals of faithfulness reach .04 to either side, those of
        differences .02.
        """
        paths = []
        for run in self.runs():
            seed, rows = int(run["seed"]), []
            others = [(self.checkpoints[-1], other, 0.7) for other in self.seeds if other != seed]
            for number, model in enumerate(self.checkpoints):
                cells = [(name, seed, 0.8 - 0.1 * abs(number - i)) for i, name in enumerate(self.checkpoints)]
                cells += [("shared", seed, 0.6), ("random", seed, 0.05)]
                cells += others if model == self.checkpoints[-1] else []
                for (circuit, of_seed, value), metric in product(cells, METRICS):
                    own = (circuit, of_seed) == (model, seed)
                    found = value + 0.01 * seed * (not own)
                    apart = found - 0.8
                    half = 0.0 if own else 0.02
                    size = 30 if circuit == "shared" else 54
                    rows.append((model, circuit, of_seed, size, 100, metric, found, found - 0.04, found + 0.04))
                    rows[-1] += (apart, apart - half, apart + half)
            columns = ["model_checkpoint", "circuit_checkpoint", "circuit_seed", "n_edges", "examples", "metric"]
            columns += ["faithfulness", "lower", "upper", "difference", "difference_lower", "difference_upper"]
            paths.append(self.write("functional", pd.DataFrame(rows, columns=columns), "functional", **run))
        return paths

    def model_controls(self) -> list[Path]:
        """Two sides of within .8 and .9: between .6 by the wording, .2 for untrained models, .1 for two of them."""
        pairs = [("wording", "base", "reworded", 0.6), ("untrained_seeds", "untrained-0", "untrained-1", 0.1)]
        pairs += [("untrained", "base", f"untrained-{seed}", 0.2) for seed in range(2)]
        columns = ["control", "before", "after", "level", "measure", "examples", "within_before", "within_after"]
        columns += ["between", "paired", "excess", "lower", "upper", "p_value"]
        paths = []
        for model, task in product(self.models, self.tasks):
            rows = [
                (*sides, level, measure, n, 0.8, 0.9, between, 0.7, excess, excess - 0.1, excess + 0.1, 0.01)
                for (*sides, between), level, measure, n in product(
                    pairs, ("edge", "node"), ("jaccard", "pearson"), (50, 100)
                )
                for excess in [0.85 - between]
            ]
            table = pd.DataFrame(rows, columns=columns)
            paths.append(self.write("model_controls", table, "model_controls", model=model, task=task))
        return paths

    def recipes(self) -> tuple[list[Path], list[Path], list[Path], list[dict[str, str]]]:
        """Reliability, faithfulness and benchmarks of ``own`` and ``ceap``, which is better by .1 and twice as slow."""
        reliability, faithfulness, benchmarks, scorings = [], [], [], []
        for model, task in product(self.models, self.tasks):
            rows, runs = [], []
            for recipe, better in (("own", 0.0), ("ceap", 0.1)):
                bounds = (better, better and 0.05, better and 0.15)
                for n, level, measure in product((50, 100), ("edge", "node"), ("jaccard", "spearman", "pearson")):
                    within = 0.6 + better + n / 1000
                    needed = 150.0 if measure == "pearson" else np.nan
                    rows.append((recipe, level, measure, n, within, within - 0.1, within + 0.1, *bounds, 0.9, needed))
                for metric in METRICS:
                    runs.append((recipe, 50, metric, 0.0, 0.3, 1.0, 0.7 + better, 0.6, 0.8, *bounds))
                path = self.folder / f"{model}-{task}-{recipe}.tsv"
                path.parent.mkdir(parents=True, exist_ok=True)
                seconds = 20 if better else 10
                path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:{seconds}\t1\n")
                benchmarks.append(path)
                scorings.append({"model": model, "task": task, "recipe": recipe})
            bounds_of = ["lower", "upper", "difference", "difference_lower", "difference_upper"]
            columns = ["recipe", "level", "measure", "examples", "within", *bounds_of]
            table = pd.DataFrame(rows, columns=[*columns, "similarity_to_own", "prompts_for_80"])
            reliability.append(self.write("recipe_reliability", table, "recipe_reliability", model=model, task=task))
            columns = ["recipe", "n_edges", "metric", "full", "circuit", "corrupted", "faithfulness", *bounds_of]
            table = pd.DataFrame(runs, columns=columns)
            faithfulness.append(self.write("recipe_faithfulness", table, "recipe_faithfulness", model=model, task=task))
        return reliability, faithfulness, benchmarks, scorings

    def recipe_areas(self) -> list[Path]:
        """Areas of ``own`` and ``gim``, whose CPR is larger and whose CMD is smaller by .1; no logit differences."""
        paths = []
        for model, task in product(self.models, self.tasks):
            rows = []
            for recipe, better in (("own", 0.0), ("gim", 0.1)):
                for metric, (area, value, sign) in product(METRICS, (("cpr", 0.8, 1), ("cmd", 0.2, -1))):
                    value = np.nan if metric == "logit_difference" else value + sign * better
                    less = value * 0 + sign * better
                    rows.append((recipe, metric, area, value, value - 0.1, value + 0.1, less, less - 0.05, less + 0.05))
            bounds = ["value", "lower", "upper", "difference", "difference_lower", "difference_upper"]
            table = pd.DataFrame(rows, columns=["recipe", "metric", "area", *bounds])
            table = table.assign(n_sizes=10, smallest=0.001, largest=1.0)
            paths.append(self.write("recipe_areas", table, "recipe_areas", model=model, task=task))
        return paths

    def nodes_and_edges(self) -> list[Path]:
        """By Jaccard edges drift twice as far as expected, with small errors; Pearson has no errors at all."""
        paths = []
        for run in self.runs():
            rows = []
            for examples, measure in product((50, 100), ("jaccard", "pearson")):
                edges = 0.4 + 0.01 * int(run["seed"])
                error = 1e-5 if measure == "jaccard" else np.nan
                numbers = (edges, 0.1, 0.2, 0.1, 0.2, edges / 0.1, 2.0, 2.0, error, error, 0.0, error, 2.0, 1.5, 2.5)
                rows.append((self.checkpoints[0], self.checkpoints[-1], measure, examples, 16, *numbers))
            columns = SCHEMAS["nodes_and_edges"].names
            paths.append(self.write("nodes_and_edges", pd.DataFrame(rows, columns=columns), "nodes_and_edges", **run))
        return paths

    def union_faithfulness(self, unrelated: bool = True) -> list[Path]:
        """At 5 % of the edges own .9, union .8, intersection .3, random -.1 and 0, unrelated .1, and .01 for a seed."""
        heights = {("own", 0): 0.9, ("union", 0): 0.8, ("intersection", 0): 0.3, ("random_union", 0): -0.1}
        heights |= {("random_union", 1): 0.0} | ({("unrelated_union", 0): 0.1} if unrelated else {})
        paths = []
        for run in self.runs():
            rows = []
            for checkpoint, fraction, metric in product(
                (self.checkpoints[0], self.checkpoints[-1]), FRACTIONS, METRICS
            ):
                for (circuit, draw), height in heights.items():
                    value = height + 0.1 * np.log10(fraction / 0.05) + 0.01 * int(run["seed"])
                    n_edges = int(2000 * fraction) - 5 * (circuit != "own")
                    bounds = (value, value - 0.03, value + 0.02, height - 0.9, height - 0.95, height - 0.85)
                    rows.append((checkpoint, circuit, draw, fraction, n_edges, metric, *bounds))
            table = pd.DataFrame(rows, columns=SCHEMAS["union_faithfulness"].names)
            paths.append(self.write("union_faithfulness", table, "union_faithfulness", **run))
        return paths

    def overlaps(self, sizes: Sequence[int] = (100, 200, 300)) -> list[Path]:
        """Two sub-tasks, inner and outer; the union shares 70 % of the edges, others less, and 1 more for a seed."""
        pairs = {("own", "union"): 0.7, ("own", "intersection"): 0.5, ("own", "inner"): 0.6, ("own", "outer"): 0.4}
        pairs[("inner", "outer")] = 0.3
        paths = []
        for run in self.runs():
            rows = [
                (checkpoint, first, second, k, round(share * k) + int(run["seed"]), k * k / 1000)
                for checkpoint in self.checkpoints
                for (first, second), share in pairs.items()
                for k in sizes
                if second != "intersection" or k < 300
            ]
            table = pd.DataFrame(rows, columns=SCHEMAS["overlaps"].names)
            paths.append(self.write("overlaps", table, "overlaps", **run))
        return paths

    def layers(self) -> list[Path]:
        paths = []
        pairs = [*pairwise(self.checkpoints), (self.checkpoints[0], self.checkpoints[-1])]
        for run in self.runs():
            rows = []
            for (before, after), layer, level in product(pairs, range(self.n_layers), ("node", "edge")):
                added, removed = self.rng.poisson(12 * np.exp(-0.3 * layer) + 2, 2)
                change = np.exp(-0.4 * layer) * (1 + 0.2 * self.rng.random()) if level == "edge" else np.nan
                rows.append((before, after, layer, level, added, removed, *2 * (change, change / 4)))
            columns = ["from_checkpoint", "to_checkpoint", "layer", "level", "added", "removed"]
            columns += ["score_change", "score_change_normalised"]
            columns += ["score_change_at_target", "score_change_normalised_at_target"]
            paths.append(self.write("layers", pd.DataFrame(rows, columns=columns), "layers", **run))
        return paths

    def critical_layers(self) -> list[Path]:
        """Two critical layers of each policy: in_top .98 and .7; of the others the first has .3 and the rest .01."""
        paths = []
        for run in self.runs():
            if not run["method"].startswith("circuit_lora"):
                continue
            wildcards = {"model": run["model"], "task": run["task"], "name": run["method"], "seed": run["seed"]}
            frames = []
            for policy, unit in (("score_change", 8.0), ("score_change_normalised", 0.4), ("excess", 2e-3)):
                value = unit * np.sort(self.rng.random(self.n_layers))[::-1]
                order = np.arange(1, self.n_layers + 1)
                in_top = np.array([0.98, 0.7, 0.3, *[0.01] * (self.n_layers - 3)])[: self.n_layers]
                described = {"layer": self.rng.permutation(self.n_layers), "policy": policy, "value": value}
                described |= {"rank_order": order, "critical": order <= 2, "credit": "source", "in_top": in_top}
                described["above_threshold"] = value > value.mean() + value.std()
                spread = {"lower": value - 0.1 * unit, "upper": value + 0.15 * unit}
                frames.append(pd.DataFrame(described | spread))
            paths.append(self.write("critical_layers", pd.concat(frames), "critical_layers", **wildcards))
        return paths

    def test_splits(self) -> list[Path]:
        ids = [[1]] * 4
        paths = []
        for model, task in product(self.models, self.tasks):
            table = pd.DataFrame(
                {"example_id": range(4), "clean": "2 + 2 =", "corrupted": "2 - 2 =", "corrupted_answer": " 0"}
            )
            table["answer"] = [" 4", " 4", " 4", " 5"]
            for column in ("clean_ids", "corrupted_ids", "answer_ids", "corrupted_answer_ids"):
                table[column] = ids
            paths.append(self.write("test", table, "examples", model=model, task=task))
        return paths

    def circuit(self, checkpoint: str, fraction: float = 0.1, strength: float = 1.0) -> tuple[Path, Path]:
        """An edges and a nodes table of a parallel decoder; later circuits share scores with the first."""
        edges, nodes = parallel_graph(self.n_layers, self.n_heads)
        shared = np.random.default_rng(1).standard_cauchy(len(edges))
        score = shared + strength * (checkpoint != "00") * self.rng.standard_cauchy(len(edges))
        edges = edges.assign(score=score, in_circuit=np.abs(score) >= np.quantile(np.abs(score), 1 - fraction))
        kept = edges[edges["in_circuit"]]
        nodes = nodes.assign(in_circuit=nodes["node"].isin({*kept["source"], *kept["target"]}))
        return (
            self.write("edges", edges, "edges", checkpoint=checkpoint),
            self.write("nodes", nodes, "nodes", checkpoint=checkpoint),
        )

    def edges_changed(self, before: Path, after: Path) -> Path:
        """The classes of the edges of two edges tables, from shares of resamples that are near those circuits."""
        tables = [read_table(path, "edges") for path in (before, after)]
        names = tables[0][["source", "target", "qkv"]]
        shares = [np.where(table["in_circuit"], 1.0, 0.0) for table in tables]
        unsure = self.rng.random(len(names)) < 0.2
        shares = [np.where(unsure, 0.4, share) for share in shares]
        merged = [
            share_of.groupby([names["source"], names["target"]]).transform("max") for share_of in map(pd.Series, shares)
        ]
        table = names.assign(
            score_before=tables[0]["score"],
            score_after=tables[1]["score"],
            effect=0.0,
            effect_lower=-0.5,
            effect_upper=0.5,
            q_value=1.0,
            included_before=shares[0],
            included_after=shares[1],
            change=change_of(*shares),
            merged_included_before=merged[0],
            merged_included_after=merged[1],
            merged_change=change_of(*(share.to_numpy() for share in merged)),
        )
        return self.write("edges_changed", table, "edges_changed", model="m")


def parallel_graph(n_layers: int, n_heads: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every edge and node of a decoder whose attention and MLP run in parallel; scores and membership left out."""
    nodes = [("input", "input", 0, -1)]
    edges = []
    for layer in range(n_layers):
        writers = [(name, at) for name, _, at, _ in nodes]
        for source, source_layer in writers:
            edges += [(source, f"a{layer}.h{h}", q, source_layer, layer) for h in range(n_heads) for q in "qkv"]
            edges.append((source, f"m{layer}", None, source_layer, layer))
        nodes += [(f"a{layer}.h{head}", "head", layer, head) for head in range(n_heads)]
        nodes.append((f"m{layer}", "mlp", layer, -1))
    edges += [(name, "logits", None, layer, n_layers) for name, _, layer, _ in nodes]
    nodes.append(("logits", "logits", n_layers, -1))
    return (
        pd.DataFrame(edges, columns=["source", "target", "qkv", "source_layer", "target_layer"]),
        pd.DataFrame(nodes, columns=["node", "kind", "layer", "head"]),
    )
