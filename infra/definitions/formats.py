"""Finds a format by its name."""

from __future__ import annotations

from typing import Literal, cast

from infra.definitions import shell, strimzi, terraform
from infra.definitions.base import Format, Target
from rft.config import Config

FORMATS = {"shell": shell, "strimzi": strimzi, "terraform": terraform}


def open_format(name: str) -> Format:
    """Return the module that writes a format."""
    return cast("Format", FORMATS[name])


def make_target(
    config: Config, cluster: str, authentication: Literal["scram-sha-512", "tls"] = "scram-sha-512"
) -> Target:
    """Return the cluster of a configuration. Without ``broker.bootstrap_servers``, its place is left to fill in."""
    return Target(config.broker.bootstrap_servers or "localhost:9092", cluster, authentication)
