"""The base of every section of a config file, and the types that sections share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]


class Section(BaseModel):
    """Base of every section: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_written_as_numbers(cls, data: Any) -> Any:
        """Refuse true and "3", which pydantic would read as 1 and 3; no key of a config takes true or false."""
        if isinstance(data, dict):
            problems = [
                f"{key}: {problem}"
                for key, value in data.items()
                if key in cls.model_fields and (problem := _misread(value, _types_in(cls.model_fields[key].annotation)))
            ]
            if problems:
                raise ValueError("\n".join(problems))
        return data


def _misread(value: Any, types: set[Any]) -> str | None:
    """What is wrong with a value that pydantic would read as another one; None where nothing is."""
    for entry in value if isinstance(value, list | tuple) else (value,):
        if isinstance(entry, bool):
            wanted = "a number" if types & {int, float} else "text, in quotes"
            return f"{str(entry).lower()} is not a value of this key; write {wanted}"
        if isinstance(entry, str) and int in types and str not in types and entry.strip().lstrip("+-").isdecimal():
            return f"{entry!r} is text; write the number without quotes"
    return None


def _types_in(annotation: Any) -> set[Any]:
    """The types of a value and of its entries; literal values are no types."""
    if get_origin(annotation) is Literal:
        return set()
    arguments = get_args(annotation)
    return {annotation}.union(*map(_types_in, arguments)) if arguments else {annotation}
