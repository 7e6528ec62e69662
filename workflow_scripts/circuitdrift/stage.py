"""The binder between Snakemake and a stage script: it calls the script's ``main`` with a job's files and settings.

A script that is started by hand gets its job from :mod:`circuitdrift.planned_job`.
"""

from __future__ import annotations

import gc
import importlib
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

if hasattr(sys.modules["__main__"], "snakemake"):
    # In a job, the imports after this one make objects that stay. Looking for garbage among them slows the start.
    gc.disable()


def run(main: Callable[..., None]) -> None:
    """Call ``main`` with the values of a Snakemake job: the job of the script, or the job that the command line names.

    Each keyword of ``main`` is the rule's input, output or param of the same name, converted to the annotated type.
    ``provenance`` is built from the job, for a ``main`` that has this keyword. The rule's param ``code``, the digest of
    its code, goes into the provenance alone. Messages go to the job's log file. A failing ``main`` leaves its traceback
    in the log and its message on the screen.
    """
    gc.freeze()  # what is imported stays, so that no later search for garbage goes through it
    gc.enable()
    script = sys.modules["__main__"]
    if hasattr(script, "snakemake"):
        job = script.snakemake
    else:
        # Loaded by name, so that the digests of stages do not follow what helps to debug them.
        planning = importlib.import_module("circuitdrift.planned_job")
        job = planning.job_of_command_line(Path(str(script.__file__)).resolve(), sys.argv[1:])
    with _logging_to(Path(job.log[0]) if job.log else None):
        main(**arguments(main, job))


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
