# The inputs of rules that depend on a job's wildcards: functions alone, like those of common.smk.
#
# needs     `study`, `layout` and one_of (common.smk)
# makes     the functions, and the wildcards of given checkpoints
# steps     ranks and learning rates of a run; phase 1 of an allocation; circuits of other seeds, imports, given checkpoints;
#           circuits of sub-tasks and of unrelated tasks
from circuitdrift.config.compositions import methods_by_union
from circuitdrift.config.given import GIVEN, GIVEN_SEED
from circuitdrift.runs import Run


def ranks_of(model, task, method, seed):
    """The allocation of ranks that a method trains with; none where all layers have the same rank."""
    if study.config.methods[method].kind in {"circuit_lora", "random_lora", "allocated_lora"}:
        return layout.allocation.adapter_config.format(model=model, task=task, name=method, seed=seed)
    return []


def ranks_of_run(wildcards):
    """The allocation of ranks of a run."""
    return ranks_of(**wildcards)


def ranks_of_search(wildcards):
    """The allocation of ranks that learning rates are tried with: the allocation of the study's first seed."""
    return ranks_of(**wildcards, seed=study.config.seeds[0])


def trials_of_run(wildcards):
    """The search that chose a run's learning rate; none where the run takes the configured rate."""
    return layout.trials.format(**wildcards) if study.tuned_runs else []


def phase_1_of(wildcards):
    """The run whose drift decides the ranks of an allocation; a method's allocation has the name of the method."""
    return study.phase_1_run(Run(wildcards.model, wildcards.task, wildcards.name, int(wildcards.seed)))


def follows_union(wildcards):
    """Whether the ranks of a CircuitLoRA follow the union of the circuits of its task's sub-tasks."""
    return wildcards.name in methods_by_union(study.config.methods)


def layers_of_phase_1(wildcards):
    """The changes by layer of a CircuitLoRA's phase 1, of its circuit or of the union of its sub-tasks' circuits."""
    drift = layout.composition.union_drift if follows_union(wildcards) else layout.drift
    return study.of_runs(drift.layers, (phase_1_of(wildcards),))[0]


def scores_of_phase_1(wildcards):
    """The scores of the base model and of the last checkpoint of a CircuitLoRA's phase 1; a union has none by fold."""
    return [] if follows_union(wildcards) else study.of_circuits(phase_1_of(wildcards), "scores", 0, -1)


def edges_of_phase_1(wildcards):
    """The edges tables of the same two circuits, or of the two unions."""
    run = phase_1_of(wildcards)
    if not follows_union(wildcards):
        return study.of_circuits(run, "edges", 0, -1)
    ends = (layout.composition.circuit(study.checkpoints[place], "union").edges for place in (0, -1))
    return [path for end in ends for path in study.of_runs(end, (run,))]


def edges_of_runs(runs, *places):
    """The edges tables of the circuits of some runs, or of those at some places, one run after the other."""
    return [path for run in runs for path in study.of_circuits(run, "edges", *places)]


def run_of(wildcards):
    """The run that a job belongs to."""
    return Run(wildcards.model, wildcards.task, wildcards.method, int(wildcards.seed))


def edges_of_sub_tasks(wildcards):
    """The edges tables of all circuits of the same run on the two sub-tasks of its task."""
    return edges_of_runs(run_of(wildcards).on(study.sub_tasks[wildcards.task]))


def first_and_last_edges_of_sub_tasks(wildcards):
    """The same of the base model and of the last checkpoint."""
    return edges_of_runs(run_of(wildcards).on(study.sub_tasks[wildcards.task]), 0, -1)


def first_and_last_edges_of_unrelated_tasks(wildcards):
    """The same of the run on two tasks that need other operations; none where the study has no two."""
    return edges_of_runs(study.unrelated_runs(run_of(wildcards)), 0, -1)


def gradients_of_model(wildcards):
    """The gradients that an allocation follows; none where it follows something else."""
    follows = wildcards.name in study.methods_allocated_by("fisher", "gradient_norm")
    return layout.gradients.format(**wildcards) if follows else []


def activation_ranks_of(wildcards):
    """EVA's ranks, where an allocation follows them."""
    follows = wildcards.name in study.methods_allocated_by("eva")
    return layout.activation_ranks.format(**wildcards) if follows else []


def drift_of_phase_1(wildcards):
    """The changes by layer of an allocation's phase 1, same seed, where the allocation follows drift."""
    if wildcards.name not in study.methods_allocated_by("inverted"):
        return []
    return layout.drift.layers.format(method=study.phase_1[wildcards.name], **wildcards)


def last_checkpoint_of_phase_1(wildcards):
    """The last checkpoint of an allocation's AdaLoRA, same seed, where the allocation follows its ranks."""
    if wildcards.name not in study.methods_allocated_by("adalora"):
        return []
    return layout.checkpoint(study.checkpoints[-1]).format(method=study.phase_1[wildcards.name], **wildcards)


def reworded_scores(wildcards):
    """The scores of the base model in the second wording of the task; none where the task has no second wording."""
    return layout.reworded_scores.format(**wildcards) if wildcards.task in study.reworded_tasks else []


def last_edges_of_other_seeds(wildcards):
    """The edges table of the last checkpoint of each other seed of a run."""
    others = [seed for seed in study.config.seeds if seed != int(wildcards.seed)]
    return [study.circuits[-1].edges.format(**{**wildcards, "seed": seed}) for seed in others]


def imported_edges(wildcards):
    """The edges table of each circuit of an import, in the order of the checkpoints."""
    return [circuit.edges.format(**wildcards) for circuit in study.imported_circuits(wildcards.name)]


def imported_nodes(wildcards):
    """The nodes table of each circuit of an import, in the order of the checkpoints."""
    return [circuit.nodes.format(**wildcards) for circuit in study.imported_circuits(wildcards.name)]


OF_GIVEN_RUN = {"model": one_of(study.given.models), "method": GIVEN, "seed": str(GIVEN_SEED)}
OF_GIVEN_CHECKPOINT = {**OF_GIVEN_RUN, "checkpoint": r"\d\d"}


def of_given_circuits(file, *places):
    """A file of the circuits of given checkpoints: of all, the base model's first, or of those at some places."""
    return lambda wildcards: study.of_circuits(study.given.run(wildcards.model, wildcards.task), file, *places)


def figures_and_tables():
    """The first format of each figure and table that the study has the runs for."""
    if not (figures_of_study or tables_of_study):
        lacking = [section for section in ("models", "tasks", "methods") if not getattr(study.config, section)]
        raise WorkflowError(
            f"{CONFIG_FILE.name}: nothing of the paper can be made, because the study has no {' and no '.join(lacking)}; "
            "add them, or name files of other stages as targets"
        )
    figures = [layout.figure(figure.name, figure.formats[0]) for figure in figures_of_study]
    return [*figures, *(layout.table(table.name, "csv") for table in tables_of_study)]
