"""Who gets which weights, decided without I/O: ``step(state, event, now) -> (state, actions)``.

A trainer offers versions, members are heard of, transfers end, time passes. An update is one version's way to the
members: one or more epochs (attempts), all before one deadline. The two promises, held by Hypothesis over arbitrary
interleavings: an update is closed at the first event after its deadline at the latest, whatever members do; and a
member counts as current only with the version and the digest that were offered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

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

MAX_EPOCHS = 3
"""Attempts of one update: what fails a third time is not bad luck, and folders are there for it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Durations in seconds."""

    deadline_s: float
    silence_s: float
    """A member that was not heard of for so long is gone."""
    retry_s: float = 2.0
    """Between two tries to write a folder."""
    patience_s: float = 10.0
    """A member that is behind has so long to take the folder; then the version is sent to it: it may see no folder."""


@dataclass(frozen=True, slots=True)
class Known:
    """A member, as last heard of."""

    receivers: tuple[str, ...]
    version: int
    sha256: str
    heard_at: float
    since: float
    """When it was first heard of."""
    missed: int = -1
    """The epoch that it missed without a word; it takes part again when it knows of that epoch."""


@dataclass(frozen=True, slots=True)
class Update:
    """One version's way to the members."""

    deadline_at: float
    began_at: float
    epochs: int = 0
    open: Open | None = None
    reached: frozenset[str] = frozenset()
    """Receivers."""
    asked: frozenset[str] = frozenset()
    """Members."""


@dataclass(frozen=True, slots=True)
class State:
    """What the trainer knows."""

    rules: Rules
    next_epoch: int = 0
    members: Mapping[str, Known] = field(default_factory=dict)
    current: Offer | None = None
    """Newest version offered."""
    update: Update | None = None
    waiting: Offer | None = None
    """Offered while an update was open; begins when that is closed. Only the newest is kept."""
    granted: frozenset[str] = frozenset()
    """Members that have the current version by their transfer, and may not have said so yet."""
    granted_until: float = 0.0
    store_at: float = 0.0
    """No folder is asked for before; infinite while one is being written."""
    resend_at: float = 0.0
    """The current version is not sent again before."""


def step(state: State, event: Happening, now: float) -> tuple[State, list[Action]]:
    """What follows from ``event`` at ``now`` (seconds, monotonic)."""
    actions: list[Action] = []
    match event:
        case Heard():
            state = _heard(state, event, now)
        case Offer():
            state = replace(state, waiting=event)
        case Ended():
            state = _ended(state, event, now, actions)
        case Stored():
            state = _stored(state, event, now)
        case Tick():
            pass
    state = _forget(state, now)
    if state.update is not None and now >= state.update.deadline_at:
        state = _overdue(state, state.update, now, actions)
    if state.update is None and state.waiting is not None:
        state = _begin(state, state.waiting, now, actions)
    return _settle(state, now, actions), actions


def current_members(state: State) -> list[str]:
    """Members that hold the newest version, or have just received it."""
    return [name for name, known in state.members.items() if _holds(state, name, known)]


def _heard(state: State, event: Heard, now: float) -> State:
    members = dict(state.members)
    before = members.pop(event.member, None)
    if event.here:
        missed = before.missed if before else -1
        members[event.member] = Known(
            event.receivers,
            event.version,
            event.sha256,
            heard_at=now,
            since=before.since if before else now,
            missed=-1 if event.epoch >= missed else missed,
        )
    granted = state.granted
    offer = state.current
    if offer and event.version >= offer.version and not _same(offer, event):
        # It says itself that it holds something else.
        granted -= {event.member}
    return replace(state, members=members, granted=granted)


def _stored(state: State, event: Stored, now: float) -> State:
    if state.current is None or event.version != state.current.version:
        return replace(state, store_at=0.0)
    if event.done:
        return _postponed(replace(state, current=replace(state.current, stored=True), store_at=0.0), now)
    return replace(state, store_at=now + state.rules.retry_s)


def _forget(state: State, now: float) -> State:
    kept = {n: known for n, known in state.members.items() if now - known.heard_at < state.rules.silence_s}
    return state if len(kept) == len(state.members) else replace(state, members=kept)


def _begin(state: State, offer: Offer, now: float, actions: list[Action]) -> State:
    update = Update(deadline_at=now + state.rules.deadline_s, began_at=now)
    state = replace(state, current=offer, waiting=None, granted=frozenset(), store_at=0.0, update=update)
    state = _attempt(_postponed(state, now), update, now, actions)
    if state.update is None:
        # Nobody to send it to; it is announced all the same.
        actions.insert(0, Announce(offer.version))
    return state


def _attempt(state: State, update: Update, now: float, actions: list[Action]) -> State:
    """Open an epoch for those who do not have the version, or close the update."""
    assert state.current is not None
    wanting = {
        name: known.receivers
        for name, known in sorted(state.members.items())
        if known.receivers
        and known.missed < 0
        and not _same(state.current, known)
        and not update.reached.issuperset(known.receivers)
    }
    left = update.deadline_at - now
    if not wanting or left <= 0 or update.epochs >= MAX_EPOCHS:
        return _close(state, update, now, actions)
    receivers = tuple(receiver for names in wanting.values() for receiver in names)
    opened = Open(state.next_epoch, state.current.version, receivers, left)
    actions.append(opened)
    update = replace(update, epochs=update.epochs + 1, open=opened, asked=update.asked | set(wanting))
    return replace(state, next_epoch=state.next_epoch + 1, update=update)


def _ended(state: State, event: Ended, now: float, actions: list[Action]) -> State:
    update = state.update
    if update is None or update.open is None or update.open.epoch != event.epoch:
        return state
    state = _suspect(state, event.silent, event.epoch)
    update = replace(update, open=None, reached=update.reached | event.reached)
    failed = set(_receivers(state, update.asked)) - update.reached - event.silent
    if failed and now < update.deadline_at:
        return _attempt(state, update, now, actions)
    return _close(state, update, now, actions)


def _overdue(state: State, update: Update, now: float, actions: list[Action]) -> State:
    if update.open is not None:
        actions.append(Abandon(update.open.epoch))
        silent = frozenset(update.open.receivers) - update.reached
        state = _suspect(state, silent, update.open.epoch)
    return _close(state, update, now, actions)


def _suspect(state: State, receivers: Iterable[str], epoch: int) -> State:
    silent = set(receivers)
    members = {
        name: replace(known, missed=epoch) if silent.intersection(known.receivers) else known
        for name, known in state.members.items()
    }
    return replace(state, members=members)


def _close(state: State, update: Update, now: float, actions: list[Action]) -> State:
    assert state.current is not None
    offer = state.current
    got = {name for name in update.asked if name in state.members and _reached(state.members[name], update.reached)}
    holding = {name for name, known in state.members.items() if _same(offer, known)} | got
    actions.append(
        Closed(
            offer.version,
            tuple(sorted(holding)),
            tuple(sorted(update.asked - holding)),
            update.epochs,
            now - update.began_at,
        )
    )
    granted = frozenset(got) | state.granted
    return replace(state, update=None, granted=granted, granted_until=now + state.rules.silence_s)


def _settle(state: State, now: float, actions: list[Action]) -> State:
    """Help members that are behind: by a folder, and who does not take that, by another transfer."""
    offer = state.current
    if offer is None:
        return state
    if now >= state.granted_until:
        state = replace(state, granted=frozenset())
    behind = [known for name, known in state.members.items() if not _holds(state, name, known) and known.missed < 0]
    if state.update is not None:
        # The others may get it yet.
        behind = [known for known in behind if not known.receivers]
    if not behind:
        return state
    if not offer.stored:
        if now < state.store_at:
            return state
        actions.append(Store(offer.version))
        return _postponed(replace(state, store_at=float("inf")), now)
    patience = now - state.rules.patience_s
    if state.update is None and now >= state.resend_at and any(k.receivers and k.since <= patience for k in behind):
        update = Update(deadline_at=now + state.rules.deadline_s, began_at=now)
        return _attempt(_postponed(replace(state, update=update), now), update, now, actions)
    return state


def _postponed(state: State, now: float) -> State:
    return replace(state, resend_at=now + state.rules.patience_s)


def _holds(state: State, name: str, known: Known) -> bool:
    return state.current is not None and (_same(state.current, known) or name in state.granted)


def _reached(known: Known, reached: frozenset[str]) -> bool:
    return bool(known.receivers) and reached.issuperset(known.receivers)


def _same(offer: Offer, held: Known | Heard) -> bool:
    return (held.version, held.sha256) == (offer.version, offer.sha256)


def _receivers(state: State, members: Iterable[str]) -> list[str]:
    return [receiver for name in members if name in state.members for receiver in state.members[name].receivers]
