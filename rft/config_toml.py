"""Writes a configuration as TOML: in full for people, or with what was set kept apart for the roles of a run.

Stages and further trainers override what was set and not what is default, so a role must know the difference. In
:func:`resolved_toml` a default is therefore a comment, which a reader sees and a TOML parser does not.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from rft.config import Config, StageConfig, TrainerOverrides
from rft.config.section import NONE, nullable_fields

HEADER = f"## Lines that begin with '# ' are defaults. \"{NONE}\" stands for no value."


def masked(config: Config) -> dict[str, Any]:
    """Return the whole tree as plain values, secrets as ``**********``.

    A field that is None is left out if that is its default, and ``none`` otherwise.
    """
    return dict(_plain(config, only_set=False))


def resolved_toml(config: Config) -> str:
    """Return the whole tree as TOML, secrets masked; :func:`rft.config_sources.load_config` reads the same tree from
    it, with the same fields set."""
    return "\n".join([HEADER, *_section_lines(config, "")]) + "\n"


def resolved_values(text: str) -> dict[str, Any]:
    """Return the values in a text by :func:`resolved_toml`, defaults too, as :func:`masked` does.

    An earlier release wrote all fields as if they were set. If such a text does not fit the tree of this release, its
    values are returned as they are. Raises ValueError when it is not TOML.
    """
    values = tomllib.loads(re.sub(r"(?m)^# ", "", text))
    try:
        return masked(Config.model_validate(values))
    except ValidationError:
        return values


def to_toml(values: Mapping[str, Any], prefix: str = "") -> str:
    """Return plain nested values as TOML text."""
    own = [f"{_toml_key(name)} = {_toml_value(value)}" for name, value in values.items() if not _is_table(value)]
    parts = [f"[{prefix}]", *own] if own and prefix else own
    for name, value in values.items():
        if _is_table(value):
            full = f"{prefix}.{_toml_key(name)}" if prefix else _toml_key(name)
            text = to_toml(value, full)
            parts += ["", text] if parts and text else [text] if text else []
    return "\n".join(parts)


def _plain(value: Any, *, only_set: bool, none: bool = False) -> Any:
    """Return ``value`` as JSON's types, without fields that are not set if ``only_set``.

    ``none``: write None in a plain table as ``none`` and do not leave it out, because it overrides a field.
    """
    if isinstance(value, BaseModel):
        return {name: _plain(inner, only_set=only_set, none=none) for name, inner, none in _fields(value, only_set)}
    if isinstance(value, Mapping):
        items = ((str(name), inner) for name, inner in value.items() if inner is not None or none)
        return {name: _plain(inner, only_set=only_set, none=none) for name, inner in items}
    if isinstance(value, list | tuple):
        return [_plain(inner, only_set=only_set, none=none) for inner in value]
    return NONE if value is None else to_jsonable_python(value)  # which masks secrets


def _fields(section: BaseModel, only_set: bool) -> Iterator[tuple[str, Any, bool]]:
    kind = type(section)
    overrides = isinstance(section, StageConfig | TrainerOverrides)
    for name, field in kind.model_fields.items():
        value = getattr(section, name)
        if only_set and name not in section.model_fields_set:
            continue
        if value is None and (name not in nullable_fields(kind) or (not only_set and field.default is None)):
            continue
        yield name, value, overrides
    for name, value in (section.model_extra or {}).items():
        yield name, value, overrides


def _section_lines(section: BaseModel, prefix: str) -> list[str]:
    lines, tables = [f"[{prefix}]"] if prefix else [], []
    overrides = isinstance(section, StageConfig | TrainerOverrides)
    for name in type(section).model_fields:
        value = getattr(section, name)
        full = f"{prefix}.{name}" if prefix else name
        if isinstance(value, BaseModel):
            tables += ["", *_section_lines(value, full)]
        elif isinstance(value, dict) and value and all(isinstance(inner, BaseModel) for inner in value.values()):
            for key, inner in value.items():
                tables += ["", *_section_lines(inner, f"{full}.{_toml_key(key)}")]
        elif value is not None or name in nullable_fields(type(section)):
            line = f"{name} = {_toml_value(_plain(value, only_set=True, none=overrides))}"
            lines.append(line if name in section.model_fields_set else f"# {line}")
    return [*lines, *tables]


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value)


def _toml_key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_toml_key(k)} = {_toml_value(v)}" for k, v in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, float):
        return repr(value)  # TOML has inf and nan, JSON has not
    # JSON's strings, numbers and booleans are TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
