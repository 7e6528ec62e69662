"""The layout of ``results``: one name for each file that a rule reads or writes. No torch.

Paths with braces are Snakemake patterns, relative to the working directory. ``{name}`` is the name of an allocation or
of an import. Stage scripts get their paths from the rules and do not import this module, so that a new file re-runs no
job.
"""

from __future__ import annotations


class CircuitFiles:
    """The files of one circuit, all in its folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.scores = f"{folder}/scores.safetensors"
        self.scoring_benchmark = f"{folder}/scoring_benchmark.tsv"
        self.edges = f"{folder}/edges.parquet"
        self.nodes = f"{folder}/nodes.parquet"
        self.faithfulness = f"{folder}/faithfulness.parquet"
        self.faithfulness_areas = f"{folder}/faithfulness_areas.parquet"
        self.importances = f"{folder}/exchange/{{task}}_{{model}}/importances.json"
        self.merged = f"{folder}/exchange/merged.json"
        self.graphml = f"{folder}/exchange/circuit.graphml"
        self.perturbed_scores = f"{folder}/perturbed/scores.safetensors"


class DriftFiles:
    """The tables of how the circuit of one fine-tuning drifts, all in one folder."""

    def __init__(self, folder: str) -> None:
        self.transitions = f"{folder}/transitions.parquet"
        self.summary = f"{folder}/summary.parquet"
        self.layers = f"{folder}/layers.parquet"
        self.reliability = f"{folder}/reliability.parquet"
        self.edges_changed = f"{folder}/edges_changed.parquet"
        self.edge_counts = f"{folder}/edge_counts.parquet"
        self.functional = f"{folder}/functional.parquet"
        self.nodes_and_edges = f"{folder}/nodes_and_edges.parquet"
        self.robustness = f"{folder}/robustness.parquet"
        self.where = f"{folder}/where.parquet"
        self.node_induced = f"{folder}/node_induced.parquet"
        self.layer_orders = f"{folder}/layer_orders.parquet"


class RecipeFiles:
    """The tables that compare recipes of scoring, all in one folder."""

    def __init__(self, folder: str) -> None:
        self.reliability = f"{folder}/recipe_reliability.parquet"
        self.faithfulness = f"{folder}/recipe_faithfulness.parquet"
        self.areas = f"{folder}/recipe_areas.parquet"


class CompositionFiles:
    """The circuits of a compositional task's run united from those of its sub-tasks, and how they compare."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.union_drift = DriftFiles(f"{folder}/union")
        self.overlaps = f"{folder}/overlaps.parquet"
        self.union_faithfulness = f"{folder}/union_faithfulness.parquet"

    def circuit(self, checkpoint: str, kind: str) -> CircuitFiles:
        """The ``union`` or the ``intersection`` of the sub-tasks' circuits at a checkpoint."""
        return CircuitFiles(f"{self._folder}/{checkpoint}/{kind}")


class AllocationFiles:
    """The files of one allocation of ranks, all in one folder."""

    def __init__(self, folder: str) -> None:
        self.critical_layers = f"{folder}/critical_layers.parquet"
        self.module_changes = f"{folder}/module_changes.parquet"
        self.ranks = f"{folder}/ranks.parquet"
        self.adapter_config = f"{folder}/adapter_config.json"


class Layout:
    """Where the files of a study lie."""

    def __init__(self, study: str) -> None:
        self.results = f"results/{study}"
        self.in_use = f"{self.results}/.in_use"
        self.config = f"{self.results}/config.json"
        self.report = f"{self.results}/report.html"
        self.report_folder = f"{self.results}/report.zip"
        self.figures = f"{self.results}/figures"
        self.tables = f"{self.results}/tables"

        model = f"{self.results}/models/{{model}}"
        self.manifest = f"{model}/manifest.json"
        self.weights = f"{model}/model.safetensors"
        self.tokenizer = f"{model}/tokenizer.json"
        self.checked = f"{model}/checked.json"
        self.pretraining_log = f"{model}/pretraining_log.parquet"
        self.given_checkpoint = f"{model}/given/{{checkpoint}}"

        data = f"{self.results}/data/{{model}}/{{task}}"
        self.train = f"{data}/train.parquet"
        self.circuit = f"{data}/circuit.parquet"
        self.test = f"{data}/test.parquet"
        self.circuit_reworded = f"{data}/circuit_reworded.parquet"
        self.dropped = f"{data}/dropped.parquet"

        self.trials = f"{self.results}/learning_rates/{{model}}/{{task}}/{{method}}/trials.parquet"

        run = f"{self.results}/runs/{{model}}/{{task}}/{{method}}/seed-{{seed}}"
        self._checkpoints = f"{run}/checkpoints"
        self.training_log = f"{run}/training_log.parquet"
        self.accuracy = f"{run}/accuracy.parquet"
        self.predictions = f"{run}/predictions.parquet"
        self.benchmark = f"{run}/benchmark.tsv"
        self.resume = f"{run}/.resume"

        self._circuits = f"{self.results}/circuits"
        self.base_circuit = CircuitFiles(f"{self._circuits}/{{model}}/{{task}}/base")
        self.reworded_scores = f"{self._circuits}/{{model}}/{{task}}/base/reworded/scores.safetensors"

        self.given_circuit = self.run_circuit("{checkpoint}")
        self.recipe_circuit = CircuitFiles(f"{self._circuits}/{{model}}/{{task}}/base/recipes/{{recipe}}")
        self.recipes = RecipeFiles(f"{self.results}/recipes/{{model}}/{{task}}")
        self.scores_by_kind = f"{self.base_circuit.folder}/kinds/scores_by_kind.safetensors"

        drift = f"{self.results}/drift/{{model}}/{{task}}/{{method}}"
        self.drift = DriftFiles(f"{drift}/seed-{{seed}}")
        self.controls = f"{drift}/controls.parquet"
        self.model_controls = f"{self.results}/drift/{{model}}/{{task}}/model_controls.parquet"
        self.untrained_robustness = f"{self.results}/drift/{{model}}/{{task}}/untrained_robustness.parquet"
        self.allocation = AllocationFiles(f"{self.results}/allocation/{{model}}/{{task}}/{{name}}/seed-{{seed}}")

        self.composition = CompositionFiles(f"{self.results}/composition/{{model}}/{{task}}/{{method}}/seed-{{seed}}")
        self.gradients = f"{self.results}/allocation/{{model}}/{{task}}/gradients.parquet"
        self.activation_ranks = f"{self.results}/allocation/{{model}}/{{task}}/{{name}}/activation_ranks.parquet"
        self.peft_experiment = f"{self.results}/peft/experiments/lora/{{model}}-{{task}}-{{name}}-seed-{{seed}}"

        self.imported_drift = DriftFiles(f"{self.results}/drift/imported/{{name}}")
        self.imported_allocation = AllocationFiles(f"{self.results}/allocation/imported/{{name}}")

        self.attribution_benchmark = f"{self.results}/benchmarks/attribution.md"
        self.training_benchmark = f"{self.results}/benchmarks/training.md"
        self.startup_benchmark = f"{self.results}/benchmarks/startup.md"

    def checkpoint(self, checkpoint: str) -> str:
        """Pattern of the folder of a run's checkpoint."""
        return f"{self._checkpoints}/{checkpoint}"

    def run_circuit(self, checkpoint: str) -> CircuitFiles:
        """The circuit of a checkpoint after the base model's."""
        return CircuitFiles(f"{self._circuits}/{{model}}/{{task}}/{{method}}/seed-{{seed}}/{checkpoint}")

    def untrained_scores(self, seed: int) -> str:
        """The edge scores of an untrained model, which its seed determines."""
        return f"{self._circuits}/{{model}}/{{task}}/untrained/seed-{seed}/scores.safetensors"

    def imported_circuit(self, checkpoint: str) -> CircuitFiles:
        """The circuit of a checkpoint of an import."""
        return CircuitFiles(f"{self._circuits}/imported/{{name}}/{checkpoint}")

    def figure(self, name: str, format: str) -> str:
        """A figure in one of its file formats."""
        return f"{self.figures}/{name}.{format}"

    def table(self, name: str, format: str) -> str:
        """A table in one of its file formats."""
        return f"{self.tables}/{name}.{format}"
