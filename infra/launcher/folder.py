"""Manages the run's folder: locks it, deals with an earlier run in it, and writes the roles' configuration.

``runs/<name>/{config.resolved.toml, logs/, notes/, exits/, weights/, checkpoints/, kafka/, launches.jsonl, report.json,
report.html}``
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from consumers.report.outcome import RunEnd
from rft.config import Config
from rft.config_sources import ENVIRONMENT_PREFIX, read_toml, unmasked_environment
from rft.config_toml import masked, resolved_toml, resolved_values
from rft.errors import RftError

LOCK = "run.lock"
RUN = "rft run"
CHECKED_VARIABLE = "RFT_CHECKED"
"""Environment variable of roles whose configuration `rft run` has checked."""
RESOLVED = "config.resolved.toml"
LAUNCHES = "launches.jsonl"
REPORT = "report.json"
INTERRUPTED_CODE = 130
Earlier = Literal["none", "unfinished", "finished"]
Plan = Literal["start", "resume", "replace", "nothing_to_do"]


class RunFolderError(RftError):
    """The run's folder is in use, or holds something that this run must not touch."""


class FolderInUseError(RunFolderError):
    """Another process works in the run's folder."""

    def __init__(self, path: Path, command: str, process: str) -> None:
        """``command`` is what the process does, as ``rft run``; ``process`` is its id, empty if it is not known."""
        self.command = command
        by = f" (process {process})" if process else ""
        super().__init__(f"another {command}{by} works in {path}. Wait for it, stop it, or choose another --run.name.")


@dataclass(frozen=True, slots=True)
class Launch:
    """One earlier ``rft run`` in this folder."""

    started_at: float
    wall_s: float
    exit_code: int
    reason: str = ""
    """Why it did not finish the run."""


@contextmanager
def locked(path: Path, command: str = RUN) -> Iterator[None]:
    """Lock the run's folder for ``command``. The lock ends with the process, however it ends.

    Raises FolderInUseError if another process holds the lock, RunFolderError if the folder cannot be written.
    """
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
            process, _, holder = os.read(descriptor, 256).decode("utf-8", "replace").strip().partition(" ")
            raise FolderInUseError(path, holder or RUN, process) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {command}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def with_running_broker(config: Config) -> Config:
    """Return the configuration with the broker of a run in progress, if there is one and no broker is configured."""
    path = config.run.path
    if config.broker.bootstrap_servers or not (path / RESOLVED).exists():
        return config
    try:
        with locked(path):
            return config
    except RunFolderError:
        return with_servers(config, announced_servers(path))


def announced_servers(path: Path) -> str | None:
    """Return the servers that the newest launch in ``path`` has written down for its roles; None if there are none."""
    servers: str | None = read_toml(path / RESOLVED).get("broker", {}).get("bootstrap_servers")
    return servers


def with_servers(config: Config, servers: str | None) -> Config:
    """Return the configuration with these bootstrap servers."""
    return config.model_copy(update={"broker": config.broker.model_copy(update={"bootstrap_servers": servers})})


def earlier_run(path: Path) -> Earlier:
    """Return the state of an earlier run in ``path``."""
    if not (path / RESOLVED).exists():
        return "none"
    try:
        report = json.loads((path / REPORT).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return "unfinished"
    return "finished" if isinstance(report, dict) and report.get("finished") is True else "unfinished"


def plan(kind: str, earlier: Earlier, *, fresh: bool) -> Plan:
    """Decide what to do about an earlier run (pure). An embedded broker's log is lost, so its run cannot be resumed."""
    if earlier == "none":
        return "start"
    if fresh or kind == "embedded":
        return "replace"
    return "nothing_to_do" if earlier == "finished" else "resume"


def move_aside(path: Path, model: Path, now: float) -> Path:
    """Rename the folder to ``<name>.<timestamp>`` and return the new path.

    Raises:
        RunFolderError: The model that the run starts from lies inside.
    """
    if model.exists() and model.resolve().is_relative_to(path.resolve()):
        raise RunFolderError(
            f"policy.model {model} lies in the run's folder {path}, which would be moved aside. Move it elsewhere."
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
        file.write(resolved_toml(config))
    return target


def changed_keys(path: Path, config: Config) -> list[str]:
    """Return the keys, except the broker's, in which ``config`` differs from that of the earlier launch in ``path``."""
    try:
        before = _flat(resolved_values((path / RESOLVED).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return []
    after = _flat(masked(config))
    names = sorted(before.keys() | after.keys())
    return [name for name in names if before.get(name) != after.get(name) and not name.startswith("broker.")]


def role_environment(config: Config, environ: Mapping[str, str], name: str) -> dict[str, str]:
    """Return the environment of a role.

    Our own ``RFT_…__…`` settings are removed: they are in the resolved file already, where the command line may have
    overridden them. Secrets are added, because the file does not hold them.
    """
    plain = {key: value for key, value in environ.items() if not (key.startswith(ENVIRONMENT_PREFIX) and "__" in key)}
    own = {"RFT_ROLE_NAME": name, CHECKED_VARIABLE: "1", "PYTHONUNBUFFERED": "1"}
    return plain | unmasked_environment(config) | own


def record_launch(path: Path, launch: Launch) -> None:
    """Record how this launch went. A report sums the time over all launches."""
    with (path / LAUNCHES).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(launch)) + "\n")


def launches(path: Path) -> list[Launch]:
    """Return the earlier launches, except those killed with SIGKILL, which could not be recorded."""
    try:
        lines = (path / LAUNCHES).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [Launch(**json.loads(line)) for line in lines if line.strip()]


def last_end(path: Path) -> RunEnd | None:
    """Return how the newest launch in ``path`` ended; None if it finished the run, or if another one is going on."""
    try:
        with locked(path):
            recorded = launches(path)
    except RunFolderError:
        return None
    return run_end(recorded[-1].exit_code, recorded[-1].reason) if recorded else None


def run_end(exit_code: int, reason: str) -> RunEnd | None:
    """Return how a launch ended, for the report; None if it finished the run."""
    if exit_code == 0:
        return None
    return RunEnd("interrupted" if exit_code == INTERRUPTED_CODE else "failed", reason)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        flat |= _flat(value, f"{key}.") if isinstance(value, Mapping) and value else {key: value}
    return flat
