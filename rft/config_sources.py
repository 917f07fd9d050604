"""Where configuration comes from: TOML, then ``RFT_<SECTION>__<FIELD>``, then ``--section.field value``.

Every value remembers its origin, so that an error can name the key, where it was written, what was found and what is
allowed. pydantic-settings is not used: it forgets the origin of a value, and an error then cannot name it.

Variables and command-line arguments are texts, and the type of their field decides how they are read. A field that
holds text takes them as they are (``--run.name 2024`` is the name "2024"; quotes around a TOML string are removed), any
other is read as a TOML value. The text ``none`` is None in a field that allows None, in TOML files too: see
:func:`rft.config.section.nullable_fields`.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from rft.config import Config
from rft.config.section import alternatives
from rft.errors import ConfigError
from rft.plugins import nearest

ENVIRONMENT_PREFIX = "RFT_"
Key = tuple[str, ...]
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
        raise ConfigError("\n".join(_explain(fault, _key(fault), origins) for fault in error.errors())) from None
    for index, stage in enumerate(config.stages):
        try:
            config.of_stage(index)
        except ValidationError as error:
            faults = [
                _explain(fault, _key(fault), origins, _key_in_stage(stage.name, stage.overrides, _key(fault)))
                for fault in error.errors()
            ]
            raise ConfigError("\n".join(f"[[stages]] {stage.name}: {fault}" for fault in faults)) from None
    for identity in config.trainers:
        try:
            config.of_trainer(identity)
        except ValidationError as error:
            faults = [_explain(fault, ("trainers", identity, *_key(fault)), origins) for fault in error.errors()]
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
    """Return nested values from ``RFT_SECTION__FIELD`` variables."""
    values: dict[str, Any] = {}
    for name in sorted(environ):
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            key = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
            _put(values, key, _parse(environ[name], key), name)
    return values


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
    types = alternatives(_annotation(key))
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


def _is_secret(key: Key) -> bool:
    return SecretStr in alternatives(_annotation(key))


def _annotation(key: Key) -> Any:
    """Return the annotation of the field ``key``, ``Any`` if there is no such field."""
    if key[:1] in (("trainers",), ("stages",)) and len(key) > 2:  # their fields are those of the tree itself
        key = key[2:]
    section: Any = Config
    for name in key:
        if isinstance(section, type) and issubclass(section, BaseModel) and name in section.model_fields:
            section = section.model_fields[name].annotation
        elif get_origin(section) in (dict, list):  # tables that the user names, as eval.sets.<name>, imports.<name>
            section = get_args(section)[-1]
        else:
            return Any
    return section


def _leaves(section: BaseModel, at: Key) -> Iterator[tuple[Key, Any]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, (*at, name))
        else:
            yield (*at, name), value


def _key(fault: ErrorDetails) -> Key:
    return tuple(str(part) for part in fault["loc"])


def _key_in_stage(stage: str, overrides: Mapping[str, Any], key: Key) -> Key:
    """Return where ``key`` was written: in the stage, if it overrides it, otherwise at the top."""
    values: Any = overrides
    for name in key:
        if not isinstance(values, Mapping) or name not in values:
            return key
        values = values[name]
    return ("stages", stage, *key)


def _explain(fault: ErrorDetails, key: Key, origins: Mapping[Key, str], written: Key | None = None) -> str:
    """Return what is wrong with ``key``; its origin is looked up as ``written``, by default as ``key``."""
    dotted = ".".join(key) or "configuration"
    written = written or key
    origin = next((origins[written[:n]] for n in range(len(written), 0, -1) if written[:n] in origins), "the defaults")
    if fault["type"] == "extra_forbidden":
        return f"{origin}: unknown key '{dotted}'. {_suggest(key)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] in ("value_error", "missing") or _is_secret(key):
        return f"{origin}: {dotted}: {message}"
    description = _description(key)
    found = json.dumps(fault["input"], default=str)
    # pydantic lists the choices as "'a', 'b' or 'c'".
    near = nearest(str(fault["input"]), re.findall("'([^']*)'", fault.get("ctx", {}).get("expected", "")))
    hint = f" Did you mean '{near}'?" if near else ""
    meaning = f" ({dotted}: {description})" if description else ""
    return f"{origin}: {dotted}: found {found}; {message[:1].lower()}{message[1:]}.{hint}{meaning}"


def _suggest(key: Key) -> str:
    known = _known_names(key[:-1])
    if not known:
        return ""
    near = nearest(key[-1], known)
    hint = f"Did you mean '{near}'? " if near else ""
    where = f"[{'.'.join(key[:-1])}]" if len(key) > 1 else "the top level"
    return f"{hint}Allowed in {where}: {', '.join(known)}."


def _known_names(section_key: Key) -> list[str]:
    section = _annotation(section_key)
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []


def _description(key: Key) -> str:
    section = _annotation(key[:-1])
    if isinstance(section, type) and issubclass(section, BaseModel) and key[-1:] and key[-1] in section.model_fields:
        return " ".join((section.model_fields[key[-1]].description or "").split())
    return ""
