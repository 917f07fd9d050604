"""Brings each version to the explorers by collectives while the trainer goes on.

The trainer's thread offers versions. A thread of the distributor reads members' announcements. Each transfer, and the
write of a folder for members that are behind, has a thread of its own, which may get stuck. Their events pass one after
the other through :mod:`rft.weights.membership`, which decides.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from rft.config import Config
from rft.errors import BrokerError, WeightsError
from rft.log.events import Event
from rft.log.reader import EventReader
from rft.log.records import read_record
from rft.log.writer import EventWriter
from rft.weights.manifest import Manifest, pack_checksums, pack_layout
from rft.weights.member_check import check_member
from rft.weights.membership import MembershipRules, MembershipState, advance
from rft.weights.membership_types import (
    AbortTransfer,
    Action,
    AnnounceVersion,
    FolderStored,
    MemberSeen,
    MembershipEvent,
    OpenTransfer,
    StoreFolder,
    Tick,
    TransferEnded,
    UpdateClosed,
    VersionOffered,
)
from rft.weights.sender import Sender, TransferOutcome
from rft.weights.transfer_spec import receiver_name
from rft.weights.transport import COLLECTIVE, NewVersion
from rft.weights.version_folders import VersionFolders
from schemas.events import Member, WeightVersion

MEMBER_TIMEOUT_S = 10.0
"""Explorers announce themselves every two seconds."""
TICK_S = 0.1
SLACK_S = 5.0
"""Time beyond a deadline that the trainer's thread waits for an update to be closed before that is an error."""

logger = logging.getLogger(__name__)


class _StoredVersion(NamedTuple):
    """The newest version that has a folder."""

    version: int = -1
    uri: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class _Version:
    """The version that is being distributed."""

    new: NewVersion
    """Its weights stay in host memory until the next version."""
    event: WeightVersion
    manifest: Manifest


class Distributor:
    """Carries out the collective transport for a trainer."""

    def __init__(
        self,
        config: Config,
        writer: EventWriter,
        folders: VersionFolders,
        newest: WeightVersion | None,
        *,
        client_id: str,
    ) -> None:
        """Open the rendezvous and read members' announcements from now on.

        ``newest`` is the newest version on the log; epochs count on from its. Raises BrokerError, WeightsError.
        """
        self._config = config.weights
        self._writer = writer
        self._folders = folders
        rules = MembershipRules(deadline_s=config.weights.deadline_s, member_timeout_s=MEMBER_TIMEOUT_S)
        self._state = MembershipState(rules, next_epoch=newest.epoch + 1 if newest else 0)
        self._stored = _stored_version(newest)
        self._version: _Version | None = None
        self._sender = Sender(config.weights.bind, config.weights.port, config.weights.backend)
        self._reader = EventReader(config, f"{client_id}-members", ["members"], from_end=True)
        self._changed = threading.Condition(threading.RLock())
        """Guards everything below and the state; notified when actions have been taken."""
        self._store_requested = False
        self._storing = False
        self._store_thread: threading.Thread | None = None
        self._closing = False
        self._metrics: dict[str, float] = {}
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="distributor", daemon=True)
        self._thread.start()

    def publish(self, event: WeightVersion, new: NewVersion) -> None:
        """Announce a version, whose folder is there if ``event`` names one, and begin its way to the members.

        Waits for the version before it, which its deadline bounds, and until this one's announcement is on the log.
        Raises BrokerError, and WeightsError when the transfer before does not end.
        """
        began = time.monotonic()
        manifest = Manifest.describe(new.weights.data, event.sha256, self._config.bucket_bytes)
        described = time.monotonic()
        with self._changed:
            limit = self._config.deadline_s + SLACK_S
            if not self._changed.wait_for(lambda: self._state.update is None or self._error, limit):
                raise WeightsError(f"the transfer of a version has not ended {SLACK_S:g} s after its deadline")
            self._raise_error()
            waited = time.monotonic()
            self._version = _Version(new, event, manifest)
            self._note_folder(event)
            self._apply(VersionOffered(event.version, event.sha256, bool(event.uri)))
            self._metrics["weights_describe_s"] = described - began
            self._metrics["weights_wait_s"] = waited - described
        self._writer.flush()

    def take_metrics(self) -> dict[str, float]:
        """Return what was measured since the last call.

        ``weights_epochs``, ``weights_members`` (that hold the newest version), ``weights_missed``, ``weights_join_s``,
        ``weights_send_s``, ``weights_bytes_per_s`` to each member, ``weights_update_s``, and the trainer's pauses:
        ``weights_describe_s`` (for checksums) and ``weights_wait_s`` (for the version before).
        """
        with self._changed:
            metrics, self._metrics = self._metrics, {}
        return metrics

    def close(self, *, drain: bool) -> None:
        """Let the open update finish within its deadline if ``drain``, else within a moment, and stop.

        Does not raise.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: (self._state.update is None and not self._store_requested and not self._storing) or self._error,
                self._config.deadline_s + SLACK_S if drain else TICK_S,
            )
            self._closing = True
        self._sender.abort()
        self._thread.join(SLACK_S)
        if self._store_thread is not None:
            self._store_thread.join(SLACK_S)
        self._reader.close()

    def _run(self) -> None:
        try:
            while not self._closing:
                events = self._reader.poll(TICK_S)
                with self._changed:
                    for event in events:
                        self._apply_member(event)
                    self._apply(Tick())
                self._start_store()
        # The trainer's thread raises it: without members' announcements no version would reach a new member.
        except Exception as error:
            self._end_with(error)

    def _end_with(self, error: Exception) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()
        logger.error("weights are no longer distributed: %s", error)

    def _start_store(self) -> None:
        """Write the requested folder on a thread of its own: a large one takes longer than a member may be silent."""
        with self._changed:
            if not self._store_requested or self._storing:
                return
            self._store_requested, self._storing = False, True
        self._store_thread = threading.Thread(target=self._store, name="store-version", daemon=True)
        self._store_thread.start()

    def _apply_member(self, event: Event) -> None:
        member = read_record(event, Member, self._writer.publish_dead_letter, check=check_member)
        if member is None:
            return
        takes_part = member.transport == COLLECTIVE and member.backend == self._config.backend
        ranks = range(member.receivers) if takes_part else ()
        self._apply(
            MemberSeen(
                member.member_id,
                tuple(receiver_name(member.member_id, index) for index in ranks),
                member.version,
                member.sha256,
                member.epoch,
                present=member.state != "left",
            )
        )

    def _apply(self, event: MembershipEvent) -> None:
        """Decide on ``event`` and act, under the lock, so that its actions have begun before the next event."""
        with self._changed:
            self._state, actions = advance(self._state, event, time.monotonic())
            for action in actions:
                self._act(action)
            if actions:
                self._changed.notify_all()

    def _act(self, action: Action) -> None:
        assert self._version is not None
        match action:
            case OpenTransfer():
                announced = self._writer.send("weights", self._transfer_event(self._version, action))
                threading.Thread(
                    target=self._transfer,
                    args=(action, self._version, announced),
                    name=f"transfer-{action.epoch}",
                    daemon=True,
                ).start()
            case AnnounceVersion():
                self._writer.send("weights", self._with_stored_version(self._version.event))
            case AbortTransfer(epoch):
                logger.warning("the transfer of epoch %d is aborted: its deadline has passed", epoch)
                self._sender.abort()
            case StoreFolder():
                self._store_requested = True
            case UpdateClosed():
                self._report_update(action)

    def _transfer_event(self, version: _Version, action: OpenTransfer) -> WeightVersion:
        return replace(
            self._with_stored_version(version.event),
            transport=COLLECTIVE,
            epoch=action.epoch,
            members=action.receivers,
            backend=self._config.backend,
            rendezvous=self._sender.address,
            deadline_ms=int(action.remaining_s * 1000),
            layout=pack_layout(version.manifest.header),
            bucket_bytes=version.manifest.bucket_bytes,
            checksums=pack_checksums(version.manifest.checksums),
        )

    def _with_stored_version(self, event: WeightVersion) -> WeightVersion:
        return replace(
            event,
            epoch=self._state.next_epoch - 1,
            stored_version=self._stored.version,
            stored_uri=self._stored.uri,
            stored_sha256=self._stored.sha256,
        )

    def _note_folder(self, event: WeightVersion) -> None:
        if event.uri:
            self._stored = _StoredVersion(event.version, event.uri, event.sha256)

    def _transfer(self, opened: OpenTransfer, version: _Version, announced: Any) -> None:
        """Carry out one epoch, on its own thread. ``announced`` is kafka-python's future of its event."""
        ends_at = time.monotonic() + opened.remaining_s
        outcome: TransferOutcome | None = None
        try:
            # No member can join before the event is on the log.
            announced.get(opened.remaining_s)
            outcome = self._sender.send(
                version.new.weights.data,
                version.manifest,
                epoch=opened.epoch,
                receivers=opened.receivers,
                deadline_s=ends_at - time.monotonic(),
                stall_s=self._config.stall_s,
                device="cuda" if self._config.backend == "nccl" else "cpu",
            )
            self._report_transfer(opened, version, outcome)
        # An attempt that fails in an unforeseen way is one more failed attempt, and no member's fault.
        except Exception as error:
            logger.warning("epoch %d (weight version %d) failed: %s", opened.epoch, opened.version, error)
        reached = outcome.reached if outcome else frozenset()
        self._apply(TransferEnded(opened.epoch, reached, outcome.unresponsive if outcome else frozenset()))

    def _report_transfer(self, opened: OpenTransfer, version: _Version, outcome: TransferOutcome) -> None:
        for receiver, cause in sorted(outcome.failed.items()):
            logger.warning(
                "epoch %d: %s did not take weight version %d: %s", opened.epoch, receiver, opened.version, cause
            )
        if outcome.unresponsive:
            logger.warning(
                "epoch %d: weight version %d goes on without %s%s",
                opened.epoch,
                opened.version,
                ", ".join(sorted(outcome.unresponsive)),
                f": {outcome.error}" if outcome.error else "",
            )
        if outcome.reached:
            with self._changed:
                self._metrics["weights_join_s"] = outcome.join_s
                self._metrics["weights_send_s"] = outcome.send_s
                self._metrics["weights_bytes_per_s"] = version.event.size_bytes / max(outcome.send_s, 1e-6)

    def _report_update(self, closed: UpdateClosed) -> None:
        metrics = self._metrics
        metrics["weights_epochs"] = metrics.get("weights_epochs", 0.0) + closed.epochs
        metrics["weights_missed"] = metrics.get("weights_missed", 0.0) + len(closed.missed)
        metrics["weights_members"] = float(len(closed.current))
        metrics["weights_update_s"] = closed.seconds
        if closed.missed:
            logger.warning(
                "weight version %d did not reach %s; they catch up by checkpoint",
                closed.version,
                ", ".join(closed.missed),
            )

    def _store(self) -> None:
        try:
            self._write_folder()
        except Exception as error:
            self._end_with(error)
        finally:
            with self._changed:
                self._storing = False
                self._changed.notify_all()

    def _write_folder(self) -> None:
        """Write the current version's folder, for members that are behind, and announce it."""
        with self._changed:
            version = self._version
        assert version is not None
        try:
            event = self._folders.write(version.new)
        except WeightsError as error:
            logger.error("%s. Trying again", error)
            self._apply(FolderStored(version.event.version, written=False))
            return
        with self._changed:
            if self._version is version:
                self._version = replace(version, event=event)
                self._note_folder(event)
                self._writer.send("weights", self._with_stored_version(event))
        self._apply(FolderStored(version.event.version, written=True))

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error if isinstance(self._error, BrokerError) else BrokerError(str(self._error))


def _stored_version(newest: WeightVersion | None) -> _StoredVersion:
    if newest is None:
        return _StoredVersion()
    if newest.uri:
        return _StoredVersion(newest.version, newest.uri, newest.sha256)
    return _StoredVersion(newest.stored_version, newest.stored_uri, newest.stored_sha256)
