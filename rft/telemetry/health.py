"""Says how a role is: what its health endpoints answer, and what its file in the run's folder holds.

The launcher and operators read ``health/<role>.json``; an orchestrator asks ``/healthz`` (end me if I stand still) and
``/readyz`` (I have begun, and the broker is there).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rft.telemetry.activity import ActivityState
from rft.telemetry.reserved_file import write_reserved
from rft.telemetry.status_server import Page

HealthState = Literal["starting", "working", "waiting", "stalled", "stopping"]
FOLDER = "health"
FILE_BYTES = 8 * 1024
MAX_FILE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Health:
    """A role at one moment."""

    role: str
    pid: int
    state: HealthState
    activity: str
    """One line, such as ``waits for tasks since 40 s``."""
    waits_for: str | None
    """What it waits for; None if it does not wait."""
    waits_s: float | None
    """How long it has waited."""
    progress: int
    """How often something was done since the start."""
    progress_age_s: float | None
    """Seconds since something was done; None if nothing was yet."""
    time: float
    """Unix time of this state."""
    url: str | None = None
    """Where the role serves its health; None if it does not."""
    outage: bool = False
    """Whether it waits for the broker."""

    @property
    def alive(self) -> bool:
        """Whether the role can go on: it does not stand still beside work."""
        return self.state != "stalled"

    @property
    def ready(self) -> bool:
        """Whether the role has begun to work and reaches the broker."""
        return self.state in ("working", "waiting") and not self.outage

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(asdict(self))


def make_health(
    role: str, pid: int, state: ActivityState, now: float, *, url: str | None, stalled: bool, stopping: bool
) -> Health:
    """Describe a role. ``now`` is the Unix time."""
    waits = state.kind == "waiting"
    return Health(
        role=role,
        pid=pid,
        state="stalled" if stalled else "stopping" if stopping else state.kind,
        activity=str(state),
        waits_for=("the broker: " if state.outage else "") + state.text if waits else None,
        waits_s=round(state.since_s, 1) if waits else None,
        progress=state.progress,
        progress_age_s=None if state.progress_age_s is None else round(state.progress_age_s, 1),
        time=round(now, 3),
        url=url,
        outage=state.outage,
    )


def health_pages(current: Callable[[], Health]) -> dict[str, Callable[[], Page]]:
    """Return the pages ``/healthz`` and ``/readyz`` for a status server."""

    def page(good: Callable[[Health], bool]) -> Page:
        health = current()
        return Page(200 if good(health) else 503, "application/json", (health.to_json() + "\n").encode())

    return {"/healthz": lambda: page(lambda health: health.alive), "/readyz": lambda: page(lambda health: health.ready)}


def health_file(run_path: Path, role: str) -> Path:
    """Return where a role of a run writes its health."""
    return run_path / FOLDER / f"{role}.json"


def write_health(path: Path, health: Health) -> None:
    """Write the file, also on a disk that has become full. Raises OSError."""
    write_reserved(path, f"{health.to_json()}\n".encode(), FILE_BYTES)


def read_health(path: Path, *, pid: int | None = None) -> Health | None:
    """Return what a role has written; None if there is nothing, it is malformed, or is not of process ``pid``."""
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(MAX_FILE_BYTES))
        health = Health(**values) if isinstance(values, dict) and _is_well_formed(values) else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return health if health is not None and pid in (None, health.pid) else None


def _is_well_formed(values: dict[str, Any]) -> bool:
    """Return whether the fields that are shown have their types."""
    types: dict[str, Any] = {
        "state": str,
        "activity": str,
        "waits_for": str | None,
        "waits_s": int | float | None,
        "progress_age_s": int | float | None,
        "time": int | float,
    }
    return all(isinstance(values.get(name), kind) for name, kind in types.items())
