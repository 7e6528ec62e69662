"""The binder between Snakemake and a stage script: it calls the script's ``main`` with a job's files and settings."""

from __future__ import annotations

import inspect
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError

from circuitdrift.provenance import Provenance


def run(main: Callable[..., None]) -> None:
    """Call ``main`` with the values of the Snakemake job that the running script belongs to.

    Each keyword of ``main`` is the rule's input, output or param of the same name, converted to the annotated type.
    ``provenance`` is built from the job, for a ``main`` that asks for it; the rule gives the digest of its code as
    ``code``. Messages go to the job's log file. A failing ``main`` leaves its traceback in the log and its message
    on the screen.
    """
    job = sys.modules["__main__"].snakemake
    with _logging_to(Path(job.log[0]) if job.log else None):
        main(**arguments(main, job))


def arguments(main: Callable[..., None], job: Any) -> dict[str, Any]:
    """The keywords to call ``main`` with, from a Snakemake job object."""
    given = {**_named(job.input), **_named(job.output), **_named(job.params)}
    hints = get_type_hints(main)
    keywords = inspect.signature(main).parameters
    if "provenance" in keywords:
        settings = {key: value for key, value in _named(job.params).items() if key not in {"code", "provenance"}}
        digest = given.get("code") or given["provenance"]
        given["provenance"] = Provenance.of_rule(job.rule, _named(job.wildcards), settings, digest)
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


@contextmanager
def _logging_to(log: Path | None) -> Iterator[None]:
    """Send log records to the job's log file and to the screen; record a failure in the file as well."""
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log, mode="w"))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers)
    try:
        yield
    except Exception:
        if log is not None:
            with log.open("a") as opened:
                traceback.print_exc(file=opened)
        raise
