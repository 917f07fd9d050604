"""Where configuration comes from: TOML, then ``RFT_<SECTION>__<FIELD>``, then ``--section.field value``.

Every value remembers its origin, so that an error can name the key, where it was written, what was found and what is
allowed. pydantic-settings is not used: it forgets the origin of a value, and an error then cannot name it.

Variables and command-line arguments are texts, and the type of their field decides how they are read. A field that
holds text takes them as they are (``--run.name 2024`` is the name "2024"; quotes around a TOML string are removed), any
other is read as a TOML value. The text ``none`` is None in a field that allows None, in TOML files too: see
:func:`rft.config.section.nullable_fields`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError

from rft.config import Config
from rft.config.section import alternatives
from rft.config_faults import Key, annotation_of, explain, key_of, known_names
from rft.errors import ConfigError

ENVIRONMENT_PREFIX = "RFT_"
Layer = tuple[str, dict[str, Any]]
"""An origin for people (a file, the environment, the command line) and the nested values it gives."""


def load_config(path: Path, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Config:
    """Read, merge and validate a configuration.

    Args:
        path: TOML file.
        overrides: Command-line arguments: ``--section.field value`` or ``--section.field=value``.
        environ: Environment variables; those not named ``RFT_<SECTION>__<FIELD>`` are left alone.

    Raises:
        ConfigError: The file is missing or not TOML, or a key or value is wrong. All faults are listed at once.
    """
    layers = [
        (str(path), read_toml(path)),
        ("the environment", environment_layer(environ or {})),
        ("the command line", override_layer(overrides)),
    ]
    return resolve(layers)


def resolve(layers: Sequence[Layer]) -> Config:
    """Merge layers, of which a later one wins, and validate the result (pure). Raises ConfigError."""
    merged: dict[str, Any] = {}
    origins: dict[Key, str] = {}
    for origin, values in layers:
        _merge(merged, values, origin, origins, ())
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(fault, key_of(fault), origins) for fault in error.errors())) from None
    for index, stage in enumerate(config.stages):
        try:
            config.of_stage(index)
        except ValidationError as error:
            faults = [
                explain(fault, key_of(fault), origins, _key_in_stage(stage.name, stage.overrides, key_of(fault)))
                for fault in error.errors()
            ]
            raise ConfigError("\n".join(f"[[stages]] {stage.name}: {fault}" for fault in faults)) from None
    for identity in config.trainers:
        try:
            config.of_trainer(identity)
        except ValidationError as error:
            faults = [explain(fault, ("trainers", identity, *key_of(fault)), origins) for fault in error.errors()]
            raise ConfigError("\n".join(faults)) from None
    return config


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file; ConfigError says what is wrong and on which line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a mark
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file. Give the path of a TOML configuration.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        twice = " A key or table is there twice." if re.match("Cannot (overwrite|declare|mutate)", str(error)) else ""
        raise ConfigError(f"{path}: not valid TOML: {error}.{twice}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def environment_layer(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return nested values from ``RFT_SECTION__FIELD`` variables.

    Raises ConfigError for ``RFT_SECTION_FIELD``, which would have no effect.
    """
    values: dict[str, Any] = {}
    for name in sorted(environ):
        if meant := _with_two_underscores(name):
            raise ConfigError(f"the environment: {name} sets nothing. Write {meant}, with two underscores")
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            key = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
            _put(values, key, _parse(environ[name], key), name)
    return values


def _with_two_underscores(name: str) -> str | None:
    """Return the variable that ``name`` would be if its section were set apart; None if it is not such a variable."""
    words = name.removeprefix(ENVIRONMENT_PREFIX).lower()
    if not name.startswith(ENVIRONMENT_PREFIX) or "__" in words:
        return None
    for section in Config.model_fields:
        field = words.removeprefix(f"{section}_")
        if field != words and field in known_names((section,)):
            return f"{ENVIRONMENT_PREFIX}{section}__{field}".upper()
    return None


def override_layer(arguments: Sequence[str]) -> dict[str, Any]:
    """Return nested values from ``--section.field value`` arguments."""
    values: dict[str, Any] = {}
    remaining = iter(arguments)
    for argument in remaining:
        if not argument.startswith("--") or "." not in argument:
            raise ConfigError(f"'{argument}' is not understood: write settings as --section.field value")
        name, separator, text = argument[2:].partition("=")
        if not separator:
            value = next(remaining, None)
            if value is None:
                raise ConfigError(f"--{name} has no value: write --{name} VALUE")
            text = value
        key = tuple(name.replace("-", "_").split("."))
        _put(values, key, _parse(text, key), f"--{name}")
    return values


def unmasked_environment(config: Config) -> dict[str, str]:
    """Return the secrets as environment variables, for handing a configuration to a child process."""
    return {
        ENVIRONMENT_PREFIX + "__".join(key).upper(): value.get_secret_value()
        for key, value in _leaves(config, ())
        if isinstance(value, SecretStr)
    }


def _merge(target: dict[str, Any], source: Mapping[str, Any], origin: str, origins: dict[Key, str], at: Key) -> None:
    for name, value in source.items():
        key, there = (*at, name), target.get(name)
        if isinstance(value, Mapping) and isinstance(there, list):
            _merge_named(there, value, origin, origins, key)
            continue
        origins[key] = origin
        if isinstance(value, Mapping):
            target[name] = there if isinstance(there, dict) else {}
            _merge(target[name], value, origin, origins, key)
        else:
            target[name] = value


def _merge_named(tables: list[Any], source: Mapping[str, Any], origin: str, origins: dict[Key, str], at: Key) -> None:
    """Merge into the tables of an array that ``source`` names: ``--stages.imitate.trainer.steps 5``."""
    for name, value in source.items():
        found = next((table for table in tables if isinstance(table, dict) and table.get("name") == name), None)
        if found is None or not isinstance(value, Mapping):
            known = ", ".join(str(table.get("name")) for table in tables if isinstance(table, dict))
            raise ConfigError(f"{origin}: [[{'.'.join(at)}]] has none with name = '{name}'; it has {known}")
        _merge(found, value, origin, origins, (*at, name))


def _put(values: dict[str, Any], key: Key, value: Any, written: str) -> None:
    for name in key[:-1]:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{written}: '{name}' was already given a single value")
    values[key[-1]] = value


def _parse(text: str, key: Key) -> Any:
    """Return the value that ``text`` stands for in the field ``key``.

    A field that holds text gets ``text`` itself, or the content of a TOML string. Any other field, and a key of no
    section, gets the TOML value; what is not TOML is left to pydantic as text. Secrets are never parsed.
    """
    types = alternatives(annotation_of(key))
    if SecretStr in types:
        return text
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text
    is_text = any(_holds_text(type_) for type_ in types)
    return text if is_text and not isinstance(value, str) and not _fits(value, types) else value


def _holds_text(type_: Any) -> bool:
    if get_origin(type_) is Literal:
        return any(isinstance(choice, str) for choice in get_args(type_))
    return type_ in (str, Path)


def _fits(value: Any, types: Sequence[Any]) -> bool:
    """Return whether ``value`` is of one of the types that are no text, such as the list of ``lora.target_modules``."""
    plain = [get_origin(type_) or type_ for type_ in types if not _holds_text(type_)]
    return any(isinstance(type_, type) and isinstance(value, type_) for type_ in plain)


def _leaves(section: BaseModel, at: Key) -> Iterator[tuple[Key, Any]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, (*at, name))
        else:
            yield (*at, name), value


def _key_in_stage(stage: str, overrides: Mapping[str, Any], key: Key) -> Key:
    """Return where ``key`` was written: in the stage, if it overrides it, otherwise at the top."""
    values: Any = overrides
    for name in key:
        if not isinstance(values, Mapping) or name not in values:
            return key
        values = values[name]
    return ("stages", stage, *key)
