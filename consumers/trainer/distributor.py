"""Brings each version to the explorers by collectives, while the trainer goes on.

The trainer's thread offers versions, a thread of our own hears members and writes folders for those who are behind,
and each transfer has a thread that may get stuck. What they see goes, one after the other, through
:mod:`rft.weights.membership`, which decides.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from consumers.trainer.intake import client_id
from rft.config import Config
from rft.errors import BrokerError, DecodeError, WeightsError
from rft.log.events import Event, EventReader, EventWriter
from rft.weights.choosing import COLLECTIVE
from rft.weights.file import WeightsFile
from rft.weights.manifest import Manifest, pack_checksums, pack_layout
from rft.weights.membership import Rules, State, step
from rft.weights.protocol import (
    Abandon,
    Action,
    Announce,
    Closed,
    Ended,
    Happening,
    Heard,
    Offer,
    Open,
    Store,
    Stored,
    Tick,
)
from rft.weights.reception import receiver_name
from rft.weights.sending import Outcome, Sender
from schemas.events import Member, WeightVersion

SILENCE_S = 10.0
"""Explorers announce themselves every two seconds."""
TICK_S = 0.1
SLACK_S = 5.0
"""Beyond a deadline: how long the trainer's thread waits for an update to be closed before that is an error."""

logger = logging.getLogger(__name__)

Folder = Callable[[WeightVersion, WeightsFile], WeightVersion]
"""Writes a version's folder; the event that names it. Raises WeightsError."""


@dataclass(frozen=True, slots=True)
class _Version:
    """What is being distributed."""

    event: WeightVersion
    weights: WeightsFile
    """In host memory until the next version."""
    manifest: Manifest


class Distributor:
    """The trainer's side of the collective transport."""

    def __init__(self, config: Config, writer: EventWriter, write_folder: Folder, newest: WeightVersion | None) -> None:
        """Open the rendezvous and hear members from now on.

        ``newest`` is the newest event on the log: epochs go on from its. Raises BrokerError, WeightsError.
        """
        self._config = config.weights
        self._writer = writer
        self._write_folder = write_folder
        rules = Rules(deadline_s=config.weights.deadline_s, silence_s=SILENCE_S)
        self._state = State(rules, next_epoch=newest.epoch + 1 if newest else 0)
        self._stored = _stored_of(newest)
        self._version: _Version | None = None
        self._sender = Sender(config.weights.bind, config.weights.port, config.weights.backend)
        self._reader = EventReader(config, f"{client_id(config)}-members", ["members"], from_end=True)
        self._changed = threading.Condition(threading.RLock())
        self._to_store = False
        self._ending = False
        self._metrics: dict[str, float] = {}
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="distributor", daemon=True)
        self._thread.start()

    def publish(self, event: WeightVersion, weights: WeightsFile) -> None:
        """Announce a version, whose folder is there if ``event`` names one, and begin its way to the members.

        Waits for the version before it, which its deadline bounds, and until this one's announcement is on the log.
        Raises BrokerError.
        """
        began = time.monotonic()
        manifest = Manifest.describe(weights.data, event.sha256, self._config.bucket_bytes)
        described = time.monotonic()
        with self._changed:
            limit = self._config.deadline_s + SLACK_S
            if not self._changed.wait_for(lambda: self._state.update is None or self._error, limit):
                raise WeightsError(f"the transfer of a version has not ended {SLACK_S:g} s after its deadline")
            self._raise_error()
            waited = time.monotonic()
            self._version = _Version(event, weights, manifest)
            self._remember(event)
            self._happens(Offer(event.version, event.sha256, bool(event.uri)))
            self._metrics["weights_describe_s"] = described - began
            self._metrics["weights_wait_s"] = waited - described
        self._writer.flush()

    def take_metrics(self) -> dict[str, float]:
        """What has been measured since the last call: ``weights_epochs``, ``weights_members`` (that hold the newest),
        ``weights_missed``, ``weights_join_s``, ``weights_send_s``, ``weights_bytes_per_s`` to each member, and the
        trainer's pauses: ``weights_describe_s`` (checksums) and ``weights_wait_s`` (for the version before).
        """
        with self._changed:
            metrics, self._metrics = self._metrics, {}
        return metrics

    def close(self, *, patiently: bool) -> None:
        """Finish the update that is open, within its deadline, or only within a moment, and stop. Does not raise."""
        with self._changed:
            self._changed.wait_for(
                lambda: (self._state.update is None and not self._to_store) or self._error,
                self._config.deadline_s + SLACK_S if patiently else TICK_S,
            )
            self._ending = True
        self._sender.abort()
        self._thread.join(SLACK_S)
        self._reader.close()

    def _run(self) -> None:
        try:
            while not self._ending:
                events = self._reader.poll(TICK_S)
                with self._changed:
                    for event in events:
                        self._hear(event)
                    self._happens(Tick())
                if self._to_store:
                    self._store()
        # The trainer's thread raises it: without members' announcements no version would reach anybody new.
        except Exception as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()
            logger.error("weights are no longer distributed: %s", error)

    def _hear(self, event: Event) -> None:
        try:
            member = event.record(Member)
        except DecodeError as error:
            logger.warning("members, offset %d: %s", event.offset, error)
            return
        takes = member.transport == COLLECTIVE and member.backend == self._config.backend
        ranks = range(member.receivers) if takes else ()
        self._happens(
            Heard(
                member.member_id,
                tuple(receiver_name(member.member_id, index) for index in ranks),
                member.version,
                member.sha256,
                member.epoch,
                here=member.state != "left",
            )
        )

    def _happens(self, event: Happening) -> None:
        """Under the lock, so that what follows from one event is on its way before the next."""
        with self._changed:
            self._state, actions = step(self._state, event, time.monotonic())
            for action in actions:
                self._do(action)
            if actions:
                self._changed.notify_all()

    def _do(self, action: Action) -> None:
        assert self._version is not None
        match action:
            case Open():
                opened = self._opening(self._version, action)
                announced = self._writer.send("weights", opened)
                threading.Thread(
                    target=self._transfer,
                    args=(action, self._version, announced),
                    name=f"transfer-{action.epoch}",
                    daemon=True,
                ).start()
            case Announce():
                self._writer.send("weights", self._with_stored(self._version.event))
            case Abandon(epoch):
                logger.warning("the transfer of epoch %d is abandoned: its deadline has passed", epoch)
                self._sender.abort()
            case Store():
                self._to_store = True
            case Closed():
                self._closed(action)

    def _opening(self, version: _Version, action: Open) -> WeightVersion:
        return replace(
            self._with_stored(version.event),
            transport=COLLECTIVE,
            epoch=action.epoch,
            members=action.receivers,
            backend=self._config.backend,
            rendezvous=self._sender.address,
            deadline_ms=int(action.left_s * 1000),
            layout=pack_layout(version.manifest.header),
            bucket_bytes=version.manifest.bucket_bytes,
            checksums=pack_checksums(version.manifest.checksums),
        )

    def _with_stored(self, event: WeightVersion) -> WeightVersion:
        version, uri, sha256 = self._stored
        return replace(
            event,
            epoch=self._state.next_epoch - 1,
            stored_version=version,
            stored_uri=uri,
            stored_sha256=sha256,
        )

    def _remember(self, event: WeightVersion) -> None:
        if event.uri:
            self._stored = (event.version, event.uri, event.sha256)

    def _transfer(self, opened: Open, version: _Version, announced: object) -> None:
        """One epoch, on a thread of its own."""
        until = time.monotonic() + opened.left_s
        silent: frozenset[str] = frozenset()
        outcome: Outcome | None = None
        try:
            # Nobody can come before the event is on the log.
            announced.get(opened.left_s)  # type: ignore[attr-defined]  # kafka-python's future
            outcome = self._sender.send(
                version.weights.data,
                version.manifest,
                epoch=opened.epoch,
                receivers=opened.receivers,
                deadline_s=until - time.monotonic(),
                stall_s=self._config.stall_s,
                device="cuda" if self._config.backend == "nccl" else "cpu",
            )
            silent = outcome.silent
            self._report(opened, version, outcome)
        # An attempt that fails in a way nobody foresaw is one more that failed; members are not to blame.
        except Exception as error:
            logger.warning("epoch %d (weight version %d) failed: %s", opened.epoch, opened.version, error)
        self._happens(Ended(opened.epoch, outcome.reached if outcome else frozenset(), silent))

    def _report(self, opened: Open, version: _Version, outcome: Outcome) -> None:
        for receiver, cause in sorted(outcome.failed.items()):
            logger.warning(
                "epoch %d: %s did not take weight version %d: %s", opened.epoch, receiver, opened.version, cause
            )
        if outcome.silent:
            logger.warning(
                "epoch %d: weight version %d goes on without %s%s",
                opened.epoch,
                opened.version,
                ", ".join(sorted(outcome.silent)),
                f": {outcome.error}" if outcome.error else "",
            )
        if outcome.reached:
            with self._changed:
                self._metrics["weights_join_s"] = outcome.join_s
                self._metrics["weights_send_s"] = outcome.send_s
                self._metrics["weights_bytes_per_s"] = version.event.size_bytes / max(outcome.send_s, 1e-6)

    def _closed(self, closed: Closed) -> None:
        metrics = self._metrics
        metrics["weights_epochs"] = metrics.get("weights_epochs", 0.0) + closed.epochs
        metrics["weights_missed"] = metrics.get("weights_missed", 0.0) + len(closed.missed)
        metrics["weights_members"] = float(len(closed.current))
        metrics["weights_update_s"] = closed.seconds
        if closed.missed:
            logger.warning(
                "weight version %d: %s left behind; they catch up by checkpoint",
                closed.version,
                ", ".join(closed.missed),
            )

    def _store(self) -> None:
        """Write the current version's folder, for members that are behind, and announce it."""
        with self._changed:
            self._to_store = False
            version = self._version
        assert version is not None
        try:
            event = self._write_folder(version.event, version.weights)
        except WeightsError as error:
            logger.error("%s; trying again", error)
            self._happens(Stored(version.event.version, done=False))
            return
        with self._changed:
            if self._version is version:
                self._version = replace(version, event=event)
                self._remember(event)
                self._writer.send("weights", self._with_stored(event))
        self._happens(Stored(version.event.version, done=True))

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error if isinstance(self._error, BrokerError) else BrokerError(str(self._error))


def _stored_of(newest: WeightVersion | None) -> tuple[int, str, str]:
    if newest is None:
        return -1, "", ""
    if newest.uri:
        return newest.version, newest.uri, newest.sha256
    return newest.stored_version, newest.stored_uri, newest.stored_sha256
