"""The documents: cited anchors exist, links resolve, and nothing cites pages that this repository does not have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["workflow_scripts", "rules", "docs", "config", "configs", "workflow", "tests", "profiles", "benchmarks"]
SUFFIXES = {".py", ".smk", ".md", ".rst", ".yaml", ".json", ".sh"}
METHOD = ROOT / "docs" / "method.md"

TEXTS = [
    *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES),
    *sorted(ROOT.glob("*.md")),
    *(ROOT / name for name in ("config.yaml", "Snakefile", "Makefile", "results/README.md")),
]
PAGES = [path for path in TEXTS if path.suffix == ".md"]


def anchors_of(page):
    """Explicit anchors, and those that GitHub gives to headings."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return {*re.findall(r'<a id="([^"]+)"></a>', text), *slugs}


def local_links(page):
    """Targets of the Markdown links of a page that point into this repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    return [target for target in targets if "://" not in target]


def test_every_cited_anchor_of_the_method_is_explicit_in_that_page():
    explicit = set(re.findall(r'<a id="([^"]+)"></a>\n## ', METHOD.read_text()))
    cited = {(path, anchor) for path in TEXTS for anchor in re.findall(r"method\.md#([\w-]+)", path.read_text())}
    wrong = sorted(f"{path.relative_to(ROOT)}: #{anchor}" for path, anchor in cited if anchor not in explicit)
    assert not wrong, wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_resolve(page):
    broken = []
    for link in local_links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert not broken, broken


def test_no_file_cites_a_page_that_the_repository_does_not_have():
    foreign = re.compile(r"\b(?:PAPER|DESIGN)\b")
    citing = [
        f"{path.relative_to(ROOT)}" for path in TEXTS if str(path) != __file__ and foreign.search(path.read_text())
    ]
    assert not citing, citing
