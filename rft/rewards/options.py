"""Reads the options of a shipped judge."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from rft.config import RewarderConfig
from rft.config.section import Section
from rft.errors import ConfigError

S = TypeVar("S", bound=Section)


def read_options(name: str, config: RewarderConfig, kind: type[S]) -> S:
    """Check the options of ``[rewarders.<name>]``. Raises ConfigError that names the wrong one, and those there are."""
    try:
        return kind.model_validate(config.options)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f".{part}" for part in first["loc"])
        raise ConfigError(
            f"rewarders.{name}.options{where}: {first['msg'].removeprefix('Value error, ')}; the options of "
            f"{config.function} are {', '.join(kind.model_fields)}"
        ) from None
