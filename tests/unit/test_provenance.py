"""Digests: what changes them and what does not."""

from __future__ import annotations

import pytest

from circuitdrift import provenance
from circuitdrift.provenance import BASE_CHECKPOINT, checkpoint_names, digest_of_code, digest_of_config


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A small library and script, and a function that gives the script's digest as it stands."""
    root = tmp_path / "circuitdrift"
    (root / "part").mkdir(parents=True)
    for name, text in {
        "__init__.py": "",
        "part/__init__.py": "",
        "part/used.py": "from circuitdrift import deep\n",
        "deep.py": "X = 1\n",
        "unused.py": "Y = 1\n",
    }.items():
        (root / name).write_text(text)
    script = tmp_path / "script.py"
    script.write_text(
        '"""Doc."""\nfrom circuitdrift.part.used import deep\n\n\ndef main():\n    """Doc."""\n    return deep\n'
    )
    monkeypatch.setattr(provenance, "LIBRARY", root)

    def digest(*modules: str) -> str:
        for function in (provenance._code_of_module, provenance._files_of):
            function.cache_clear()
        return digest_of_code(script, *(root / module for module in modules))

    yield tmp_path, digest
    for function in (provenance._code_of_module, provenance._files_of):
        function.cache_clear()


@pytest.mark.parametrize(
    ("file", "text", "changes"),
    [
        ("circuitdrift/deep.py", "X = 2\n", True),
        ("circuitdrift/deep.py", "# why\nX  =  1\n", False),
        ("circuitdrift/deep.py", '"""Doc."""\nX = 1\n', False),
        ("circuitdrift/unused.py", "Y = 2\n", False),
        ("circuitdrift/part/__init__.py", "Z = 1\n", True),
        ("circuitdrift/part/used.py", "from circuitdrift import deep, unused\n", True),
    ],
)
def test_the_digest_of_code_follows_what_is_imported(library, file, text, changes):
    folder, digest = library
    before = digest()
    (folder / file).write_text(text)
    assert (digest() != before) is changes


def test_the_digest_of_code_follows_modules_that_the_script_loads_by_name(library):
    folder, digest = library
    before = digest("unused.py")
    assert before != digest()
    (folder / "circuitdrift" / "unused.py").write_text("from circuitdrift import other\n")
    (folder / "circuitdrift" / "other.py").write_text("Z = 1\n")
    with_other = digest("unused.py")
    (folder / "circuitdrift" / "other.py").write_text("Z = 2\n")
    assert len({before, with_other, digest("unused.py")}) == 3


def test_the_digest_of_code_follows_the_parts_of_a_page_to_the_byte(library):
    folder, digest = library
    page = folder / "circuitdrift" / "page"
    page.mkdir()
    (page / "__init__.py").write_text("")
    (folder / "circuitdrift" / "uses.py").write_text("from circuitdrift.page import x\n")
    found = {digest("uses.py")}
    for name, text in (
        ("page.js", "// a"),
        ("page.js", "// b"),
        ("page.css", ""),
        ("page.html", "<p>"),
        ("notes.txt", ""),
    ):
        (page / name).write_text(text)
        found.add(digest("uses.py"))
    assert len(found) == 5  # the notes are no part


def test_checkpoints_are_numbered_from_the_base_model_on():
    assert checkpoint_names(0) == (BASE_CHECKPOINT,)
    assert checkpoint_names(11)[:2] == ("00", "01")
    assert checkpoint_names(11)[-1] == "11"


def test_the_digest_of_config_ignores_the_order_of_keys_only():
    assert digest_of_config({"a": 1, "b": [1, 2]}) == digest_of_config({"b": [1, 2], "a": 1})
    assert digest_of_config({"b": [1, 2]}) != digest_of_config({"b": [2, 1]})
