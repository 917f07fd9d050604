"""The thread that follows ``weights`` and gives the policy the newest version, leaving out those in between."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from producers.explorer.reception import ReceptionThread
from rft.config import Config
from rft.errors import DecodeError, PolicyError, WeightsError
from rft.log.events import Event, EventReader
from rft.policy.base import Policy
from rft.weights.checkpoint import fetch
from rft.weights.choosing import COLLECTIVE, Fetch, Held, Receive, choose, supersedes
from rft.weights.reception import receiver_name
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
        if announced.model == model and supersedes(announced, best):
            best = announced
    return best


class WeightsFollower:
    """Keeps a policy at the newest announced weights, on a thread of its own."""

    def __init__(self, config: Config, member_id: str, policy: Policy, changed: Callable[[int], None]) -> None:
        """Connect. Raises BrokerError. ``changed`` is called after the policy has a new version, from any thread."""
        self._model = config.trainer.model_key
        self._run_path = config.run.path
        self._policy = policy
        self._changed = changed
        collective = config.weights.transport == COLLECTIVE
        self.receivers = tuple(receiver_name(member_id, n) for n in range(policy.receivers if collective else 0))
        """Names of the policy's ranks in collectives; none when it takes folders only."""
        self._backend = config.weights.backend
        self._reader = EventReader(config, f"{member_id}-weights", ["weights"])
        self._reception = ReceptionThread(config.weights, policy)
        self._open = threading.Event()
        self._thread = threading.Thread(target=self._run, name="weights-follower", daemon=True)
        self._failed: tuple[int, int] = (-1, 0)
        """Version and number of its failed tries."""
        self.held = Held()
        """What the policy holds; nothing until the first announcement."""
        self.epoch = -1
        """Newest transfer that it knows of."""
        self._tried_epoch = -1
        self._resync_s = 0.0
        self.error: Exception | None = None
        """What ended the thread, if it was not :meth:`close`."""

    @property
    def stats(self) -> dict[str, float]:
        """Since start: ``resync_s`` spent on getting weights, ``pause_s`` of generation for them; transfers
        ``received`` and ``missed``, ``received_bytes``."""
        policy = self._policy.stats
        pause = float(policy.get("pause_s", policy.get("resync_s", 0.0)))
        return {"resync_s": self._resync_s, "pause_s": pause, **self._reception.stats}

    def start(self) -> None:
        self._open.set()
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Stop following; a folder that is being read is finished first, for at most ``timeout_s``."""
        self._open.clear()
        self._reception.close(timeout_s)
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
            if found and supersedes(found, wanted):
                wanted = found
            if not wanted or not self._reader.caught_up(ends):
                continue
            self.epoch = max(self.epoch, wanted.epoch)
            if self._reception.busy:
                # One thing at a time: what is abandoned may not put its weights over newer ones.
                self._reception.expire(newest_epoch=wanted.epoch)
                continue
            ranks = self.receivers if wanted.backend in ("", self._backend) else ()
            match choose(wanted, self.held, ranks, self._tried_epoch):
                case Receive(announced, receivers):
                    self._tried_epoch = announced.epoch
                    self._reception.begin(announced, receivers, self._took)
                case Fetch(version, sha256, uri):
                    self._resync(replace(wanted, version=version, sha256=sha256, uri=uri))

    def _resync(self, wanted: WeightVersion) -> None:
        began = time.monotonic()
        try:
            self._policy.update_weights(fetch(wanted, self._run_path), wanted.version)
        except (WeightsError, PolicyError) as error:
            # A newer version may have replaced it on disk; its announcement is then on the way.
            self._failed = (wanted.version, self._failed[1] + 1 if self._failed[0] == wanted.version else 1)
            # The trainer sends it to members that are behind and take no folder.
            if self._failed[1] >= TRIES and not self.receivers:
                raise
            log.warning("cannot take weight version %d, will try again: %s", wanted.version, error)
            time.sleep(RETRY_S)
            return
        self._took(wanted, time.monotonic() - began)

    def _took(self, taken: WeightVersion, seconds: float) -> None:
        self.held = Held(taken.version, taken.sha256)
        self._resync_s += seconds
        self._changed(taken.version)
