"""Where configuration comes from: TOML, then ``RFT_<SECTION>__<FIELD>``, then ``--section.field value``.

Every value remembers its origin, so that an error can name the key, where it was written,
what was found and what is allowed.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from rft.config import Config
from rft.errors import ConfigError

ENVIRONMENT_PREFIX = "RFT_"
Key = tuple[str, ...]
Layer = tuple[str, dict[str, Any]]
"""An origin for people (a file, the environment, the command line) and the nested values it gives."""


def load_config(path: Path, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Config:
    """Read, merge and validate a configuration.

    Args:
        path: TOML file.
        overrides: Command-line words: ``--section.field value`` or ``--section.field=value``.
        environ: Environment variables; those not named ``RFT_<SECTION>__<FIELD>`` are left alone.

    Raises:
        ConfigError: The file is missing or no TOML, or a key or value is wrong. All faults are listed at once.
    """
    layers = [
        (str(path), read_toml(path)),
        ("the environment", environment_layer(environ or {})),
        ("the command line", override_layer(overrides)),
    ]
    return resolve(layers)


def resolve(layers: Sequence[Layer]) -> Config:
    """Merge layers, later ones stronger, and validate the result (pure)."""
    merged: dict[str, Any] = {}
    origins: dict[Key, str] = {}
    for origin, values in layers:
        _merge(merged, values, origin, origins, ())
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(fault, fault["loc"], origins) for fault in error.errors())) from None
    for index, stage in enumerate(config.stages):
        try:
            config.of_stage(index)
        except ValidationError as error:
            faults = [_explain(fault, fault["loc"], origins) for fault in error.errors()]
            raise ConfigError("\n".join(f"[[stages]] {stage.name}: {fault}" for fault in faults)) from None
    for identity in config.trainers:
        try:
            config.of_trainer(identity)
        except ValidationError as error:
            faults = [_explain(fault, ("trainers", identity, *fault["loc"]), origins) for fault in error.errors()]
            raise ConfigError("\n".join(faults)) from None
    return config


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file; ConfigError says what is wrong and on which line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file. Give the path of a TOML configuration.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def environment_layer(environ: Mapping[str, str]) -> dict[str, Any]:
    """Nested values from ``RFT_SECTION__FIELD`` variables."""
    values: dict[str, Any] = {}
    for name in sorted(environ):
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            key = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
            _put(values, key, _parse(environ[name], key), name)
    return values


def override_layer(words: Sequence[str]) -> dict[str, Any]:
    """Nested values from ``--section.field value`` words."""
    values: dict[str, Any] = {}
    remaining = iter(words)
    for word in remaining:
        if not word.startswith("--") or "." not in word:
            raise ConfigError(f"'{word}' is not understood: settings are given as --section.field value")
        name, separator, text = word[2:].partition("=")
        if not separator:
            following = next(remaining, None)
            if following is None:
                raise ConfigError(f"--{name} has no value: write --{name} VALUE")
            text = following
        key = tuple(name.replace("-", "_").split("."))
        _put(values, key, _parse(text, key), f"--{name}")
    return values


def masked(config: Config) -> dict[str, Any]:
    """The whole tree as plain values, secrets as ``**********``; what is not set is left out."""
    dumped: dict[str, Any] = json.loads(config.model_dump_json(exclude_none=True))
    return dumped


def unmasked_environment(config: Config) -> dict[str, str]:
    """The secrets as environment variables, for handing a configuration to a child process."""
    return {
        ENVIRONMENT_PREFIX + "__".join(key).upper(): value.get_secret_value()
        for key, value in _leaves(config, ())
        if isinstance(value, SecretStr)
    }


def to_toml(values: Mapping[str, Any], prefix: str = "") -> str:
    """Plain nested values as TOML text."""
    own = [f"{_toml_key(name)} = {_toml_value(value)}" for name, value in values.items() if not _is_table(value)]
    parts = [f"[{prefix}]", *own] if own and prefix else own
    for name, value in values.items():
        if _is_table(value):
            full = f"{prefix}.{_toml_key(name)}" if prefix else _toml_key(name)
            text = to_toml(value, full)
            parts += ["", text] if parts and text else [text] if text else []
    return "\n".join(parts)


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
    # JSON's strings, numbers and booleans are TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _merge(target: dict[str, Any], source: Mapping[str, Any], origin: str, origins: dict[Key, str], at: Key) -> None:
    for name, value in source.items():
        key = (*at, name)
        origins[key] = origin
        if isinstance(value, Mapping) and isinstance(target.get(name), dict):
            _merge(target[name], value, origin, origins, key)
        elif isinstance(value, Mapping) and isinstance(target.get(name), list):
            _merge_named(target[name], value, origin, key)
        elif isinstance(value, Mapping):
            target[name] = {}
            _merge(target[name], value, origin, origins, key)
        else:
            target[name] = value


def _merge_named(tables: list[Any], source: Mapping[str, Any], origin: str, at: Key) -> None:
    """``--stages.imitate.trainer.steps 5``: of an array of tables, the one with that name."""
    for name, value in source.items():
        found = next((table for table in tables if isinstance(table, dict) and table.get("name") == name), None)
        if found is None or not isinstance(value, Mapping):
            known = ", ".join(str(table.get("name")) for table in tables if isinstance(table, dict))
            raise ConfigError(f"{origin}: [[{'.'.join(at)}]] has none with name = '{name}'; it has {known}")
        _merge(found, value, origin, {}, ())


def _put(values: dict[str, Any], key: Key, value: Any, written: str) -> None:
    for name in key[:-1]:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{written}: '{name}' was already given a single value")
    values[key[-1]] = value


def _parse(text: str, key: Key) -> Any:
    """A value as TOML would read it; what is no TOML value is a plain string. Secrets are never parsed."""
    if _is_secret(key):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text


def _is_secret(key: Key) -> bool:
    field = _field_annotation(key)
    return field is not None and "SecretStr" in str(field)


def _field_annotation(key: Key) -> Any:
    section: Any = Config
    if key[:1] == ("trainers",) and len(key) > 2:  # what they may have otherwise is documented where it is by default
        key = key[2:]
    for name in key:
        if get_origin(section) is dict:  # tables by a name of the user's, as eval.sets.<name>
            section = get_args(section)[1]
        elif isinstance(section, type) and issubclass(section, BaseModel) and name in section.model_fields:
            section = section.model_fields[name].annotation
        else:
            return None
    return section


def _leaves(section: BaseModel, at: Key) -> Iterator[tuple[Key, Any]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, (*at, name))
        else:
            yield (*at, name), value


def _explain(fault: ErrorDetails, place: Sequence[int | str], origins: Mapping[Key, str]) -> str:
    key = tuple(str(part) for part in place)
    dotted = ".".join(key) or "configuration"
    origin = next((origins[key[:n]] for n in range(len(key), 0, -1) if key[:n] in origins), "the defaults")
    if fault["type"] == "extra_forbidden":
        return f"{origin}: unknown key '{dotted}'. {_suggest(key)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] in ("value_error", "missing") or _is_secret(key):
        return f"{origin}: {dotted}: {message}"
    description = _description(key)
    found = json.dumps(fault["input"], default=str)
    return f"{origin}: {dotted}: found {found}; {message[:1].lower()}{message[1:]}." + (
        f" ({dotted}: {description})" if description else ""
    )


def _suggest(key: Key) -> str:
    known = _known_names(key[:-1])
    if not known:
        return ""
    near = difflib.get_close_matches(key[-1], known, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    where = f"[{'.'.join(key[:-1])}]" if len(key) > 1 else "the top level"
    return f"{hint}Allowed in {where}: {', '.join(known)}."


def _known_names(section_key: Key) -> list[str]:
    section = _field_annotation(section_key) if section_key else Config
    if isinstance(section, type) and issubclass(section, BaseModel):
        return list(section.model_fields)
    return []


def _description(key: Key) -> str:
    section = _field_annotation(key[:-1]) if len(key) > 1 else Config
    if isinstance(section, type) and issubclass(section, BaseModel) and key[-1] in section.model_fields:
        return " ".join((section.model_fields[key[-1]].description or "").split())
    return ""
