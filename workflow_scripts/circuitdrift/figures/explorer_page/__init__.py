"""The page of the explorer: the HTML, styles and scripts beside this file, joined with data and Vega into one file."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path

import vl_convert

FOLDER = Path(__file__).resolve().parent
SCRIPTS = ("data.js", "compare.js", "compose.js", "graph.js", "panel.js", "page.js")
"""In the order in which the page runs them: later ones use what earlier ones define."""


def page_of(study: str, payload: bytes, colours: Mapping[str, str]) -> str:
    """The page as one file that loads nothing else.

    Args:
        study: the study's name, for the heading.
        payload: the data (:func:`circuitdrift.figures.explorer_payload.pack`).
        colours: of the classes of edges, on a light ground.
    """
    variables = " ".join(f"--{name}: {colour};" for name, colour in colours.items())
    parts = {
        "STUDY": escape(study),
        "STYLE": f":root {{ {variables} }}\n{_text('page.css')}",
        "PAYLOAD": b64encode(payload).decode(),
        "VEGA": _vega(),
        "SCRIPTS": "\n".join(map(_text, SCRIPTS)),
    }
    return re.sub(r"@([A-Z]+)@", lambda found: parts[found[1]], _text("page.html"))


@cache
def _vega() -> str:
    """Vega, Vega-Lite and vega-embed; bundling them takes seconds."""
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
