"""Decides which members get which weights, without I/O: ``advance(state, event, now) -> (state, actions)``.

The trainer offers versions, members announce themselves, transfers end, time passes. An update brings one version to
the members: in one or more epochs (attempts), all before one deadline. Hypothesis tests two promises over arbitrary
interleavings. An update is closed at the first event after its deadline at the latest, whatever members do. A member
counts as current only with the version and the digest that were offered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

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

MAX_EPOCHS = 3
"""Attempts of one update. What fails a third time will fail again, and folders are there for it."""


@dataclass(frozen=True, slots=True)
class MembershipRules:
    """Durations in seconds."""

    deadline_s: float
    member_timeout_s: float
    """A member that has not announced itself for this long is gone."""
    store_retry_s: float = 2.0
    """Pause between two tries to write a folder."""
    resend_after_s: float = 10.0
    """Time that a member that is behind has to read the folder. After it the version is sent: the member may have no
    access to folders."""


@dataclass(frozen=True, slots=True)
class MemberState:
    """What a member's newest announcement says."""

    receivers: tuple[str, ...]
    version: int
    sha256: str
    seen_at: float
    first_seen_at: float
    missed_epoch: int = -1
    """The epoch in which it did not respond. It takes part again when it knows of that epoch."""


@dataclass(frozen=True, slots=True)
class Update:
    """Brings one version to the members."""

    deadline_at: float
    began_at: float
    epochs: int = 0
    transfer: OpenTransfer | None = None
    reached: frozenset[str] = frozenset()
    """Receivers that hold the version."""
    invited: frozenset[str] = frozenset()
    """Members that were invited to a transfer."""


@dataclass(frozen=True, slots=True)
class MembershipState:
    """All that decisions depend on."""

    rules: MembershipRules
    next_epoch: int = 0
    members: Mapping[str, MemberState] = field(default_factory=dict)
    current: VersionOffered | None = None
    """Newest version whose update has begun."""
    update: Update | None = None
    pending: VersionOffered | None = None
    """Newest version offered while an update was open. Its update begins when that one is closed."""
    delivered: frozenset[str] = frozenset()
    """Members that hold the current version by a transfer and may not have announced so yet."""
    delivered_until: float = 0.0
    """When ``delivered`` expires: by then members have announced what they hold."""
    store_at: float = 0.0
    """Earliest time to ask for a folder; infinite while one is being written."""
    resend_at: float = 0.0
    """Earliest time to send the current version again."""


def advance(state: MembershipState, event: MembershipEvent, now: float) -> tuple[MembershipState, list[Action]]:
    """Return the state after ``event`` at ``now`` (seconds, monotonic) and the actions that follow, in order."""
    actions: list[Action] = []
    match event:
        case MemberSeen():
            state = _note_member(state, event, now)
        case VersionOffered():
            state = replace(state, pending=event)
        case TransferEnded():
            state = _end_transfer(state, event, now, actions)
        case FolderStored():
            state = _note_folder(state, event, now)
        case Tick():
            pass
    state = _remove_silent_members(state, now)
    if state.update is not None and now >= state.update.deadline_at:
        state = _close_overdue(state, state.update, now, actions)
    if state.update is None and state.pending is not None:
        state = _begin_update(state, state.pending, now, actions)
    return _help_members_behind(state, now, actions), actions


def current_members(state: MembershipState) -> list[str]:
    """Return the members that hold the newest version or have just received it."""
    return [name for name, member in state.members.items() if _is_current(state, name, member)]


def _note_member(state: MembershipState, event: MemberSeen, now: float) -> MembershipState:
    members = dict(state.members)
    before = members.pop(event.member, None)
    if event.present:
        missed = before.missed_epoch if before else -1
        members[event.member] = MemberState(
            event.receivers,
            event.version,
            event.sha256,
            seen_at=now,
            first_seen_at=before.first_seen_at if before else now,
            missed_epoch=-1 if event.epoch >= missed else missed,
        )
    delivered = state.delivered
    offer = state.current
    if offer and event.version >= offer.version and not _holds(event, offer):
        # The member itself announces that it holds something else.
        delivered -= {event.member}
    return replace(state, members=members, delivered=delivered)


def _note_folder(state: MembershipState, event: FolderStored, now: float) -> MembershipState:
    if state.current is None or event.version != state.current.version:
        return replace(state, store_at=0.0)
    if event.written:
        return _postpone_resend(replace(state, current=replace(state.current, stored=True), store_at=0.0), now)
    return replace(state, store_at=now + state.rules.store_retry_s)


def _remove_silent_members(state: MembershipState, now: float) -> MembershipState:
    timeout_s = state.rules.member_timeout_s
    present = {name: member for name, member in state.members.items() if now - member.seen_at < timeout_s}
    return state if len(present) == len(state.members) else replace(state, members=present)


def _begin_update(state: MembershipState, offer: VersionOffered, now: float, actions: list[Action]) -> MembershipState:
    update = Update(deadline_at=now + state.rules.deadline_s, began_at=now)
    state = replace(state, current=offer, pending=None, delivered=frozenset(), store_at=0.0, update=update)
    state = _open_transfer(_postpone_resend(state, now), update, now, actions)
    if state.update is None:
        # No member to send it to; it is announced all the same.
        actions.insert(0, AnnounceVersion(offer.version))
    return state


def _open_transfer(state: MembershipState, update: Update, now: float, actions: list[Action]) -> MembershipState:
    """Open an epoch for members that lack the version, or close the update."""
    assert state.current is not None
    lacking = {
        name: member.receivers
        for name, member in sorted(state.members.items())
        if member.receivers
        and member.missed_epoch < 0
        and not _holds(member, state.current)
        and not update.reached.issuperset(member.receivers)
    }
    remaining_s = update.deadline_at - now
    if not lacking or remaining_s <= 0 or update.epochs >= MAX_EPOCHS:
        return _close_update(state, update, now, actions)
    receivers = tuple(receiver for names in lacking.values() for receiver in names)
    transfer = OpenTransfer(state.next_epoch, state.current.version, receivers, remaining_s)
    actions.append(transfer)
    update = replace(update, epochs=update.epochs + 1, transfer=transfer, invited=update.invited | set(lacking))
    return replace(state, next_epoch=state.next_epoch + 1, update=update)


def _end_transfer(state: MembershipState, event: TransferEnded, now: float, actions: list[Action]) -> MembershipState:
    update = state.update
    if update is None or update.transfer is None or update.transfer.epoch != event.epoch:
        return state
    state = _note_missed_epoch(state, event.unresponsive, event.epoch)
    update = replace(update, transfer=None, reached=update.reached | event.reached)
    failed = set(_receivers_of(state, update.invited)) - update.reached - event.unresponsive
    if failed and now < update.deadline_at:
        return _open_transfer(state, update, now, actions)
    return _close_update(state, update, now, actions)


def _close_overdue(state: MembershipState, update: Update, now: float, actions: list[Action]) -> MembershipState:
    if update.transfer is not None:
        actions.append(AbortTransfer(update.transfer.epoch))
        unresponsive = frozenset(update.transfer.receivers) - update.reached
        state = _note_missed_epoch(state, unresponsive, update.transfer.epoch)
    return _close_update(state, update, now, actions)


def _note_missed_epoch(state: MembershipState, unresponsive: Iterable[str], epoch: int) -> MembershipState:
    receivers = set(unresponsive)
    members = {
        name: replace(member, missed_epoch=epoch) if receivers.intersection(member.receivers) else member
        for name, member in state.members.items()
    }
    return replace(state, members=members)


def _close_update(state: MembershipState, update: Update, now: float, actions: list[Action]) -> MembershipState:
    assert state.current is not None
    offer = state.current
    received = {
        name for name in update.invited if name in state.members and _has_received(state.members[name], update.reached)
    }
    holding = {name for name, member in state.members.items() if _holds(member, offer)} | received
    actions.append(
        UpdateClosed(
            offer.version,
            tuple(sorted(holding)),
            tuple(sorted(update.invited - holding)),
            update.epochs,
            now - update.began_at,
        )
    )
    delivered = frozenset(received) | state.delivered
    return replace(state, update=None, delivered=delivered, delivered_until=now + state.rules.member_timeout_s)


def _help_members_behind(state: MembershipState, now: float, actions: list[Action]) -> MembershipState:
    """Offer a folder to members that are behind, and another transfer to those that do not read it."""
    offer = state.current
    if offer is None:
        return state
    if now >= state.delivered_until:
        state = replace(state, delivered=frozenset())
    behind = [
        member
        for name, member in state.members.items()
        if not _is_current(state, name, member) and member.missed_epoch < 0
    ]
    if state.update is not None:
        # The others may still receive it by the open update.
        behind = [member for member in behind if not member.receivers]
    if not behind:
        return state
    if not offer.stored:
        if now < state.store_at:
            return state
        actions.append(StoreFolder(offer.version))
        return _postpone_resend(replace(state, store_at=float("inf")), now)
    waiting_since = now - state.rules.resend_after_s
    waited = any(member.receivers and member.first_seen_at <= waiting_since for member in behind)
    if state.update is None and now >= state.resend_at and waited:
        update = Update(deadline_at=now + state.rules.deadline_s, began_at=now)
        return _open_transfer(_postpone_resend(replace(state, update=update), now), update, now, actions)
    return state


def _postpone_resend(state: MembershipState, now: float) -> MembershipState:
    return replace(state, resend_at=now + state.rules.resend_after_s)


def _is_current(state: MembershipState, name: str, member: MemberState) -> bool:
    return state.current is not None and (_holds(member, state.current) or name in state.delivered)


def _has_received(member: MemberState, reached: frozenset[str]) -> bool:
    return bool(member.receivers) and reached.issuperset(member.receivers)


def _holds(held: MemberState | MemberSeen, offer: VersionOffered) -> bool:
    return (held.version, held.sha256) == (offer.version, offer.sha256)


def _receivers_of(state: MembershipState, members: Iterable[str]) -> list[str]:
    return [receiver for name in members if name in state.members for receiver in state.members[name].receivers]
