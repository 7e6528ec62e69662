"""From a job of Snakemake to the keywords of a stage's ``main``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError

from circuitdrift.provenance import Provenance


def arguments(main: Callable[..., None], job: Any) -> dict[str, Any]:
    """The keywords to call ``main`` with, from a Snakemake job object."""
    settings = _named(job.params)
    code = settings.pop("code")
    given = {**_named(job.input), **_named(job.output), **settings}
    keywords = inspect.signature(main).parameters
    if "provenance" in keywords:
        given["provenance"] = Provenance.of_rule(job.rule, _named(job.wildcards), settings, code)
    hints = get_type_hints(main)
    return {name: _convert(given[name], hints[name]) for name in keywords}


def _named(values: Any) -> dict[str, Any]:
    return {name: getattr(values, name) for name in values.keys()}  # noqa: SIM118


def _convert(value: Any, annotation: Any) -> Any:
    """Validate a value as an annotated type; no files at all mean None where the type allows it."""
    if isinstance(value, Provenance):
        return value
    adapter = _adapter(annotation)
    if isinstance(value, list | tuple):
        value = [str(item) if isinstance(item, str) else item for item in value]
        if not value and type(None) in getattr(annotation, "__args__", ()):
            return None
    elif _is_list(annotation):
        value = [str(value)]
    return adapter.validate_python(str(value) if isinstance(value, str) else value)


def _is_list(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is list


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:
        return TypeAdapter(annotation)
