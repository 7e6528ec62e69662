"""The documentation site: it builds without a warning and loads nothing, and its reference is what the code says."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from circuitdrift.schemas import SCHEMAS

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "rules"


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "site" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site; a broken link, a missing anchor, or a page that is not in the menu ends its building."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_of_the_documentation_is_in_the_site(site):
    pages = {path.relative_to(ROOT).with_suffix(".html") for path in (ROOT / "docs").glob("*.md")}
    assert len(pages) > 10
    assert [str(page) for page in pages if not (site / page).is_file()] == []
    for page in ("index.html", "results/index.html", "docs/images/layer_certainty.png", "config.yaml"):
        assert (site / page).is_file(), page


def test_the_site_loads_nothing_from_the_network(site):
    loading = re.compile(
        r"""<(?:script|img|iframe|source)\b[^>]*\ssrc=["']?(?:https?:)?//|@import|<link[^>]*\shref=["']?(?:https?:)?//"""
    )
    assert [str(page) for page in site.rglob("*.html") if loading.search(page.read_text())] == []


def test_formulas_need_no_script(site):
    page = (site / "docs" / "method.html").read_text()
    assert page.count("<math ") > 50
    assert "arithmatex" not in page


def test_the_reference_of_the_config_has_every_key(hooks):
    schema = json.loads((ROOT / "configs" / "study.schema.json").read_text())
    page = hooks.config_reference(schema)
    for section in (schema, *schema["$defs"].values()):
        assert [key for key in section.get("properties", {}) if f"| `{key}` | " not in page] == []
    assert "| `rank` | integer ≥ 1 | required |" in page
    assert '| `quadrature` | `right`, `left`, `midpoint`, `gauss-legendre` | `"right"` |' in page


def test_the_reference_of_targets_has_every_rule(hooks):
    page = hooks.targets_reference(sorted(RULES.glob("*.smk")))
    named = {
        name
        for file in RULES.glob("*.smk")
        for name in re.findall(r"^ *(?:rule|use rule report as) (\w+)(?: with)?:", file.read_text(), re.MULTILINE)
    }
    assert len(named) > 40
    assert [name for name in named if f"| `{name}` | " not in page] == []
    assert "| `plot_{name}` | Draw a figure. |" in page
    assert "`report_folder` | Make the same report as a folder" in page
    assert page.count("\n- **makes** ") == page.count("\n## ")


def test_the_reference_of_files_has_every_column(hooks):
    page = hooks.files_reference()
    assert [name for name in SCHEMAS if f"\n## {name}\n" not in page] == []
    assert all(f"| `{field.name}` | {field.type} |" in page for schema in SCHEMAS.values() for field in schema)


def test_the_reference_of_the_library_says_what_the_code_says(hooks):
    page = hooks.library_reference()
    assert "## circuitdrift.calls\n\nOne call of Snakemake at a time on the results of a study" in page
    assert "| `only_call` | Hold a study's results for one call of Snakemake, and no other. |" in page


def test_every_key_of_the_reference_has_a_meaning(hooks):
    page = hooks.config_reference(json.loads((ROOT / "configs" / "study.schema.json").read_text()))
    assert [line for line in page.splitlines() if line.startswith("| `") and line.endswith("|  |")] == []
