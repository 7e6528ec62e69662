"""The charts of the explorer beside its graph: accuracy, faithfulness, and changes by checkpoint and by layer."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from circuitdrift.config.figures import Figures
from circuitdrift.figures.labels import MethodLabels
from circuitdrift.figures.style import method_styles
from circuitdrift.figures.tidy import RUN, in_percent, only_neighbouring, spread_base

TABLE_OF = {
    "accuracy": "accuracy",
    "changes": "changes",
    "faithfulness": "faithfulness",
    "sizes": "faithfulness",
    "layer_counts": "layers",
    "layer_scores": "layers",
}
"""The table that each chart reads."""

_HEIGHT = 170
_ADDED, _REMOVED = "#0072B2", "#D55E00"
_METRICS = {"kl_model_circuit": "to the model's output", "kl_from_corrupted": "as in the paper"}
_AT_CHECKPOINT = "toNumber(datum.checkpoint) === picked_checkpoint"


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


def charts(tables: dict[str, pd.DataFrame], style: Figures, labels: MethodLabels) -> dict[str, dict[str, Any]]:
    """Six Vega-Lite specifications, by name. The page fills their data with the rows of the run that it shows.

    Each reads the table that :data:`TABLE_OF` names, and the parameters ``picked_method`` and ``picked_checkpoint``.

    Args:
        tables: from :func:`tidy`; they say which methods, and which sizes of circuits, there are.
        style: the study's figure settings.
        labels: of the study's methods.
    """
    drawn = {
        "accuracy": _accuracy_chart(tables["accuracy"], style, labels),
        "changes": _changes_chart(),
        "faithfulness": _faithfulness_chart(tables["faithfulness"]),
        "sizes": _size_chart(tables["faithfulness"]),
        "layer_counts": _layer_count_chart(),
        "layer_scores": _layer_score_chart(),
    }
    return {name: _specification(chart) for name, chart in drawn.items()}


def _specification(chart: alt.Chart | alt.LayerChart) -> dict[str, Any]:
    params = [alt.param(name="picked_method", value=""), alt.param(name="picked_checkpoint", value=0)]
    # Labels of axes become wider with other data; without a new layout they run into the axes' titles.
    fitted = alt.AutoSizeParams(type="fit-x", contains="padding", resize=True)
    sized = chart.add_params(*params).properties(width="container", height=_HEIGHT, autosize=fitted)
    configured = sized.configure_view(stroke=None)
    found: dict[str, Any] = configured.to_dict()
    return found


def _data(name: str) -> alt.Chart:
    """A chart of a table that the page fills."""
    return alt.Chart(alt.NamedData(name=name))


def _checkpoint_x() -> alt.X:
    whole = alt.Axis(labelExpr="datum.value % 1 ? '' : datum.value")
    return alt.X("at:Q", title="Checkpoint", axis=whole)


def _picked_rule() -> alt.Chart:
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
    base = _data("accuracy").transform_calculate(at="toNumber(datum.checkpoint)")
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
    layered: alt.LayerChart = (band + lines + points + _picked_rule()).properties(title="Accuracy, all methods")
    return layered


def _faithfulness_chart(table: pd.DataFrame) -> alt.LayerChart:
    """Over checkpoints, of the study's own circuit, whose size may differ between checkpoints."""
    sizes = table.loc[table["own_circuit"], "size"]
    share = f"{sizes.min():g}" if sizes.nunique() == 1 else f"{sizes.min():.2g} to {sizes.max():.2g}"
    base = (
        _data("faithfulness").transform_filter("datum.own_circuit").transform_calculate(at="toNumber(datum.checkpoint)")
    )
    colour = _metric_colour()
    y = alt.Y("faithfulness:Q", title="Faithfulness (%)")
    band = base.mark_area(opacity=0.18, clip=True).encode(
        x=_checkpoint_x(), y=alt.Y("lower:Q"), y2="upper:Q", color=colour
    )
    line = base.mark_line(point=True, clip=True).encode(
        x=_checkpoint_x(), y=y, color=colour, tooltip=_faithfulness_tooltip()
    )
    layered: alt.LayerChart = (band + line + _picked_rule()).properties(
        title=f"Faithfulness with {share} % of the edges"
    )
    return layered


def _size_chart(table: pd.DataFrame) -> alt.LayerChart:
    base = _data("faithfulness").transform_filter(_AT_CHECKPOINT)
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
    layered: alt.LayerChart = (band + line).properties(title="Faithfulness by circuit size")
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


def _changes_chart() -> alt.Chart:
    chart: alt.Chart = (
        _data("changes")
        .transform_filter("datum.level === 'edge'")
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
            tooltip=["checkpoint:N", "change:N", alt.Tooltip("count:Q", title="merged edges")],
        )
        .properties(title="Edges changed since the checkpoint before")
    )
    return chart


def _layer_count_chart() -> alt.Chart:
    chart: alt.Chart = (
        _data("layers")
        .transform_filter(_AT_CHECKPOINT)
        .mark_bar()
        .encode(
            x=_layer_x(),
            y=_signed_y("Edges removed | added"),
            color=_change_colour(),
            tooltip=["layer:O", "change:N", alt.Tooltip("count:Q", title="merged edges")],
        )
        .properties(title="Edges changed by layer")
    )
    return chart


def _layer_score_chart() -> alt.Chart:
    chart: alt.Chart = (
        _data("layers")
        .transform_filter(f"{_AT_CHECKPOINT} && datum.change === 'added'")
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
        .properties(title="Score change by layer")
    )
    return chart


def _layer_x() -> alt.X:
    return alt.X("layer:O", title="Layer", axis=alt.Axis(labelAngle=0, labelOverlap=True))
