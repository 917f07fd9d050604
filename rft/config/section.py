"""Defines what all sections share: they are closed and immutable, read ``none`` as None where a field allows it, and
take only finite numbers of a sensible size."""

from __future__ import annotations

from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=120)]
EntityName = Literal[
    "tasks", "experiences", "rewards", "ready", "weights", "members", "steps", "dlq", "waiting", "turns", "sessions"
]
"""The topics, see :mod:`rft.log.topics`."""
LARGEST = 2**53
"""Larger whole numbers are not exact as floating-point numbers, which metrics and JSON readers use."""
NONE = "none"
"""How None is written. TOML has no null, so a field that may be None takes this text for it."""


class Section(BaseModel):
    """Base of all sections. An unknown key is an error, and a section never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _none_is_none(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        written = {name for name, value in values.items() if value == NONE}
        return {**values, **dict.fromkeys(written & nullable_fields(cls))} if written else values

    @field_validator("*", mode="before")
    @classmethod
    def _number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what Python takes for a number although it is none, and numbers that no field can mean."""
        if not isinstance(value, int) or info.field_name not in number_fields(cls):
            return value
        if isinstance(value, bool):
            raise ValueError(f"found {str(value).lower()}, must be a number")
        if abs(value) > LARGEST:
            raise ValueError(f"found {value}, which is too large for any setting")
        return value


S = TypeVar("S", bound=Section)


@cache
def nullable_fields(section: type[BaseModel]) -> frozenset[str]:
    """Return the fields of ``section`` in which ``none`` means None.

    These are all fields that allow None, except secrets and those that have a value called ``none``
    (``algorithm.correction``).
    """
    fields = section.model_fields.items()
    return frozenset(name for name, field in fields if _reads_none(alternatives(field.annotation)))


@cache
def number_fields(section: type[BaseModel]) -> frozenset[str]:
    """Return the fields of ``section`` that hold a number and no truth value."""
    types = {name: alternatives(field.annotation) for name, field in section.model_fields.items()}
    return frozenset(name for name, found in types.items() if {int, float} & set(found) and bool not in found)


def _reads_none(types: list[Any]) -> bool:
    choices = [choice for type_ in types if get_origin(type_) is Literal for choice in get_args(type_)]
    return NoneType in types and SecretStr not in types and NONE not in choices


def alternatives(annotation: Any) -> list[Any]:
    """Return the types that ``annotation`` allows: the members of a union, or the annotation itself."""
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [type_ for member in get_args(annotation) for type_ in alternatives(member)]
    return [annotation]


def with_default(section: S, name: str, value: Any) -> S:
    """Return a copy of ``section`` in which the field ``name``, which is not set, has another default."""
    copy = section.model_copy(update={name: value})
    copy.model_fields_set.discard(name)
    return copy
