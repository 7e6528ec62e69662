"""The explorer without a browser: what it reads, how numbers are stored, how large the page is, what it escapes."""

from __future__ import annotations

import gzip
import importlib
import json
import re
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from explorer_tables import draw_page, reads_of
from figure_tables import LABELS, METHODS, MadeUpStudy, parallel_graph
from hypothesis import given
from hypothesis import strategies as st

import plot_figure
from circuitdrift.config.figures import Figures
from circuitdrift.figures import explorer, explorer_circuits
from circuitdrift.figures.circuit_before_after import COLOURS
from circuitdrift.figures.explorer_payload import NOT_A_NUMBER, membership, three_digits
from circuitdrift.figures.modules import read_files
from circuitdrift.figures.tidy import FigureDataError
from circuitdrift.provenance import Provenance
from circuitdrift.storage import StorageError, read_columns, read_table, read_tables

STYLE = Figures(dpi=60)
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
ATTACK = "</script><script>alert(1)</script><!--</head>@PAYLOAD@{study}"


@pytest.fixture
def small(tmp_path: Path) -> MadeUpStudy:
    return MadeUpStudy(
        tmp_path / "in", tasks=("add_sub_100",), methods=("lora_r2", "lora_r8"), n_checkpoints=2, n_layers=2, n_heads=2
    )


def tidied(reads: dict[str, list[Path]]) -> explorer.Explored:
    return explorer.tidy(**read_files(reads, explorer.READS_ITSELF), sub_tasks={})


def unpacked(page: str) -> tuple[dict[str, Any], bytes]:
    """The header and the sections of the data in a page."""
    (text,) = re.findall(r'id="payload">([^<]*)</script>', page)
    content = gzip.decompress(b64decode(text))
    end = 4 + int.from_bytes(content[:4], "little")
    return json.loads(content[4:end]), content[end:]


def numbers_of(page: str, name: str) -> list[int]:
    header, content = unpacked(page)
    place = header["sections"][name]
    part = np.frombuffer(content, np.uint8)[place["start"] :]
    low, high = part[: place["length"]], part[place["length"] : 2 * place["length"]]
    return (low if place["bytes"] == 1 else low + 256 * high.astype(int)).tolist()


def decoded(code: int) -> float:
    """A number from its code, digit by digit."""
    rest = code & 0x7FFF
    if rest == NOT_A_NUMBER:
        return float("nan")
    exponent, digits = divmod(rest - 1, 900)
    return 0.0 if rest == 0 else float(f"{'-' if code >> 15 else ''}{digits + 100}e{exponent - 27}")


# ------------------------------------------------------------------------------------------ numbers


@given(st.lists(st.floats(-9e10, 9e10).filter(lambda x: x == 0 or abs(x) > 1e-24), min_size=1))
def test_numbers_are_stored_as_python_prints_them_with_three_digits(values: list[float]) -> None:
    codes = three_digits(np.array(values))
    assert [decoded(int(code)) for code in codes] == [float(f"{value:.2e}") for value in values]


@given(st.lists(st.floats(-1e10, 1e10, width=32), min_size=1))
def test_scores_are_stored_as_python_prints_them_with_three_digits(values: list[float]) -> None:
    codes = three_digits(np.array(values, dtype=np.float32))
    wanted = [float(f"{value:.2e}") if abs(value) >= 1e-25 else 0.0 for value in values]
    assert [decoded(int(code)) for code in codes] == wanted


def test_powers_of_ten_nothing_and_what_is_no_number_are_stored() -> None:
    powers = [10.0**power for power in range(-25, 11)]
    assert [decoded(int(code)) for code in three_digits(np.array(powers))] == pytest.approx(powers, rel=1e-12)
    assert three_digits(np.array([0.0, 1e-30, np.nan])).tolist() == [0, 0, NOT_A_NUMBER]
    assert decoded(int(three_digits(np.array([0.99951]))[0])) == 1.0
    for large in (1e11, np.inf):
        with pytest.raises(ValueError, match="too large"):
            three_digits(np.array([large]))


def test_rows_of_members_are_stored_as_differences() -> None:
    rows = [np.array([1, 0, 1, 0, 0, 0, 0, 0, 1], bool), np.array([1, 0, 0, 0, 0, 0, 0, 0, 1], bool)]
    assert membership(rows).tolist() == [0b101, 0b1, 0b100, 0]
    assert membership([]).tolist() == []


# ------------------------------------------------------------------------------------------ what is read


def test_circuits_are_the_kept_edges_of_the_tables(small: MadeUpStudy) -> None:
    reads = reads_of(small)
    explored = tidied(reads).circuits
    names = explored.nodes["tiny-neox"]["node"].tolist()
    assert len(explored.circuits) == len(reads["explored_edges"]) == 1 + 4 * 2
    for circuit, path in zip(explored.circuits, reads["explored_edges"], strict=True):
        table = read_table(path, "edges")
        found = set()
        for number, score in zip(circuit.edges.tolist(), circuit.scores.tolist(), strict=True):
            pair, place = divmod(number, 4)
            source, target = divmod(pair, len(names))
            found.add((names[source], names[target], explorer_circuits.INPUTS[place], score))
        kept = table[table["in_circuit"]].fillna({"qkv": ""})
        assert found == set(kept[["source", "target", "qkv", "score"]].itertuples(index=False, name=None))
    run = ("tiny-neox", "add_sub_100", "lora_r8", 1)
    assert [explored.circuits[place].checkpoint for place in explored.series_of(run)] == ["00", "01", "02"]
    assert explored.series_of(run)[0] == explored.series_of(("tiny-neox", "add_sub_100", "lora_r2", 0))[0]


def test_certainty_is_that_of_the_edges_of_either_circuit(small: MadeUpStudy) -> None:
    reads = reads_of(small)
    explored = tidied(reads).circuits
    for run, path in zip(explored.changes, reads["explored_changes"], strict=True):
        table = read_table(path, "edges_changed")
        series = explored.series_of(run)
        ends = [read_table(reads["explored_edges"][place], "edges")["in_circuit"] for place in (series[0], series[-1])]
        wanted = table[ends[0] | ends[1]]
        found = explored.changes[run].edges
        for name in found:
            assert sorted(found[name].tolist()) == sorted(wanted[name].tolist())
        assert set(explored.changes[run].nodes) <= {"kept", "gained", "lost", "outside", "undecided"}


def test_nodes_stand_in_the_rows_of_their_layers(small: MadeUpStudy) -> None:
    nodes = tidied(reads_of(small)).circuits.nodes["tiny-neox"].set_index("node")
    assert nodes.loc[["input", "a0.h1", "a1.h0", "logits"], "y"].tolist() == [0, 1, 2, 3]
    assert 2 < nodes.loc["m1", "y"] < 3


def test_a_table_of_another_graph_is_refused(small: MadeUpStudy, tmp_path: Path) -> None:
    reads = reads_of(small)
    larger = reads_of(
        MadeUpStudy(tmp_path / "other", tasks=small.tasks, methods=("lora_r2",), n_checkpoints=2, n_layers=3)
    )
    with pytest.raises(FigureDataError, match="a node that the model's nodes table lacks"):
        tidied({**reads, "explored_edges": larger["explored_edges"]})
    with pytest.raises(FigureDataError, match="a node that the model's nodes table lacks"):
        tidied({**reads, "explored_changes": larger["explored_changes"]})


def test_runs_that_would_make_the_page_too_large_are_left_out(small: MadeUpStudy) -> None:
    reads = reads_of(small)
    nodes = read_tables(reads["explored_nodes"], "nodes")
    all_kept = explorer_circuits.read_explored(nodes, reads["explored_edges"], reads["explored_changes"])
    of_two = sum(len(circuit.edges) for circuit in all_kept.circuits[:4])
    fewer = explorer_circuits.read_explored(nodes, reads["explored_edges"], reads["explored_changes"], limit=of_two - 1)
    assert (all_kept.left_out, len(all_kept.changes)) == (0, 4)
    assert (fewer.left_out, len(fewer.changes), len(fewer.circuits)) == (2, 2, 5)


def test_a_column_that_a_file_lacks_is_named(small: MadeUpStudy) -> None:
    path = reads_of(small)["explored_edges"][0]
    assert read_columns(path, "edges", ["score", "source"]).column_names == ["score", "source"]
    with pytest.raises(StorageError, match=r"column \['effect'\] missing"):
        read_columns(path, "edges", ["score", "effect"])


# ------------------------------------------------------------------------------------------ the page


def test_the_page_holds_the_scores_and_runs_in_order(small: MadeUpStudy, tmp_path: Path) -> None:
    reads = reads_of(small)
    draw_page(tmp_path / "page.html", reads)
    page = (tmp_path / "page.html").read_text()
    header, _ = unpacked(page)
    explored = tidied(reads).circuits
    assert [decoded(code) for code in numbers_of(page, "scores")] == [
        float(f"{score:.2e}") for circuit in explored.circuits for score in circuit.scores.tolist()
    ]
    assert [circuit["kept"] for circuit in header["circuits"]] == [len(circuit.edges) for circuit in explored.circuits]
    assert [(run["group"], run["label"]) for run in header["runs"]] == [
        ("Add/Sub (100)", f"LoRA r={rank}, seed {seed}") for rank in (2, 8) for seed in (0, 1)
    ]
    effects = [changes.edges["effect"].tolist() for changes in explored.changes.values()]
    assert [decoded(code) for code in numbers_of(page, "effect")] == [
        float(f"{e:.2e}") for of_run in effects for e in of_run
    ]
    assert header["tables"]["layers"]["layer"]
    assert set(header["charts"]) == set(header["table_of"])


def test_the_page_needs_no_network_and_takes_many_rows(tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path / "in", tasks=("lcm",), methods=("lora_r2",), n_checkpoints=1, n_layers=2, n_heads=2)
    reads = reads_of(study)
    deep = MadeUpStudy(tmp_path / "deep", tasks=("lcm",), methods=("lora_r2",), n_checkpoints=2, n_layers=800)
    draw_page(tmp_path / "page.html", {**reads, "layers": deep.layers()})
    text = (tmp_path / "page.html").read_text()
    assert not re.search(r"<(script|img|iframe)[^>]* src=|<link|@import|url\(", text.split('id="payload"')[0])
    assert "default-src 'none'" in text
    assert text.rstrip().endswith("</html>")
    assert "<h1>Circuit drift: smoke</h1>" in text
    assert not re.search(r"@[A-Z]+@", text)


def test_no_name_ends_a_script_or_the_heading(small: MadeUpStudy) -> None:
    read = read_files(reads_of(small), explorer.READS_ITSELF)
    named = {
        name: table.replace({"task": {"add_sub_100": ATTACK}}) if isinstance(table, pd.DataFrame) else table
        for name, table in read.items()
    }
    explored = explorer.tidy(**named, sub_tasks={})
    for circuit in explored.circuits.circuits:
        object.__setattr__(circuit, "task", ATTACK)
    changes = {(run[0], ATTACK, *run[2:]): found for run, found in explored.circuits.changes.items()}
    page = explorer.draw(
        explorer.Explored(
            explored.charts,
            explorer_circuits.ExploredCircuits(explored.circuits.nodes, explored.circuits.circuits, changes, 0),
        ),
        STYLE,
        LABELS,
        ATTACK,
    )
    assert "<script>alert" not in page
    assert page.count("&lt;/script&gt;&lt;script&gt;alert") == 2  # the title and the heading
    assert page.count("</script>") == 3
    assert {run["task"] for run in unpacked(page)[0]["runs"]} == {ATTACK}


def test_an_empty_circuit_and_a_single_checkpoint_have_a_page(tmp_path: Path) -> None:
    study = MadeUpStudy(
        tmp_path / "in", tasks=("lcm",), methods=("lora_r2",), seeds=(0,), n_checkpoints=1, n_layers=2, n_heads=2
    )
    reads = reads_of(study)
    edges, _ = parallel_graph(2, 2)
    empty = edges.assign(score=0.0, in_circuit=False)
    run = next(study.runs())
    reads["explored_edges"][-1] = study.write("edges", empty, "edges", **run, checkpoint="01")
    draw_page(tmp_path / "page.html", reads)
    header, _ = unpacked((tmp_path / "page.html").read_text())
    assert [circuit["kept"] > 0 for circuit in header["circuits"]] == [True, False]
    assert header["runs"][0]["changes"] == header["circuits"][0]["kept"]


def test_same_tables_same_page(small: MadeUpStudy, tmp_path: Path) -> None:
    reads = reads_of(small)
    for name in ("one.html", "other.html"):
        plot_figure.main(
            "explorer",
            reads,
            {"html": tmp_path / name},
            {"study": "s", "sub_tasks": {}},
            METHODS,
            STYLE,
            Provenance.detached(),
        )
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "other.html").read_bytes()


def test_the_explorer_marks_the_studys_own_circuit(small: MadeUpStudy) -> None:
    sizes = tidied(reads_of(small)).charts["faithfulness"]
    assert set(sizes.loc[sizes["own_circuit"], "size"]) == {5.0}


def test_the_page_has_the_colours_of_the_figure_of_two_circuits(small: MadeUpStudy, tmp_path: Path) -> None:
    draw_page(tmp_path / "page.html", reads_of(small))
    style = (tmp_path / "page.html").read_text().split("</style>")[0]
    for status, colour in COLOURS.items():
        assert f"--{status}: {colour};" in style


@pytest.fixture(scope="module")
def made_up() -> Iterator[Callable[[float], explorer.Explored]]:
    """Four runs of Pythia-1.4B's shape, of the twenty of the benchmark, by the share of edges in their circuits."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(BENCHMARKS))
        benchmark = importlib.import_module("explorer")
        for name in ("explorer", "measuring"):
            sys.modules.pop(name, None)
        yield lambda fraction: benchmark.large_study(1, 10, (24, 16), fraction)


def test_a_large_study_is_below_ten_megabytes(made_up: Callable[[float], explorer.Explored]) -> None:
    """What four runs take beside Vega must leave room for sixteen more."""
    study = made_up(0.05)
    assert max(len(circuit.edges) for circuit in study.circuits.circuits) == 11_575
    page = explorer.draw(study, STYLE, LABELS, "large")
    rest = len(page.split('id="payload">')[0]) + len(page.split("</script>", 1)[1])
    assert rest + 5 * (len(page) - rest) < 10_000_000


def test_no_page_reaches_ten_megabytes(made_up: Callable[[float], explorer.Explored]) -> None:
    page = explorer.draw(made_up(0.35), STYLE, LABELS, "larger")
    header, _ = unpacked(page)
    assert (header["left_out"], len(header["runs"])) == (1, 3)
    assert 9_000_000 < len(page.encode()) < 10_000_000


def test_a_page_leaves_out_the_last_where_it_is_not_smaller_than_the_limit(small: MadeUpStudy) -> None:
    table = tidied(reads_of(small))
    whole = explorer.draw(table, STYLE, LABELS, "small")
    n_bytes = len(whole.encode())
    assert explorer.page_below(n_bytes + 1, table, STYLE, LABELS, "small") == whole
    fewer = explorer.page_below(n_bytes, table, STYLE, LABELS, "small")
    header, _ = unpacked(fewer)
    assert len(fewer.encode()) < n_bytes
    assert [(run["method"], run["seed"]) for run in header["runs"]] == [("lora_r2", 0), ("lora_r2", 1), ("lora_r8", 0)]
    assert header["left_out"] == 1
    charted = {*zip(header["tables"]["layers"]["method"], header["tables"]["layers"]["seed"], strict=True)}
    assert charted == {("lora_r2", 0), ("lora_r2", 1), ("lora_r8", 0)}
    none, _ = unpacked(explorer.page_below(_without_runs(table) + 1, table, STYLE, LABELS, "small"))
    assert (none["runs"], none["circuits"], none["left_out"]) == ([], [], 4)
    with pytest.raises(FigureDataError, match="without any run"):
        explorer.page_below(_without_runs(table), table, STYLE, LABELS, "small")


def _without_runs(table: explorer.Explored) -> int:
    return len(explorer.draw(table.first(0), STYLE, LABELS, "small").encode())
