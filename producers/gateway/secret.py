"""Finds the secret of a gateway: in an environment variable, or in a file of the run's folder."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

from rft.config import Config, GatewayConfig
from rft.errors import ConfigError

BYTES = 32


def configured_secret(config: GatewayConfig) -> str | None:
    """Return the secret in the variable ``gateway.token_env``; None if none is configured.

    Raises ConfigError if the variable is not set or empty.
    """
    variable = config.token_env
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise ConfigError(f"gateway.token_env = {variable!r}, but this variable is not set or empty: export a secret")
    return os.environ[variable]


def token_file(config: Config) -> Path:
    """Return where the roles of a run keep the gateway's secret if no variable holds it."""
    return config.run.path / "gateway" / "token"


def served_secret(config: Config) -> str:
    """Return the secret that the gateway and the explorers of a run share.

    Without ``gateway.token_env``, the first role that asks makes one in :func:`token_file`, readable by its user only.
    Raises ConfigError if the variable or the file cannot be used.
    """
    secret = configured_secret(config.gateway)
    if secret is not None:
        return secret
    path = token_file(config)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            _write_once(path, secrets.token_hex(BYTES))
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the gateway's token cannot be kept in {path}: {error}. Make the folder writable, or set gateway.token_env"
        ) from error
    if len(secret) < BYTES:
        raise ConfigError(f"the gateway's token in {path} is too short: delete the file, or set gateway.token_env")
    return secret


def _write_once(path: Path, secret: str) -> None:
    """Write a file whole or not at all. Raises FileExistsError if another process was faster."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secret + "\n")
        os.link(draft, path)
    finally:
        draft.unlink()
