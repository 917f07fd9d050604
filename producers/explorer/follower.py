"""The thread that follows ``weights`` and gives the policy the newest version, leaving out those in between."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from rft.config import Config
from rft.errors import DecodeError, PolicyError, WeightsError
from rft.log.events import Event, EventReader
from rft.policy.base import Policy
from rft.weights.checkpoint import fetch
from schemas.events import WeightVersion

POLL_S = 0.5
RETRY_S = 1.0
TRIES = 10
"""Of one version, before the explorer gives up. A newer version starts the count again."""

log = logging.getLogger("rft")


def newest(events: Iterable[Event], model: str) -> WeightVersion | None:
    """The highest version of ``model`` among ``events``; malformed events are logged and left out."""
    best: WeightVersion | None = None
    for event in events:
        try:
            announced = event.record(WeightVersion)
        except DecodeError as error:
            log.warning("weights, offset %d: %s", event.offset, error)
            continue
        if announced.model == model and (best is None or announced.version >= best.version):
            best = announced
    return best


class WeightsFollower:
    """Keeps a policy at the newest announced weights, on a thread of its own."""

    def __init__(self, config: Config, member_id: str, policy: Policy, changed: Callable[[int], None]) -> None:
        """Connect. Raises BrokerError. ``changed`` is called on this thread after the policy has a new version."""
        self._model = config.trainer.model_key
        self._run_path = config.run.path
        self._policy = policy
        self._changed = changed
        self._reader = EventReader(config, f"{member_id}-weights", ["weights"])
        self._open = threading.Event()
        self._thread = threading.Thread(target=self._run, name="weights-follower", daemon=True)
        self._failed: tuple[int, int] = (-1, 0)
        """Version and number of its failed tries."""
        self.held: WeightVersion | None = None
        """What the policy holds; None until the first announcement."""
        self.resync_s = 0.0
        """Seconds spent on fetching and loading weights."""
        self.error: Exception | None = None
        """What ended the thread, if it was not :meth:`close`."""

    def start(self) -> None:
        self._open.set()
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Stop following; a transfer that is under way is finished first, for at most ``timeout_s``."""
        self._open.clear()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._follow()
        # The thread's end is the role's end: its owner raises what is kept here.
        except Exception as error:
            self.error = error
        finally:
            self._reader.close()

    def _follow(self) -> None:
        wanted: WeightVersion | None = None
        ends = self._reader.end_offsets()
        while self._open.is_set():
            found = newest(self._reader.poll(POLL_S), self._model)
            if found and (wanted is None or found.version >= wanted.version):
                wanted = found
            if not wanted or not self._reader.caught_up(ends):
                continue
            if self.held is None or wanted.version > self.held.version:
                self._resync(wanted)

    def _resync(self, wanted: WeightVersion) -> None:
        began = time.monotonic()
        try:
            self._policy.update_weights(fetch(wanted, self._run_path), wanted.version)
        except (WeightsError, PolicyError) as error:
            # A newer version may have replaced it on disk; its announcement is then on the way.
            self._failed = (wanted.version, self._failed[1] + 1 if self._failed[0] == wanted.version else 1)
            if self._failed[1] >= TRIES:
                raise
            log.warning("cannot take weight version %d, will try again: %s", wanted.version, error)
            time.sleep(RETRY_S)
            return
        self.held = wanted
        self.resync_s += time.monotonic() - began
        self._changed(wanted.version)
