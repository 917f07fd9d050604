"""The run's folder: who may use it, what becomes of an earlier run in it, and the configuration handed to roles.

``runs/<name>/{config.resolved.toml, logs/, weights/, checkpoints/, kafka/, launches.jsonl, report.json, report.html}``
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rft.config import Config
from rft.config_sources import ENVIRONMENT_PREFIX, masked, read_toml, to_toml, unmasked_environment
from rft.errors import ConfigError, RftError

LOCK = "run.lock"
RESOLVED = "config.resolved.toml"
LAUNCHES = "launches.jsonl"
REPORT = "report.json"
Earlier = Literal["none", "unfinished", "finished"]
Plan = Literal["start", "resume", "replace", "nothing_to_do"]


class RunFolderError(RftError):
    """The run's folder is in use, or holds what this run must not touch."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One earlier ``rft run`` in this folder."""

    started_at: float
    wall_s: float
    exit_code: int


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the run's folder for ourselves; the lock goes with the process, however it ends."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise RunFolderError(
            f"the run's folder {path} cannot be written: {error.strerror}. Choose another with --run.folder."
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            by = f" (process {holder})" if holder else ""
            raise RunFolderError(
                f"another rft run{by} works in {path}. Wait for it, stop it, or choose another --run.name."
            ) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def with_running_broker(config: Config) -> Config:
    """The configuration with the broker that a run now in progress has started, if there is one and none is named."""
    path = config.run.path
    if config.broker.bootstrap_servers or not (path / RESOLVED).exists():
        return config
    try:
        with locked(path):
            return config
    except RunFolderError:
        servers = read_toml(path / RESOLVED).get("broker", {}).get("bootstrap_servers")
        broker = config.broker.model_copy(update={"bootstrap_servers": servers})
        return config.model_copy(update={"broker": broker})


def earlier_run(path: Path) -> Earlier:
    """What an earlier launch has left in ``path``."""
    if not (path / RESOLVED).exists():
        return "none"
    try:
        report = json.loads((path / REPORT).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return "unfinished"
    return "finished" if isinstance(report, dict) and report.get("finished") is True else "unfinished"


def plan(kind: str, earlier: Earlier, *, fresh: bool) -> Plan:
    """What to do about an earlier run (pure): its log decides, and an embedded broker's log dies with the broker."""
    if earlier == "none":
        return "start"
    if fresh or kind == "embedded":
        return "replace"
    return "nothing_to_do" if earlier == "finished" else "resume"


def move_aside(path: Path, model: Path, now: float) -> Path:
    """Rename the folder to ``<name>.<timestamp>``, of which the new name is returned.

    Raises:
        RunFolderError: The model that the run is to start from lies inside.
    """
    if model.exists() and model.resolve().is_relative_to(path.resolve()):
        raise RunFolderError(
            f"policy.model {model} lies in the run's folder {path}, which would be moved aside. Keep it elsewhere."
        )
    stem = f"{path.name}.{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}"
    candidates = (path.with_name(stem if n == 0 else f"{stem}.{n}") for n in range(1000))
    target = next(candidate for candidate in candidates if not candidate.exists())
    path.rename(target)
    return target


def write_config(path: Path, config: Config) -> Path:
    """Write the resolved configuration, secrets masked, for people and for the roles."""
    target = path / RESOLVED
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(to_toml(masked(config)) + "\n")
    return target


def changed_keys(path: Path, config: Config) -> list[str]:
    """Keys in which ``config`` differs from what the earlier launch in ``path`` resolved to, the broker's aside."""
    try:
        before = _flat(read_toml(path / RESOLVED))
    except ConfigError:
        return []
    after = _flat(masked(config))
    names = sorted(before.keys() | after.keys())
    return [name for name in names if before.get(name) != after.get(name) and not name.startswith("broker.")]


def role_environment(config: Config, environ: Mapping[str, str], name: str) -> dict[str, str]:
    """Environment of a role.

    Our own ``RFT_…__…`` settings are taken out: they are in the resolved file already, where the command line
    may have overruled them. Secrets go in, for the file does not hold them.
    """
    plain = {key: value for key, value in environ.items() if not (key.startswith(ENVIRONMENT_PREFIX) and "__" in key)}
    return plain | unmasked_environment(config) | {"RFT_ROLE_NAME": name, "PYTHONUNBUFFERED": "1"}


def note_launch(path: Path, launch: Launch) -> None:
    """Remember how this launch went; a report sums the time over all of them."""
    with (path / LAUNCHES).open("a", encoding="utf-8") as file:
        record = {"started_at": launch.started_at, "wall_s": launch.wall_s, "exit_code": launch.exit_code}
        file.write(json.dumps(record) + "\n")


def launches(path: Path) -> list[Launch]:
    """Earlier launches that came to note themselves; those killed with SIGKILL are missing."""
    try:
        lines = (path / LAUNCHES).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [Launch(**json.loads(line)) for line in lines if line.strip()]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        flat |= _flat(value, f"{key}.") if isinstance(value, Mapping) and value else {key: value}
    return flat
