"""The study's tables: tidy numbers for CSV, and the same laid out for reading in Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from circuitdrift.figures import tidy
from circuitdrift.figures.labels import method_label, method_order, share_label, task_label
from circuitdrift.storage import write_text

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{EN DASH}": "--",
}
_EMPTY = "\N{EN DASH}"


@dataclass(frozen=True)
class Table:
    """One table: its numbers, one observation a row, and its layout for readers, all text."""

    title: str
    note: str
    tidy: pd.DataFrame
    layout: pd.DataFrame


def write_table_files(table: Table, csv: Path, md: Path, tex: Path) -> None:
    """Write the tidy numbers as CSV, the layout as Markdown and as a LaTeX table (needs the booktabs package)."""
    write_text(csv, table.tidy.to_csv(index=False, lineterminator="\n"))
    write_text(md, as_markdown(table))
    write_text(tex, as_latex(table))


def as_markdown(table: Table) -> str:
    """Title, table and note in GitHub's Markdown."""
    head = [str(column) for column in table.layout.columns]
    rows = [head, ["---"] * len(head), *table.layout.astype(str).to_numpy().tolist()]
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    return f"**{table.title}**\n\n" + "\n".join(lines) + f"\n\n{table.note}\n"


def as_latex(table: Table) -> str:
    """A table environment with booktabs rules, every sign escaped."""
    head = [str(column) for column in table.layout.columns]
    lines = [
        " & ".join(escape_latex(cell) for cell in row) + r" \\" for row in table.layout.astype(str).to_numpy().tolist()
    ]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{escape_latex(table.title)}. {escape_latex(table.note)}}}",
            rf"  \begin{{tabular}}{{{'l' * len(head)}}}",
            r"    \toprule",
            "    " + " & ".join(escape_latex(cell) for cell in head) + r" \\",
            r"    \midrule",
            *(f"    {line}" for line in lines),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(character, character) for character in text)


def method_accuracy(accuracy: pd.DataFrame) -> Table:
    """Final test accuracy by method and task, with trainable parameters (the paper's T1)."""
    final = tidy.final_accuracy(accuracy)
    means = final[final["statistic"] == "mean"]
    tasks = means["task"].drop_duplicates().tolist()
    rows = []
    for model in means["model"].drop_duplicates():
        of_model = means[means["model"] == model]
        sizes = of_model.groupby("method")["trainable_parameters"].max()
        for method in sorted(sizes.index, key=lambda name: (sizes[name], method_order(name))):
            of_method = of_model[of_model["method"] == method].set_index("task")
            cells = {
                task_label(task): _percent_with_interval(
                    of_method.loc[task, "accuracy"], *of_method.loc[task, ["lower", "upper"]]
                )
                if task in of_method.index
                else _EMPTY
                for task in tasks
            }
            mean = {"Mean of tasks": f"{of_method['accuracy'].mean():.1f}"} if len(of_method) == len(tasks) > 1 else {}
            rows.append(
                {
                    "Model": model,
                    "Method": method_label(method),
                    "Trainable parameters": f"{sizes[method]:,}",
                    "Share": share_label(of_method["trainable_share"].iloc[0]),
                    **cells,
                    **mean,
                }
            )
    note = (
        f"Test accuracy in % after fine-tuning, mean over {_seeds_phrase(means)}, with the mean of the seeds' 95 % "
        f"Wilson intervals (each over {_counts_phrase(means['n'])} test prompts). Methods are ordered by trainable "
        "parameters; the share is of all parameters, the method's own included."
    )
    return Table("Accuracy by method", note, final, _layout(rows))


def base_accuracy(accuracy: pd.DataFrame, test: pd.DataFrame) -> Table:
    """The pre-trained model's test accuracy on each task, beside what guessing the commonest answer would give.

    Args:
        accuracy: accuracy tables of any runs; their checkpoint 00 is the pre-trained model.
        test: the examples of the test splits.
    """
    start = accuracy[(accuracy["checkpoint"] == accuracy["checkpoint"].min()) & (accuracy["split"] == "test")]
    base = start.drop_duplicates(["model", "task"])[["model", "task", "n", "accuracy", "lower", "upper"]]
    guesses = test.groupby(["model", "task"], sort=False)["answer"].agg(
        majority_share=lambda answers: answers.value_counts(normalize=True).iloc[0],
        commonest_answer=lambda answers: answers.value_counts().sort_index().idxmax().strip(),
    )
    table = base.merge(guesses.reset_index(), on=["model", "task"], how="left")
    rows = [
        {
            "Model": row["model"],
            "Task": task_label(row["task"]),
            "Test prompts": f"{row['n']:,}",
            "Accuracy (%)": _percent_with_interval(100 * row["accuracy"], 100 * row["lower"], 100 * row["upper"]),
            "Majority guess (%)": f"{100 * row['majority_share']:.1f}" if pd.notna(row["majority_share"]) else _EMPTY,
        }
        for row in table.to_dict("records")
    ]
    note = (
        "Test accuracy of the pre-trained model before any fine-tuning, with 95 % Wilson intervals. Majority guess: "
        "the share of test prompts whose answer is the commonest one, which is what that answer alone would score."
    )
    return Table("Accuracy before fine-tuning", note, table, _layout(rows))


_AREAS = {
    "CPR, KL": ("cpr", "kl_model_circuit"),
    "CMD, KL": ("cmd", "kl_model_circuit"),
    "CPR, logit difference": ("cpr", "logit_difference"),
    "CMD, logit difference": ("cmd", "logit_difference"),
}


def faithfulness_areas(areas: pd.DataFrame) -> Table:
    """CPR and CMD by task and method, of the base model and of each run's last checkpoint."""
    shown = tidy.of_base_and_last(areas)
    table = tidy.with_seed_means(shown, [*tidy.RUN, "checkpoint", "metric", "area"], ["value"])
    means = table[table["statistic"] == "mean"]
    rows = []
    for (model, task), of_task in means.groupby(["model", "task"], sort=False):
        for method in sorted(
            of_task["method"].unique(), key=lambda name: (name != tidy.BASE_MODEL, method_order(name))
        ):
            found = of_task[of_task["method"] == method].set_index(["area", "metric"])[["value", "lower", "upper"]]
            cells = {title: _area(*found.loc[key]) for title, key in _AREAS.items()}
            name = "Before fine-tuning" if method == tidy.BASE_MODEL else method_label(method)
            rows.append({"Model": str(model), "Task": task_label(str(task)), "Method": name, **cells})
    sizes = shown.iloc[0]
    note = (
        "Areas of the MIB benchmark over the share of edges that a circuit keeps, by the trapezoidal rule over "
        f"{sizes['n_sizes']} sizes from {sizes['smallest']:g} to {sizes['largest']:g}. CPR: under the faithfulness "
        "curve (more is better; it may exceed 1). CMD: between the curve and 1 (less is better). KL: faithfulness is "
        "1 - KL(model || circuit) / KL(model || corrupted). Brackets: 95 % bootstrap intervals over prompts, mean over "
        f"{_seeds_phrase(means[means['method'] != tidy.BASE_MODEL])}. Methods: their last checkpoint."
    )
    return Table("Areas of faithfulness curves", note, table, _layout(rows))


def _area(value: float, lower: float, upper: float) -> str:
    return _EMPTY if pd.isna(value) else f"{value:.3f} [{lower:.3f}, {upper:.3f}]"


def change_rates(summary: pd.DataFrame, controls: pd.DataFrame) -> Table:
    """Change rates of nodes and edges by task and method, and those of the controls."""
    table = tidy.change_rates(summary, controls)
    levels = table.pivot_table(
        index=["model", "task", "kind", "label", "measure"],
        columns="level",
        values=["value", "lower", "upper"],
        sort=False,
    )
    measures = {tidy.NET_RATE: "net", tidy.CUMULATIVE_RATE: "cumulative"}
    rows = []
    for (_, row), (model, task, kind, label, measure) in zip(levels.iterrows(), levels.index.tolist(), strict=True):
        node, edge = row["value"].get("node"), row["value"].get("edge")
        rows.append(
            {
                "Model": model,
                "Task": task_label(task),
                "Comparison": label if kind == "fine-tuning" else f"Control: {label[:1].lower()}{label[1:]}",
                "Rate": measures[measure],
                "Nodes (%)": _range(row, "node"),
                "Edges (%)": _range(row, "edge"),
                "Edges / nodes": f"{edge / node:.1f}" if node else _EMPTY,
            }
        )
    note = (
        "Changed nodes (edges) for each node (edge) of the first circuit; lowest and highest value in brackets, over "
        "seeds for methods, over methods and pairs of circuits for controls. Net: first against last checkpoint. "
        "Cumulative: summed over transitions. Controls compare two circuits of the same stage and are to be read "
        "against the net rates."
    )
    return Table("Change rates of nodes and edges", note, table, _layout(rows))


def critical_layers(ranked: pd.DataFrame) -> Table:
    """The critical layers by task, method, policy and seed, and the share that other tasks, policies and seeds share.

    Args:
        ranked: critical_layers tables with model, task, name (the method that spends its rank there) and seed.
    """
    keys = ["model", "task", "name", "policy", "seed"]
    chosen = ranked[ranked["critical"]].sort_values([*keys, "rank_order"])
    sets = (
        chosen.groupby(keys, sort=False)["layer"]
        .agg(layers=lambda layers: tuple(int(layer) for layer in layers))
        .reset_index()
    )
    rows = []
    for row in sets.to_dict("records"):
        near = sets[(sets["model"] == row["model"])]
        rows.append(
            {
                "Model": row["model"],
                "Task": task_label(row["task"]),
                "Method": method_label(row["name"]),
                "Policy": row["policy"].replace("_", " "),
                "Seed": str(row["seed"]),
                "Critical layers": ", ".join(map(str, row["layers"])),
                "Shared with other tasks": _mean_overlap(row, near, "task", keys),
                "Shared with other policies": _mean_overlap(row, near, "policy", keys),
                "Shared with other seeds": _mean_overlap(row, near, "seed", keys),
            }
        )
    overlaps = _pairwise_overlaps(sets)
    note = (
        "Layers ranked by how much the edges that leave them changed between the first and the last checkpoint of "
        "phase 1, largest first; by the paper's rule (score change), with scores scaled to unit mass (score change "
        "normalised), or drawn at random. Shared: mean number of these layers that are critical too where only the "
        f"task, the policy or the seed differs. {overlaps}"
    )
    return Table("Critical layers", note.strip(), chosen[[*keys, "rank_order", "layer", "value"]], _layout(rows))


def training_cost(cost: pd.DataFrame) -> Table:
    """What each method's training costs by task, alone and with phase 1, beside its accuracy.

    Args:
        cost: from ``circuitdrift.figures.costs.training_cost``.
    """
    means = cost[cost["statistic"] == "mean"]
    rows = [
        {
            "Model": row["model"],
            "Task": task_label(row["task"]),
            "Method": method_label(row["method"]),
            "Trainable parameters": f"{row['trainable_parameters']:,.0f}",
            "Accuracy (%)": f"{row['accuracy']:.1f}",
            "Tokens": f"{row['tokens']:,.0f}",
            "FLOPs": f"{row['flops']:.2e}",
            "Seconds": f"{row['seconds']:,.1f}",
            "Phase 1": method_label(row["phase_1"]) if pd.notna(row["phase_1"]) else _EMPTY,
            "Tokens with phase 1": f"{row['total_tokens']:,.0f}",
            "FLOPs with phase 1": f"{row['total_flops']:.2e}",
            "Seconds with phase 1": f"{row['total_seconds']:,.1f}",
        }
        for row in means.to_dict("records")
    ]
    note = (
        f"Mean over {_seeds_phrase(means)}. Tokens are those of the examples, FLOPs those of the matrix products of "
        "training, forward and backward; tokens that all prompts begin with are run once for a whole batch. Seconds "
        "are wall time of whole jobs on the machine at hand, start, evaluation and checkpoints included. With phase 1: "
        "its fine-tuning, and in the seconds also the scoring of its circuits at all checkpoints, though the first and "
        "the last are enough to rank layers. Not counted: FLOPs of scoring, what a method does before its first step, "
        "the selection of circuits, a search for learning rates."
    )
    return Table("Training cost", note, cost, _layout(rows))


def learning_rates(trials: pd.DataFrame) -> Table:
    """Every learning rate that was tried, by task and method.

    Args:
        trials: trials tables with model, task and method.
    """
    rows = []
    for row in trials.to_dict("records"):
        diverged = pd.isna(row["accuracy"])
        accuracy = [100 * row[column] for column in ("accuracy", "lower", "upper")]
        rows.append(
            {
                "Model": row["model"],
                "Task": task_label(row["task"]),
                "Method": method_label(row["method"]),
                "Factor": f"{row['factor']:g}",
                "Learning rate": f"{row['learning_rate']:.3g}",
                "Validation accuracy (%)": "diverged" if diverged else _percent_with_interval(*accuracy),
                "Validation loss": _EMPTY if diverged else f"{row['loss']:.3f}",
                "Chosen": "yes" if row["chosen"] else "",
            }
        )
    counts = _counts_phrase(trials.groupby(["model", "task", "method"], sort=False).size())
    note = (
        f"{counts} trials for each method, at multiples (factor) of its own learning rate, trained on a part of the "
        f"train split and judged by the {_counts_phrase(trials['n'])} prompts held out of it, with 95 % Wilson "
        "intervals. Chosen: highest accuracy, then lowest loss in nats per answer token, then lowest rate. Test "
        "prompts and the study's seeds have no part in it."
    )
    columns = [
        "model",
        "task",
        "method",
        "factor",
        "learning_rate",
        "n",
        "accuracy",
        "lower",
        "upper",
        "loss",
        "chosen",
    ]
    return Table("Learning rates tried", note, trials[columns], _layout(rows))


def _mean_overlap(row: dict[Hashable, Any], sets: pd.DataFrame, differing: str, keys: list[str]) -> str:
    """Mean size of the intersection with the sets that differ from ``row`` in one key only."""
    alike = sets
    for key in keys:
        alike = alike[alike[key] != row[key]] if key == differing else alike[alike[key] == row[key]]
    if alike.empty:
        return _EMPTY
    own = set(row["layers"])
    return f"{sum(len(own & set(other)) for other in alike['layers']) / len(alike):.1f} of {len(own)}"


def _pairwise_overlaps(sets: pd.DataFrame) -> str:
    """A sentence with the mean overlap of each pair of tasks, at equal model, method, policy and seed."""
    joined = sets.merge(sets, on=["model", "name", "policy", "seed"], suffixes=("", "_other"))
    phrases = []
    for first, second in combinations(sets["task"].drop_duplicates(), 2):
        pairs = joined[(joined["task"] == first) & (joined["task_other"] == second)]
        if len(pairs):
            shared = [len(set(a) & set(b)) for a, b in zip(pairs["layers"], pairs["layers_other"], strict=True)]
            phrases.append(f"{task_label(first)} and {task_label(second)} {sum(shared) / len(shared):.1f}")
    return f"Mean number of layers shared by tasks: {'; '.join(phrases)}." if phrases else ""


def _layout(rows: list[dict[str, str]]) -> pd.DataFrame:
    """Rows as a frame of text; the model's column goes where there is one model only."""
    frame = pd.DataFrame(rows).fillna(_EMPTY)
    return frame.drop(columns="Model") if frame["Model"].nunique() <= 1 else frame


def _percent_with_interval(value: float, lower: float, upper: float) -> str:
    return f"{value:.1f} [{lower:.1f}, {upper:.1f}]"


def _range(row: pd.Series, level: str) -> str:
    value, lower, upper = (row[part].get(level) for part in ("value", "lower", "upper"))
    if value is None or pd.isna(value):
        return _EMPTY
    return f"{value:.1f}" if lower == upper else _percent_with_interval(value, lower, upper)


def _seeds_phrase(means: pd.DataFrame) -> str:
    return "one seed" if means["seeds"].max() == 1 else f"{_counts_phrase(means['seeds'])} seeds"


def _counts_phrase(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
