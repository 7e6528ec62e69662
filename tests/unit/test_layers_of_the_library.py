"""Imports run one way: between the packages of the library, and between the modules inside each of them."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import circuitdrift

LIBRARY = Path(circuitdrift.__file__).parent

# From the bottom up. A module may import from its own package and from those above it in this list.
LAYERS = [
    "errors",
    "calls",
    "removal",
    "provenance",
    "schemas",
    "seals",
    "storage",
    "section",
    "tasks",
    "config",
    "layout",
    "runs",
    "given_runs",
    "study",
    "planned_job",
    "reporting",
    "cards",
    "preloaded",
    "job_arguments",
    "job_usage",
    "stage",
    "compute",
    "intervals",
    "comparisons",
    "method_pairs",
    "randomisation",
    "decoder",
    "models",
    "planning",
    "checks",
    "allocation",
    "training",
    "circuits",
    "drift",
    "composition",
    "verdicts",
    "figures",
]


def module_name(path):
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): path for path in LIBRARY.rglob("*.py")}


def imported_modules(path):
    """Modules of the library that a module imports anywhere, also inside functions and for type checking."""
    dotted = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            dotted |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            dotted |= {alias.name for alias in node.names}
    own = {name.removeprefix("circuitdrift.") for name in dotted if name.startswith("circuitdrift.")}
    return own & set(MODULES)


def package_of(module):
    return module.split(".")[0]


def test_every_package_has_its_place_in_the_order():
    assert {package_of(module) for module in MODULES if module} == set(LAYERS)


def test_no_package_imports_from_one_further_up():
    wrong = [
        f"{module} imports {imported}"
        for module, path in MODULES.items()
        if module
        for imported in sorted(imported_modules(path))
        if LAYERS.index(package_of(imported)) > LAYERS.index(package_of(module))
    ]
    assert not wrong, wrong


def test_no_circle_of_modules():
    graph = {
        module: {name for name in imported_modules(path) if name in MODULES and name != module}
        for module, path in MODULES.items()
        if module and path.name != "__init__.py"
    }
    TopologicalSorter(graph).prepare()
