"""The thread that reads ``weights`` and gives the policy the newest version; it skips those in between."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from producers.explorer.reception import ReceptionThread
from rft.config import Config
from rft.errors import PolicyError, WeightsError
from rft.log.events import Event
from rft.log.reader import EventReader
from rft.log.records import CountedRejects, Reject, read_records
from rft.policy.base import Policy
from rft.telemetry.activity import ThreadPulse
from rft.weights.transfer_spec import receiver_name
from rft.weights.transport import COLLECTIVE
from rft.weights.version_choice import Fetch, HeldVersion, Receive, choose, supersedes
from rft.weights.version_folders import fetch
from schemas.events import WeightVersion

POLL_S = 0.5
RETRY_S = 1.0
TRIES = 10
"""Tries for one version before the explorer gives up. A newer version resets the count."""

log = logging.getLogger("rft")


def newest(events: Iterable[Event], model: str, reject: Reject) -> WeightVersion | None:
    """Return the highest version of ``model`` among ``events``; ``reject`` takes those that announce none."""
    best: WeightVersion | None = None
    for announced in read_records(events, WeightVersion, reject):
        if announced.model == model and supersedes(announced, best):
            best = announced
    return best


class WeightsFollower:
    """Keeps a policy at the newest announced weights, on a thread of its own."""

    def __init__(self, config: Config, member_id: str, policy: Policy, changed: Callable[[int], None]) -> None:
        """Connect. Raises BrokerError. ``changed`` is called from any thread after the policy got a new version."""
        self._model = config.trainer.model_key
        self._run_path = config.run.path
        self._policy = policy
        self._changed = changed
        collective = config.weights.transport == COLLECTIVE
        self.receivers = tuple(receiver_name(member_id, n) for n in range(policy.receivers if collective else 0))
        """Names of the policy's ranks in collectives; none when it takes folders only."""
        self._backend = config.weights.backend
        self._reader = EventReader(config, f"{member_id}-weights", ["weights"])
        self._rejects = CountedRejects()
        self._reception = ReceptionThread(config.weights, policy)
        self._open = threading.Event()
        self._thread = threading.Thread(target=self._run, name="weights-follower", daemon=True)
        self._failed: tuple[int, int] = (-1, 0)
        """A version and the number of its failed tries."""
        self.held = HeldVersion()
        """What the policy holds; nothing until the first announcement."""
        self.epoch = -1
        """Newest transfer that was announced."""
        self._tried_epoch = -1
        self._resync_s = 0.0
        self.pulse = ThreadPulse()
        """Beats with each turn of the thread's loop."""
        self.error: Exception | None = None
        """What ended the thread, if it was not :meth:`close`."""

    @property
    def stats(self) -> dict[str, float]:
        """Counters since the start.

        ``resync_s``: time to fetch weights. ``pause_s``: pause of generation for them. ``received`` and ``missed``:
        number of transfers. ``received_bytes``.
        """
        policy = self._policy.stats
        pause = float(policy.get("pause_s", policy.get("resync_s", 0.0)))
        return {"resync_s": self._resync_s, "pause_s": pause, **self._reception.stats}

    def start(self) -> None:
        """Begin to follow the weights."""
        self._open.set()
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Stop. A folder that is being read is finished first, for at most ``timeout_s``."""
        self._open.clear()
        self._reception.close(timeout_s)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._follow()
        # The role must end with this thread: the owner raises the error.
        except Exception as error:
            self.error = error
        finally:
            self._reader.close()

    def _follow(self) -> None:
        wanted: WeightVersion | None = None
        ends = self._reader.end_offsets()
        while self._open.is_set():
            self.pulse.beat()
            found = newest(self._reader.poll(POLL_S), self._model, self._rejects.reject)
            if found and supersedes(found, wanted):
                wanted = found
            if not wanted or not self._reader.caught_up(ends):
                continue
            self.epoch = max(self.epoch, wanted.epoch)
            if self._reception.busy:
                # One transfer at a time: an abandoned one must not overwrite newer weights.
                self._reception.expire(newest_epoch=wanted.epoch)
                continue
            ranks = self.receivers if wanted.backend in ("", self._backend) else ()
            match choose(wanted, self.held, ranks, self._tried_epoch):
                case Receive(announced, receivers):
                    self._tried_epoch = announced.epoch
                    self._reception.begin(announced, receivers, self._installed)
                case Fetch(version, sha256, uri):
                    self._resync(replace(wanted, version=version, sha256=sha256, uri=uri))

    def _resync(self, wanted: WeightVersion) -> None:
        began = time.monotonic()
        try:
            self._policy.update_weights(fetch(wanted, self._run_path), wanted.version)
        except (WeightsError, PolicyError) as error:
            # A newer version may have replaced it on disk. Then the newer announcement arrives soon.
            self._failed = (wanted.version, self._failed[1] + 1 if self._failed[0] == wanted.version else 1)
            # With collectives, the trainer sends the weights again to members that are behind.
            if self._failed[1] >= TRIES and not self.receivers:
                raise
            log.warning("cannot take weight version %d, will try again: %s", wanted.version, error)
            time.sleep(RETRY_S)
            return
        self._installed(wanted, time.monotonic() - began)

    def _installed(self, weights: WeightVersion, seconds: float) -> None:
        self.held = HeldVersion(weights.version, weights.sha256)
        self._resync_s += seconds
        self._changed(weights.version)
