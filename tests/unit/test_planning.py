"""What a study will take: sizes of models, times of jobs, the plan, and the time left while it runs."""

from __future__ import annotations

import io
import json
import logging
from types import SimpleNamespace

import pytest
import torch
from snakemake.logging import LogEvent
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, OPTConfig

from circuitdrift.config.circuits import Attribution
from circuitdrift.config.models import HubModel, LocalModel, ScratchModel
from circuitdrift.config.study import StudyConfig
from circuitdrift.decoder.graph import Graph
from circuitdrift.layout import Layout
from circuitdrift.models.shapes import ModelShape, shape_at_hand, shape_in
from circuitdrift.planning.estimates import (
    START,
    START_OF_A_FORK,
    START_WITH_MODEL,
    PlannedWork,
    Rate,
    passes_of,
    seconds_of,
)
from circuitdrift.planning.jobs import bytes_of
from circuitdrift.planning.plan import describe, plan_of
from circuitdrift.planning.progress import Expected, ProgressLines, duration
from circuitdrift.planning.summary import lines_of_success, telling_line
from circuitdrift.planning.terminal import Bar
from circuitdrift.study import Study

pytestmark = pytest.mark.unit

SHAPE = ModelShape(parameters=1_300_000, layers=6, heads=8, width=128, parallel=True)


def study_of(**sections):
    config = {
        "study": "planned",
        "models": {"tiny": {"source": "scratch"}},
        "tasks": {"sums": {"family": "add_sub", "max_operand": 100, "train": 320, "circuit": 64, "test": 100}},
        "methods": {"lora": {"kind": "lora", "rank": 2}},
        "training": {"epochs": 2, "batch_size": 32, "checkpoints": 2},
    }
    return Study(StudyConfig.model_validate(config | sections))


# Sizes of models


@pytest.mark.parametrize(
    "config",
    [
        GPTNeoXConfig(
            hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256, vocab_size=500
        ),
        GPT2Config(n_embd=64, n_layer=3, n_head=4, vocab_size=500, n_positions=8),
        OPTConfig(
            hidden_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            ffn_dim=128,
            vocab_size=500,
            word_embed_proj_dim=64,
            max_position_embeddings=8,
        ),
        LlamaConfig(
            hidden_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=160,
            vocab_size=500,
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_the_shape_in_a_config_has_the_models_parameters(config):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = shape_in(json.loads(config.to_json_string(use_diff=False)))
    assert shape.parameters == pytest.approx(sum(p.numel() for p in model.parameters()), rel=0.03)
    assert (shape.layers, shape.heads, shape.width) == (3, 4, 64)


def test_the_number_of_edges_is_about_that_of_the_graph():
    for layers, heads in ((6, 8), (24, 16), (30, 9)):
        edges = ModelShape(1, layers, heads, 1, parallel=True).edges
        assert edges == pytest.approx(Graph(layers, heads, parallel=True).n_edges, rel=0.25)


def test_a_scratch_model_has_a_shape_before_it_is_made():
    shape = shape_at_hand(ScratchModel(source="scratch"))
    assert (shape.layers, shape.heads, shape.width) == (6, 8, 128)
    assert 1.2e6 < shape.parameters < 1.4e6


@pytest.mark.parametrize("content", [None, "{", '{"model_type": "gpt2"}'])
def test_a_model_without_a_usable_config_has_no_shape(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert shape_at_hand(LocalModel(source="local", path=tmp_path)) is None


def test_a_hub_model_that_was_never_fetched_has_no_shape():
    assert shape_at_hand(HubModel(source="hub", id="nobody/nothing-of-this-name")) is None


# Times of jobs


def test_a_rate_is_met_at_the_measured_sizes_and_kept_outside_them():
    rate = Rate(small=1e-11, large=9e-11)
    assert rate.of(1.3e6) == pytest.approx(1e-11)
    assert rate.of(1.35e8) == pytest.approx(9e-11)
    assert rate.of(1e5) == pytest.approx(1e-11)
    assert rate.of(7e9) == pytest.approx(9e-11)
    assert rate.of((1.3e6 * 1.35e8) ** 0.5) == pytest.approx(3e-11)


def test_a_run_of_twice_the_epochs_takes_twice_the_training():
    def training(epochs):
        study = study_of(training={"epochs": epochs, "batch_size": 32, "checkpoints": 2})
        return seconds_of(study, PlannedWork("finetune", {"model": "tiny", "task": "sums", "method": "lora"}, 0), SHAPE)

    assert training(4) - training(2) == pytest.approx(2 * (training(2) - training(1)))
    assert training(2) > training(1)


def test_scoring_takes_time_for_each_checkpoint_and_step():
    job = {"model": "tiny", "task": "sums"}
    base, five = (seconds_of(study_of(), PlannedWork("score_edges", job, n), SHAPE) for n in (0, 5))
    three = seconds_of(study_of(), PlannedWork("score_edges", job, 3), SHAPE)
    assert five - three == pytest.approx(2 * (three - base) / 2)
    assert passes_of(Attribution(steps=5), 100) == 17
    assert passes_of(Attribution(attribution="relp", objective="answer_loss"), 100) == 5
    assert passes_of(Attribution(attribution="exact"), 100) == 102
    assert passes_of(Attribution(attribution="random"), 100) == 0


def test_jobs_of_an_unknown_model_have_no_time_and_small_stages_need_none():
    work = {"model": "tiny", "task": "sums", "method": "lora"}
    assert seconds_of(study_of(), PlannedWork("finetune", work, 0), None) is None
    assert seconds_of(study_of(), PlannedWork("write_table", {}, 0), None) > 0


def test_a_fork_starts_sooner_and_takes_as_long_for_its_work():
    work = {"model": "tiny", "task": "sums", "method": "lora"}
    for stage, start in (("finetune", START_WITH_MODEL), ("write_table", START), ("plot_figure", START)):
        alone, fork = (
            seconds_of(study_of(), PlannedWork(stage, work, 0, forked=forked), SHAPE) for forked in (False, True)
        )
        assert alone - fork == pytest.approx(start - START_OF_A_FORK)
        assert fork >= START_OF_A_FORK
    assert fork > START_OF_A_FORK  # the figure takes time beside its start
    assert seconds_of(study_of(), PlannedWork("finetune", work, 0, forked=True), None) is None


def test_data_take_time_for_each_prompt():
    def generating(**sizes):
        sums = {"family": "add_sub", "max_operand": 100, "train": 320, "circuit": 64, "test": 100}
        return seconds_of(
            study_of(tasks={"sums": sums | sizes}), PlannedWork("generate_data", {"task": "sums"}, 0), None
        )

    usual = generating()
    for split, size in (("train", 320), ("circuit", 64), ("test", 100)):
        assert generating(**{split: 2 * size}) - usual == pytest.approx((usual - START) * size / 484)


def test_robustness_takes_time_for_each_fresh_draw_and_split():
    def measuring(**drift):
        study = study_of(drift={"perturbed_draws": 0, "disjoint_splits": 0} | drift)
        work = PlannedWork("measure_robustness", {"model": "tiny", "task": "sums", "method": "lora"}, 0)
        return seconds_of(study, work, SHAPE) - START_WITH_MODEL

    assert measuring() == 0
    assert measuring(disjoint_splits=4) == pytest.approx(2 * measuring(disjoint_splits=2))
    draws = measuring(perturbed_draws=30) - measuring(perturbed_draws=20)
    assert draws == pytest.approx(measuring(perturbed_draws=20) - measuring(perturbed_draws=10))
    assert draws > 0


# The plan


def job_of(script, number, output, wildcards=None, threads=1, mem_mb=1000, rules=("finetune", "score_edges")):
    workflow = SimpleNamespace(rules=list(rules))
    rule = SimpleNamespace(script=f"../workflow_scripts/{script}.py", name=script, workflow=workflow)
    workflow.rules = [rule if name == script else name for name in rules]
    return _Job(
        rule=rule,
        jobid=number,
        input=_Named(checkpoints=[]),
        output=output,
        threads=threads,
        resources={"mem_mb": mem_mb},
        wildcards_dict=wildcards or {"model": "tiny", "task": "sums", "method": "lora", "seed": "0"},
    )


class _Job(SimpleNamespace):
    __hash__ = object.__hash__
    __eq__ = object.__eq__


class _Named(SimpleNamespace):
    def keys(self):
        return self.__dict__.keys()


def test_the_plan_adds_up_jobs_hours_files_and_memory():
    jobs = [
        job_of("score_edges", 3, ["a/scores.safetensors"], mem_mb=4000),
        job_of("finetune", 2, ["r/checkpoints/00", "r/accuracy.parquet"], mem_mb=2000),
        job_of("finetune", 1, ["r/checkpoints/00", "r/accuracy.parquet"], mem_mb=3000),
    ]
    study = study_of()
    plan = plan_of(study, jobs, cores=2, preloading=False)
    assert plan.stages["stage"].tolist() == ["finetune", "score_edges"]
    assert plan.stages["jobs"].tolist() == [2, 1]
    assert plan.stages["files"].tolist() == [4, 1]
    seconds = [
        seconds_of(study, PlannedWork(s, jobs[0].wildcards_dict, 0), shape_at_hand(study.config.models["tiny"]))
        for s in ("finetune", "score_edges")
    ]
    assert plan.hours == pytest.approx((2 * seconds[0] + seconds[1]) / 3600)
    assert plan.wall_seconds == pytest.approx(3600 * plan.hours / 2)
    assert plan.memory == 7000
    text = describe(plan, "planned")
    assert "planned: 3 jobs" in text
    assert "on 2 cores; 5 files" in text


def test_in_a_call_that_preloads_the_jobs_of_one_thread_are_forks():
    study = study_of()
    jobs = [
        job_of("finetune", 1, ["r/accuracy.parquet"]),
        job_of("score_edges", 2, ["a/scores.safetensors"], threads=2),
    ]
    alone = plan_of(study, jobs, cores=2, preloading=False).stages.set_index("stage")["hours"]
    preloaded = plan_of(study, jobs, cores=2, preloading=True).stages.set_index("stage")["hours"]
    saved = 3600 * (alone - preloaded)
    assert saved["finetune"] == pytest.approx(START_WITH_MODEL - START_OF_A_FORK)
    assert saved["score_edges"] == 0


def test_the_plan_says_which_models_it_cannot_count():
    study = study_of(models={"far": {"source": "hub", "id": "nobody/nothing-of-this-name"}})
    wildcards = {"model": "far", "task": "sums", "method": "lora", "seed": "0"}
    text = describe(
        plan_of(study, [job_of("finetune", 1, ["x/accuracy.parquet"], wildcards)], cores=2, preloading=False), "planned"
    )
    assert "hours not known" in text
    assert "leave out the jobs of far" in text
    assert "snakemake models" in text


def test_the_papers_models_have_a_shape_before_anything_is_fetched(monkeypatch, tmp_path):
    monkeypatch.setattr("circuitdrift.models.shapes.config_file", lambda model: None)
    sizes = {
        name: shape_at_hand(HubModel(source="hub", id=name))
        for name in ("EleutherAI/pythia-1.4b-deduped", "EleutherAI/gpt-neo-2.7B", "facebook/opt-6.7b")
    }
    assert [shape.edges for shape in sizes.values()] == [231_493, 638_641, 1_592_881]
    assert [round(shape.parameters / 1e9, 1) for shape in sizes.values()] == [1.4, 2.6, 6.6]


def test_the_plan_of_a_large_model_states_hours_of_a_gpu_by_its_assumption(monkeypatch):
    monkeypatch.setattr("circuitdrift.models.shapes.config_file", lambda model: None)
    study = study_of(models={"pythia": {"source": "hub", "id": "EleutherAI/pythia-1.4b-deduped"}})
    run = {"model": "pythia", "task": "sums", "method": "lora", "seed": "0"}
    jobs = [
        job_of("finetune", 1, ["r/accuracy.parquet"], run),
        *(
            job_of(stage, number, ["r/table.parquet"], run, rules=("finetune", stage))
            for number, stage in enumerate(("measure_reliability", "measure_robustness", "measure_controls"), 2)
        ),
    ]
    plan = plan_of(study, jobs, cores=8, preloading=False)
    shape = shape_at_hand(study.config.models["pythia"])
    trained = seconds_of(study, PlannedWork("finetune", run, 0), shape)
    assert plan.gpu_hours == pytest.approx((60 + trained / 1000) / 3600)  # comparing scores takes no GPU
    assert "On one GPU" in describe(plan, "planned")
    assert (
        plan_of(study_of(), [job_of("finetune", 1, ["r/accuracy.parquet"])], cores=2, preloading=False).gpu_hours == 0
    )


def test_the_plan_of_a_finished_study_says_so():
    assert describe(plan_of(study_of(), [], cores=2, preloading=False), "planned") == "planned: nothing is left to do"


def test_scores_and_checkpoints_take_the_disk_that_their_tensors_take():
    study = study_of(methods={"lora": {"kind": "lora", "rank": 2}, "full": {"kind": "full"}})
    scores = bytes_of(study, job_of("score_edges", 1, ["x/scores.safetensors"]), SHAPE)
    assert scores == SHAPE.edges * 4 * 17
    run = {"model": "tiny", "task": "sums", "seed": "0"}
    full = bytes_of(study, job_of("finetune", 1, ["r/checkpoints/01"], run | {"method": "full"}), SHAPE)
    lora = bytes_of(study, job_of("finetune", 1, ["r/checkpoints/01"], run | {"method": "lora"}), SHAPE)
    assert full == 4 * SHAPE.parameters
    assert lora == 4 * 2 * 16 * 128 * 6


# Progress


def record_of(event, **fields):
    record = logging.LogRecord("snakemake", logging.INFO, "", 0, None, (), None)
    record.__dict__ |= {"event": event, **fields}
    return record


def test_a_line_follows_each_job_with_the_time_left_at_the_pace_so_far():
    now, lines = [0.0], []
    expected = {1: Expected("finetune/a", 10.0), 2: Expected("finetune/b", 10.0), 3: Expected("score_edges/a", 20.0)}
    handler = ProgressLines(expected, lines.append, lambda: now[0])
    handler.emit(record_of(LogEvent.JOB_STARTED, jobs=[1]))
    now[0] = 20.0
    handler.emit(record_of(LogEvent.JOB_FINISHED, job_id=1))
    assert lines == [
        "finetune/a: 20 s; 1 of 3 jobs, about 34 s left"
    ]  # 30 s of work are left; 10 s of work and the trusted 60 took 80 s
    handler.emit(record_of(LogEvent.JOB_STARTED, jobs=[2, 3]))
    now[0] = 40.0
    handler.emit(record_of(LogEvent.JOB_FINISHED, job_id=2))
    handler.emit(record_of(LogEvent.JOB_FINISHED, job_id=2))
    assert len(lines) == 2
    # 10 + 10 seconds of work are done, and 18 of the 20 of the job that runs: 2 of 40 are left.
    assert handler.seconds_left() == pytest.approx(2 * 100 / 98)
    now[0] = 45.0
    handler.emit(record_of(LogEvent.JOB_FINISHED, job_id=3))
    assert lines[-1] == "score_edges/a: 25 s; 3 of 3 jobs, all done"


def test_one_slow_start_does_not_stretch_the_time_left_and_a_long_run_goes_by_its_own_pace():
    now, expected = [0.0], {job: Expected(f"job/{job}", 10.0) for job in range(100)}
    handler = ProgressLines(expected, lambda line: None, lambda: now[0])
    now[0] = 120.0  # twelve times what the first job should take
    handler.emit(record_of(LogEvent.JOB_FINISHED, job_id=0))
    assert handler.seconds_left() < 3 * 990
    for job in range(1, 90):
        handler.emit(record_of(LogEvent.JOB_FINISHED, job_id=job))
    now[0] = 9000.0  # ten times slower, all in all
    assert handler.seconds_left() == pytest.approx(10 * 100, rel=0.1)


def test_other_messages_print_no_line():
    lines = []
    handler = ProgressLines({1: Expected("a", 1.0)}, lines.append, lambda: 0.0)
    handler.emit(record_of(LogEvent.PROGRESS, done=1, total=2))
    handler.emit(logging.LogRecord("snakemake", logging.INFO, "", 0, "plain", (), None))
    handler.emit(record_of(LogEvent.JOB_FINISHED, job_id=7))
    assert lines == []


@pytest.mark.parametrize(("seconds", "said"), [(40, "40 s"), (200, "3 min"), (7500, "2 h 5 min")])
def test_durations_are_said_as_people_say_them(seconds, said):
    assert duration(seconds) == said


# Lines of a call


def records_of_a_call(lines, clock):
    """Two jobs: the first fails, the second finishes."""
    for seconds, event, fields in (
        (0.0, LogEvent.JOB_STARTED, {"jobs": [1, 2]}),
        (3.0, LogEvent.JOB_ERROR, {"jobid": 1}),
        (4.0, LogEvent.JOB_FINISHED, {"job_id": 2}),
    ):
        clock[0] = seconds
        lines.emit(logging.makeLogRecord({"event": event, **fields}))


def test_a_job_that_fails_has_a_line_with_its_log_and_the_call_ends_with_the_line_that_matters(tmp_path):
    log = tmp_path / "first.log"
    log.write_text("12:00:00 begins\n12:00:01 error: a.csv: no such file\n12:00:02 ends\n")
    printed, clock = [], [0.0]
    lines = ProgressLines(
        {1: Expected("first", 5.0, log), 2: Expected("second", 5.0)}, printed.append, lambda: clock[0]
    )
    records_of_a_call(lines, clock)
    assert printed[0] == f"first: failed after 3 s; log: {log}"
    assert printed[1].startswith("second: 4 s; 1 of 2 jobs, about ")
    assert lines.lines_of_failure()[1:] == ["  first: 12:00:01 error: a.csv: no such file", f"    log: {log}"]


def test_a_job_that_succeeds_at_a_further_attempt_has_not_failed():
    clock = [0.0]
    lines = ProgressLines({1: Expected("first", 5.0), 2: Expected("second", 5.0)}, [].append, lambda: clock[0])
    records_of_a_call(lines, clock)
    assert len(lines.lines_of_failure()) == 2
    lines.emit(logging.makeLogRecord({"event": LogEvent.JOB_FINISHED, "job_id": 1}))
    assert lines.lines_of_failure() == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("a\n error: b\nc\n", "error: b"),
        ("Traceback (most recent call last):\n  x\nLookupError: wire\n", "LookupError: wire"),
        ("loading\n\nKilled\n\n", "Killed"),
    ],
)
def test_the_line_of_a_log_that_matters(text, line):
    assert telling_line(text) == line


def test_a_call_that_succeeds_ends_with_places_and_verdicts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layout = Layout("mine")
    assert lines_of_success(layout, "mine") == ["mine: done."]
    table = tmp_path / layout.table("verdicts", "csv")
    table.parent.mkdir(parents=True)
    table.write_text(
        "claim,published,model,measured,lower,upper,null,verdict\n"
        "edges change more than nodes,yes,toy,0.2,0.1,0.3,0,supported\n"
        "late layers drift,,,,,,,undecided\n"
        "drift exceeds noise,,toy,0.4,,,0,supported\n"
    )
    assert lines_of_success(layout, "mine") == [
        "mine: done. tables: results/mine/tables",
        "verdicts: 2 supported, 1 undecided (results/mine/tables/verdicts.csv)",
        "  supported: edges change more than nodes (toy); measured 0.2 [0.1, 0.3], published yes",
        "  supported: drift exceeds noise (toy); measured 0.4",
    ]


def test_the_bar_shows_what_runs_and_a_time_once_a_job_has_finished():
    shown, clock = [], [0.0]
    bar = SimpleNamespace(show=lambda done, left, running: shown.append((done, left, list(running))))
    lines = ProgressLines({1: Expected("first", 5.0), 2: Expected("second", 5.0)}, [].append, lambda: clock[0], bar)
    records_of_a_call(lines, clock)
    assert shown == [(0, "", ["first", "second"]), (0, "", ["second"]), (1, "about 5 s left", [])]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("screen", "drawn"), [(Terminal(), True), (io.StringIO(), False)], ids=["terminal", "file"])
def test_a_bar_is_drawn_on_a_terminal_alone(screen, drawn):
    bar = Bar(4, screen)
    bar.show(1, "about 3 min left", ["finetune/toy", "score_edges/toy"])
    assert ("1 of 4 jobs, about 3 min left; finetune/toy score_edges/toy" in screen.getvalue()) is drawn
    bar.close()
    assert bool(screen.getvalue()) is drawn
