"""The interactive explorer: one HTML file that works offline, in which a reader picks a run and a checkpoint."""

from __future__ import annotations

from html import escape
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from circuitdrift.config.figures import Figures
from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.style import method_styles
from circuitdrift.figures.tidy import RUN, in_percent, only_neighbouring, spread_base

_WIDTH, _HEIGHT = 400, 190
_ADDED, _REMOVED = "#0072B2", "#D55E00"
_METRICS = {"kl_model_circuit": "to the model's output", "kl_from_corrupted": "as in the paper"}
_RUN = "datum.model === picked_model && datum.task === picked_task"
_PICKED = f"{_RUN} && datum.method === picked_method && datum.seed === picked_seed"
_AT_CHECKPOINT = "toNumber(datum.checkpoint) === picked_checkpoint"

_PAGE_STYLE = """
<style>
  body { font-family: 'Segoe UI', Helvetica, Arial, sans-serif; color: #333; margin: 1.2rem auto; max-width: 1060px; }
  h1 { font-size: 1.35rem; margin: 0 0 .3rem; }
  p { margin: .2rem 0 .8rem; line-height: 1.45; }
  .vega-embed .chart-wrapper { display: flex; flex-direction: column-reverse; }
  .vega-bindings { display: flex; flex-wrap: wrap; gap: .4rem 1.6rem; padding: .6rem .8rem; margin-bottom: .8rem;
                   background: #f4f5f7; border-radius: 6px; position: sticky; top: 0; z-index: 1; }
  .vega-bind { display: flex; align-items: center; gap: .5rem; }
  .vega-bind-name { font-weight: 600; }
</style>
"""
_INTRODUCTION = """
<h1>Circuit drift: {study}</h1>
<p>Pick a run and a checkpoint. Checkpoint 0 is the model before fine-tuning; the changes shown for a checkpoint are
those since the one before. Accuracy: all methods of the task and seed, the picked one in bold, with its 95&nbsp;%
interval. Faithfulness: how much of the model's behaviour the circuit alone keeps; 100&nbsp;% is all of it. Point at a
mark for its numbers.</p>
"""


def tidy(
    accuracy: pd.DataFrame, faithfulness: pd.DataFrame, transitions: pd.DataFrame, layers: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """The four tables that the explorer's charts read: percentages, single seeds, a plain ``checkpoint`` each."""
    sizes = spread_base(faithfulness[faithfulness["metric"].isin(list(_METRICS))])
    sizes = sizes.assign(metric=sizes["metric"].map(_METRICS), size=100 * sizes["size_fraction"])
    changes = only_neighbouring(transitions).rename(columns={"to_checkpoint": "checkpoint"})
    by_layer = only_neighbouring(layers[layers["level"] == "edge"]).rename(columns={"to_checkpoint": "checkpoint"})
    run = [*RUN, "seed", "checkpoint"]
    return {
        "accuracy": _in_percent(accuracy[accuracy["split"] == "test"], ["accuracy", "lower", "upper"])[
            [*run, "accuracy", "lower", "upper", "n"]
        ],
        "faithfulness": _in_percent(sizes, ["faithfulness", "lower", "upper"])[
            [*run, "metric", "size", "n_edges", "own_circuit", "faithfulness", "lower", "upper"]
        ],
        "changes": _long_changes(changes, [*run, "level"]),
        "layers": _long_changes(by_layer, [*run, "layer", "score_change", "score_change_normalised"]),
    }


def _in_percent(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    return in_percent(table, columns).round(dict.fromkeys(columns, 2))


def _long_changes(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """One row for what was added and one for what was removed, the latter counted below zero."""
    long = table.melt(id_vars=keys, value_vars=["added", "removed"], var_name="change", value_name="count")
    return long.assign(signed=long["count"].where(long["change"] == "added", -long["count"]))


def draw(table: dict[str, pd.DataFrame], style: Figures, labels: MethodLabels, study: str) -> str:
    """The page, with its tables and scripts inside, so that it opens without a network.

    Args:
        table: from :func:`tidy`.
        style: the study's figure settings.
        labels: of the study's methods.
        study: the study's name, for the heading.
    """
    return _as_html(_linked_charts(table, style, labels), study)


def _linked_charts(tables: dict[str, pd.DataFrame], style: Figures, labels: MethodLabels) -> alt.VConcatChart:
    accuracy = tables["accuracy"].assign(label=tables["accuracy"]["method"].map(labels.of))
    with_circuits = set(tables["changes"]["method"])
    methods = sorted(with_circuits or set(accuracy["method"]), key=labels.order)
    params = [
        _dropdown("picked_model", "Model", accuracy["model"].drop_duplicates().tolist(), str),
        _dropdown("picked_task", "Task", accuracy["task"].drop_duplicates().tolist(), task_label),
        _dropdown("picked_method", "Method", methods, labels.of),
        _dropdown("picked_seed", "Seed", sorted(int(seed) for seed in accuracy["seed"].unique()), str),
        _checkpoint_slider(accuracy),
    ]
    chart = alt.vconcat(
        alt.hconcat(
            _accuracy_chart(accuracy, style, labels), _changes_chart(tables["changes"]), spacing=50
        ).resolve_scale(color="independent"),
        alt.hconcat(_faithfulness_chart(tables["faithfulness"]), _size_chart(tables["faithfulness"]), spacing=50),
        alt.hconcat(_layer_count_chart(tables["layers"]), _layer_score_chart(tables["layers"]), spacing=50),
        spacing=26,
    ).resolve_scale(color="independent")
    configured: alt.VConcatChart = (
        chart.add_params(*params).configure_view(stroke=None).configure_axis(gridColor="#ececec")
    )
    return configured


def _as_html(chart: alt.VConcatChart, study: str) -> str:
    version = "v" + ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    with alt.data_transformers.enable("default", max_rows=None):
        specification = chart.to_dict()
    page = vl_convert.vegalite_to_html(specification, vl_version=version, bundle=True, renderer="svg")
    before, assignment, after = page.partition("const spec = ")
    in_script, line_end, rest = after.partition("\n")
    in_script = in_script.replace("<", r"\u003c")  # JSON's escape, so that no text of a table ends the script
    head, _, start = before.rpartition("</head>")  # the scripts in the head hold the tag as text, too
    name = escape(study)
    start = start.replace("<body>", "<body>" + _INTRODUCTION.format(study=name), 1)
    head = head.replace("<title>Chart</title>", f"<title>Circuit drift: {name}</title>") + _PAGE_STYLE
    return head + "</head>" + start + assignment + in_script + line_end + rest


def _dropdown(name: str, title: str, options: list[Any], label: Any) -> alt.Parameter:
    bind = alt.binding_select(options=options, labels=[label(option) for option in options], name=f"{title} ")
    return alt.param(name=name, value=options[0], bind=bind)


def _checkpoint_slider(accuracy: pd.DataFrame) -> alt.Parameter:
    last = int(accuracy["checkpoint"].astype(int).max())
    return alt.param(
        name="picked_checkpoint", value=last, bind=alt.binding_range(min=0, max=last, step=1, name="Checkpoint ")
    )


def _checkpoint_x() -> alt.X:
    return alt.X("at:Q", title="Checkpoint", axis=alt.Axis(tickMinStep=1, format="d"))


def _picked_rule(table: pd.DataFrame) -> alt.Chart:
    """A vertical line at the picked checkpoint."""
    one = alt.Chart(pd.DataFrame({"at": [0]})).transform_calculate(at="picked_checkpoint")
    return one.mark_rule(color="#999999", strokeDash=[3, 3]).encode(x=_checkpoint_x())


def _accuracy_chart(table: pd.DataFrame, style: Figures, labels: MethodLabels) -> alt.LayerChart:
    looks = method_styles(table["method"].unique().tolist(), style, labels)
    scale = alt.Scale(domain=[look.label for look in looks.values()], range=[look.colour for look in looks.values()])
    colour = alt.Color(
        "label:N",
        scale=scale,
        legend=alt.Legend(
            title=None, orient="bottom", columns=3, symbolType="stroke", symbolOpacity=1, symbolStrokeWidth=2
        ),
    )
    base = (
        alt.Chart(table)
        .transform_filter(f"{_RUN} && datum.seed === picked_seed")
        .transform_calculate(at="toNumber(datum.checkpoint)")
    )
    y = alt.Y("accuracy:Q", title="Test accuracy (%)", scale=alt.Scale(domain=[0, 100]))
    lines = base.mark_line().encode(
        x=_checkpoint_x(),
        y=y,
        color=colour,
        opacity=alt.condition("datum.method === picked_method", alt.value(1), alt.value(0.35)),
        strokeWidth=alt.condition("datum.method === picked_method", alt.value(3), alt.value(1.3)),
    )
    band = (
        base.transform_filter("datum.method === picked_method")
        .mark_area(opacity=0.2)
        .encode(x=_checkpoint_x(), y="lower:Q", y2="upper:Q", color=colour)
    )
    points = base.mark_point(filled=True, size=28).encode(
        x=_checkpoint_x(),
        y=y,
        color=colour,
        opacity=alt.condition("datum.method === picked_method", alt.value(1), alt.value(0.35)),
        tooltip=[
            alt.Tooltip("label:N", title="method"),
            "checkpoint:N",
            alt.Tooltip("accuracy:Q", title="accuracy (%)"),
            alt.Tooltip("lower:Q", title="lower (%)"),
            alt.Tooltip("upper:Q", title="upper (%)"),
            alt.Tooltip("n:Q", title="test prompts"),
        ],
    )
    layered: alt.LayerChart = (band + lines + points + _picked_rule(table)).properties(
        width=_WIDTH, height=_HEIGHT, title="Accuracy, all methods"
    )
    return layered


def _faithfulness_chart(table: pd.DataFrame) -> alt.LayerChart:
    """Over checkpoints, of the study's own circuit, whose size may differ between checkpoints."""
    sizes = table.loc[table["own_circuit"], "size"]
    share = f"{sizes.min():g}" if sizes.nunique() == 1 else f"{sizes.min():.2g} to {sizes.max():.2g}"
    base = (
        alt.Chart(table)
        .transform_filter(f"{_PICKED} && datum.own_circuit")
        .transform_calculate(at="toNumber(datum.checkpoint)")
    )
    colour = _metric_colour()
    y = alt.Y("faithfulness:Q", title="Faithfulness (%)")
    band = base.mark_area(opacity=0.18, clip=True).encode(
        x=_checkpoint_x(), y=alt.Y("lower:Q"), y2="upper:Q", color=colour
    )
    line = base.mark_line(point=True, clip=True).encode(
        x=_checkpoint_x(), y=y, color=colour, tooltip=_faithfulness_tooltip()
    )
    layered: alt.LayerChart = (band + line + _picked_rule(table)).properties(
        width=_WIDTH, height=_HEIGHT, title=f"Faithfulness of the circuit with {share} % of the edges"
    )
    return layered


def _size_chart(table: pd.DataFrame) -> alt.LayerChart:
    base = alt.Chart(table).transform_filter(f"{_PICKED} && {_AT_CHECKPOINT}")
    x = alt.X(
        "size:Q",
        title="Circuit size (% of all edges)",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(values=sorted(table["size"].unique().tolist()), format="~g"),
    )
    colour = _metric_colour()
    band = base.mark_area(opacity=0.18).encode(x=x, y="lower:Q", y2="upper:Q", color=colour)
    line = base.mark_line(point=True).encode(
        x=x, y=alt.Y("faithfulness:Q", title="Faithfulness (%)"), color=colour, tooltip=_faithfulness_tooltip()
    )
    layered: alt.LayerChart = (band + line).properties(
        width=_WIDTH, height=_HEIGHT, title="Faithfulness by circuit size at the checkpoint"
    )
    return layered


def _metric_colour() -> alt.Color:
    return alt.Color(
        "metric:N",
        scale=alt.Scale(domain=list(_METRICS.values()), range=["#029e73", "#cc78bc"]),
        legend=alt.Legend(title=None, orient="bottom", symbolOpacity=1),
    )


def _faithfulness_tooltip() -> list[Any]:
    return [
        "checkpoint:N",
        alt.Tooltip("metric:N", title="measure"),
        alt.Tooltip("size:Q", title="size (% of edges)"),
        alt.Tooltip("n_edges:Q", title="edges"),
        alt.Tooltip("faithfulness:Q", title="faithfulness (%)"),
        alt.Tooltip("lower:Q", title="lower (%)"),
        alt.Tooltip("upper:Q", title="upper (%)"),
    ]


def _change_colour() -> alt.Color:
    return alt.Color(
        "change:N",
        scale=alt.Scale(domain=["added", "removed"], range=[_ADDED, _REMOVED]),
        legend=alt.Legend(title=None, orient="bottom", symbolOpacity=1),
    )


def _signed_y(title: str) -> alt.Y:
    return alt.Y("signed:Q", title=title, axis=alt.Axis(labelExpr="format(abs(datum.value), ',')"))


def _changes_chart(table: pd.DataFrame) -> alt.LayerChart:
    bars = (
        alt.Chart(table)
        .transform_filter(f"{_PICKED} && datum.level === 'edge'")
        .mark_bar()
        .encode(
            x=alt.X(
                "checkpoint:O",
                title="Transition to checkpoint",
                axis=alt.Axis(labelAngle=0, labelExpr="toNumber(datum.value)"),
            ),
            y=_signed_y("Edges removed | added"),
            color=_change_colour(),
            opacity=alt.condition(_AT_CHECKPOINT, alt.value(1), alt.value(0.4)),
            tooltip=["checkpoint:N", "change:N", alt.Tooltip("count:Q", title="edges")],
        )
    )
    counts = (
        alt.Chart(table)
        .transform_filter(f"{_PICKED} && {_AT_CHECKPOINT}")
        .transform_aggregate(total="sum(count)", groupby=["level", "change"])
        .transform_pivot("change", value="total", groupby=["level"])
        .transform_calculate(
            text="datum.level + 's: ' + (datum.added || 0) + ' added, ' + (datum.removed || 0) + ' removed'",
            place=f"datum.level === 'node' ? 0 : {_WIDTH // 2}",
        )
        .mark_text(align="left", y=-8, fontSize=11, color="#555555")
        .encode(text="text:N", x=alt.X("place:Q", scale=None, axis=None))
    )
    title = alt.Title("Edges changed at each transition; the picked one, nodes too:", offset=22)
    layered: alt.LayerChart = (
        (bars + counts).resolve_scale(x="independent").properties(width=_WIDTH, height=_HEIGHT, title=title)
    )
    return layered


def _layer_count_chart(table: pd.DataFrame) -> alt.Chart:
    chart: alt.Chart = (
        alt.Chart(table)
        .transform_filter(f"{_PICKED} && {_AT_CHECKPOINT}")
        .mark_bar()
        .encode(
            x=_layer_x(),
            y=_signed_y("Edges removed | added"),
            color=_change_colour(),
            tooltip=["layer:O", "change:N", alt.Tooltip("count:Q", title="edges")],
        )
        .properties(width=_WIDTH, height=_HEIGHT, title="Edges changed by layer since the checkpoint before")
    )
    return chart


def _layer_score_chart(table: pd.DataFrame) -> alt.Chart:
    chart: alt.Chart = (
        alt.Chart(table)
        .transform_filter(f"{_PICKED} && {_AT_CHECKPOINT} && datum.change === 'added'")
        .mark_bar(color="#949494")
        .encode(
            x=_layer_x(),
            y=alt.Y("score_change_normalised:Q", title="Score change, normalised"),
            tooltip=[
                "layer:O",
                alt.Tooltip("score_change:Q", title="score change (nats)", format=".4g"),
                alt.Tooltip("score_change_normalised:Q", title="normalised", format=".4g"),
            ],
        )
        .properties(width=_WIDTH, height=_HEIGHT, title="Score change by layer since the checkpoint before")
    )
    return chart


def _layer_x() -> alt.X:
    return alt.X("layer:O", title="Layer", axis=alt.Axis(labelAngle=0))
