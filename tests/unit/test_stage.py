"""The binder between a Snakemake job and a script's main."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError
from snakemake.iocontainers import Namedlist

from circuitdrift import stage
from circuitdrift.config.methods import LoraMethod, MethodConfig
from circuitdrift.provenance import Provenance, digest_of_config


def job(inputs=(), outputs=(), params=(), log=()):
    def named(items):
        return Namedlist(fromdict=dict(items))

    return SimpleNamespace(
        rule="demo",
        input=named(inputs),
        output=named(outputs),
        params=named(params),
        wildcards=named({"seed": "7"}),
        log=log,
    )


def main(
    first: Path, many: list[Path], none: Path | None, method: MethodConfig, n: int, provenance: Provenance
) -> None:
    """A stage."""


VALUES = {
    "inputs": {"first": "a.parquet", "many": ["b", "c"], "none": []},
    "params": {"method": {"kind": "lora", "rank": 2}, "n": 3, "code": "digest"},
}


def test_values_arrive_as_the_annotated_types():
    given = stage.arguments(main, job(**VALUES))
    assert given["first"] == Path("a.parquet")
    assert given["many"] == [Path("b"), Path("c")]
    assert given["none"] is None
    assert given["method"] == LoraMethod(kind="lora", rank=2)
    origin = given["provenance"]
    assert (origin.rule, origin.wildcards, origin.seed, origin.code_digest) == ("demo", {"seed": "7"}, 7, "digest")
    assert origin.config_digest == digest_of_config({"method": {"kind": "lora", "rank": 2}, "n": 3})


def test_provenance_goes_only_to_a_main_that_asks_for_it():
    def without(n: int) -> None:
        """A stage whose outputs have no place for their origin."""

    assert stage.arguments(without, job(params={"n": 3, "code": "digest"})) == {"n": 3}


def test_a_main_that_asks_for_no_provenance_gets_none():
    def plain(n: int) -> None:
        """A stage."""

    assert stage.arguments(plain, job(params={"n": 3, "code": "digest"})) == {"n": 3}


def test_one_file_is_a_list_of_one_where_several_may_come():
    values = {**VALUES, "inputs": {**VALUES["inputs"], "many": "b"}}
    assert stage.arguments(main, job(**values))["many"] == [Path("b")]


def test_a_value_of_another_type_is_refused():
    values = {**VALUES, "params": {**VALUES["params"], "n": "three"}}
    with pytest.raises(ValidationError):
        stage.arguments(main, job(**values))


def test_a_failing_stage_leaves_its_traceback_in_the_job_log(tmp_path, monkeypatch):
    import sys

    def failing(provenance: Provenance) -> None:
        raise ValueError("the loss is NaN")

    running = job(params={"code": "digest"}, log=[str(tmp_path / "logs" / "job.log")])
    monkeypatch.setattr(sys.modules["__main__"], "snakemake", running, raising=False)
    with pytest.raises(ValueError, match="NaN"):
        stage.run(failing)
    assert "the loss is NaN" in (tmp_path / "logs" / "job.log").read_text()
