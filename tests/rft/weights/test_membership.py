"""Tests the membership of transfers over any interleaving of joins, deaths, hangs, lost and repeated messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from dataclasses import replace as changed

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rft.weights.membership import MAX_EPOCHS, MembershipRules, MembershipState, advance, current_members
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
from rft.weights.version_choice import Fetch, HeldVersion, Receive, choose, supersedes
from schemas.events import WeightVersion

RULES = MembershipRules(deadline_s=10, member_timeout_s=30, store_retry_s=2)


def digest(version: int) -> str:
    return f"sha-{version}"


def seen(member: str, version: int = -1, *, epoch: int = -1, ranks: int = 1, sha256: str = "") -> MemberSeen:
    receivers = tuple(f"{member}#{i}" for i in range(ranks))
    return MemberSeen(member, receivers, version, sha256 or (digest(version) if version >= 0 else ""), epoch)


def after(
    *events: tuple[float, MembershipEvent], state: MembershipState | None = None
) -> tuple[MembershipState, list[Action]]:
    """Return the state, and the actions that follow from the last of the events."""
    state, actions = state or MembershipState(RULES), []
    for now, event in events:
        state, actions = advance(state, event, now)
    return state, actions


def test_an_offered_version_goes_to_all_members_and_its_update_closes_when_all_hold_it():
    state, actions = after((0, seen("a")), (0, seen("b", ranks=2)), (1, VersionOffered(1, digest(1), stored=False)))
    assert actions == [OpenTransfer(0, 1, ("a#0", "b#0", "b#1"), 10)]
    state, actions = advance(state, TransferEnded(0, frozenset(("a#0", "b#0", "b#1")), frozenset()), 3)
    assert actions == [UpdateClosed(1, ("a", "b"), (), 1, 2)]
    assert current_members(state) == ["a", "b"]


def test_a_version_without_members_is_announced_and_closed_at_once():
    _, actions = after((0, VersionOffered(0, digest(0), stored=True)))
    assert actions == [AnnounceVersion(0), UpdateClosed(0, (), (), 0, 0)]


def test_survivors_of_a_broken_transfer_receive_it_in_a_second_epoch_and_the_unresponsive_do_not():
    state, _ = after((0, seen("a")), (0, seen("b")), (1, VersionOffered(1, digest(1), stored=False)))
    state, actions = advance(state, TransferEnded(0, frozenset(), frozenset(("b#0",))), 4)
    assert actions == [OpenTransfer(1, 1, ("a#0",), 7)]
    state, actions = advance(state, TransferEnded(1, frozenset(("a#0",)), frozenset()), 5)
    assert actions == [UpdateClosed(1, ("a",), ("b",), 2, 4)]
    # b repeats an old announcement: it does not know of the epoch that it missed.
    state, _ = advance(state, seen("b", 0), 6)
    state, actions = advance(state, VersionOffered(2, digest(2), stored=False), 7)
    assert actions == [OpenTransfer(2, 2, ("a#0",), 10)]
    state, _ = advance(state, TransferEnded(2, frozenset(("a#0",)), frozenset()), 8)
    # Now it knows, and is behind: a folder helps it at once, the next epoch afterwards.
    state, actions = advance(state, seen("b", 0, epoch=2), 9)
    assert actions == [StoreFolder(2)]
    state, _ = advance(state, FolderStored(2, written=True), 9)
    state, actions = advance(state, VersionOffered(3, digest(3), stored=False), 10)
    assert actions == [OpenTransfer(3, 3, ("a#0", "b#0"), 10)]


def test_a_transfer_that_does_not_end_is_aborted_at_the_deadline():
    state, _ = after((0, seen("a")), (1, VersionOffered(1, digest(1), stored=False)))
    assert advance(state, Tick(), 10.9)[1] == []
    state, actions = advance(state, Tick(), 11)
    assert actions == [AbortTransfer(0), UpdateClosed(1, (), ("a",), 1, 10)]
    assert advance(state, TransferEnded(0, frozenset(("a#0",)), frozenset()), 12)[1] == [], "it ends too late to count"


def test_an_update_that_keeps_failing_is_left_to_folders():
    state, actions = after((0, seen("a")), (0, VersionOffered(1, digest(1), stored=False)))
    for epoch in range(MAX_EPOCHS):
        assert actions == [OpenTransfer(epoch, 1, ("a#0",), 10)]
        state, actions = advance(state, TransferEnded(epoch, frozenset(), frozenset()), 0)
    assert actions == [UpdateClosed(1, (), ("a",), MAX_EPOCHS, 0), StoreFolder(1)]


def test_a_member_that_reads_only_folders_gets_one_of_each_version():
    state, actions = after((0, seen("a", ranks=0)), (0, VersionOffered(1, digest(1), stored=False)))
    assert actions == [AnnounceVersion(1), UpdateClosed(1, (), (), 0, 0), StoreFolder(1)]
    assert advance(state, seen("a", ranks=0), 1)[1] == [], "it is being written"
    state, actions = advance(state, FolderStored(1, written=False), 1)
    assert advance(state, Tick(), 2)[1] == []
    assert advance(state, Tick(), 3)[1] == [StoreFolder(1)], "a disk that was full is tried again"


def test_a_member_that_received_a_version_and_never_announces_it_is_helped_in_the_end():
    state, _ = after((0, seen("a")), (0, VersionOffered(1, digest(1), stored=False)))
    state, actions = advance(state, TransferEnded(0, frozenset(("a#0",)), frozenset()), 1)
    assert StoreFolder(1) not in actions
    state, actions = advance(state, seen("a", epoch=0), 20)
    assert actions == []
    assert advance(state, seen("a", epoch=0), 32)[1] == [StoreFolder(1)]


def test_a_member_without_access_to_folders_is_sent_the_version_again():
    """Such as one on another machine without a shared folder, which joins when no more versions are offered."""
    state, _ = after((0, VersionOffered(5, digest(5), stored=True)), (100, seen("far", -1, epoch=-1)))
    assert advance(state, seen("far"), 109)[1] == [], "it has time to read a folder"
    state, actions = advance(state, seen("far"), 110)
    assert actions == [OpenTransfer(0, 5, ("far#0",), 10)]
    state, actions = advance(state, TransferEnded(0, frozenset(("far#0",)), frozenset()), 111)
    assert actions == [UpdateClosed(5, ("far",), (), 1, 1)]
    # So is one that missed a transfer.
    state, _ = after((0, seen("a", ranks=1)), (0, VersionOffered(1, digest(1), stored=True)))
    state, _ = advance(state, TransferEnded(0, frozenset(), frozenset(("a#0",))), 1)
    state, actions = advance(state, seen("a", epoch=0), 3)
    assert actions == []
    assert advance(state, seen("a", epoch=0), 12)[1] == [OpenTransfer(1, 1, ("a#0",), 10)]


def test_a_member_with_other_bytes_under_the_same_number_is_not_current():
    state, _ = after((0, seen("a")), (0, VersionOffered(1, digest(1), stored=False)))
    state, _ = advance(state, TransferEnded(0, frozenset(("a#0",)), frozenset()), 1)
    state, actions = advance(state, seen("a", 1, epoch=0, sha256="other"), 2)
    assert current_members(state) == []
    assert actions == [StoreFolder(1)]
    announced = WeightVersion("policy", 1, 1, "checkpoint", "v1", digest(1), 1, False, 0)
    assert choose(announced, HeldVersion(1, "other"), ["a#0"], 0) == Fetch(1, digest(1), "v1")
    assert choose(announced, HeldVersion(1, digest(1)), ["a#0"], 0) is None


def test_a_version_offered_during_an_update_waits_for_its_end_and_only_the_newest_waits():
    state, _ = after((0, seen("a")), (0, VersionOffered(1, digest(1), stored=False)))
    state, actions = advance(state, VersionOffered(2, digest(2), stored=False), 1)
    state, more = advance(state, VersionOffered(3, digest(3), stored=False), 2)
    assert actions + more == []
    _, actions = advance(state, TransferEnded(0, frozenset(("a#0",)), frozenset()), 3)
    assert actions == [UpdateClosed(1, ("a",), (), 1, 3), OpenTransfer(1, 3, ("a#0",), 10)]


SECONDS = st.integers(0, 32).map(lambda quarters: quarters / 4)
NAMES = st.sampled_from("abc")
VERSIONS = st.integers(-1, 4)
RECEIVERS = st.frozensets(st.sampled_from([f"{name}#{i}" for name in "abc" for i in range(2)]))
EVENTS = st.one_of(
    st.builds(
        MemberSeen,
        member=NAMES,
        receivers=st.sampled_from([(), ("a#0",), ("b#0",), ("c#0", "c#1")]),
        version=VERSIONS,
        sha256=st.sampled_from(["", *map(digest, range(4)), "other"]),
        epoch=st.integers(-1, 8),
        present=st.booleans(),
    ),
    st.builds(VersionOffered, version=VERSIONS, sha256=st.sampled_from([*map(digest, range(4))]), stored=st.booleans()),
    st.builds(TransferEnded, epoch=st.integers(-1, 8), reached=RECEIVERS, unresponsive=RECEIVERS),
    st.builds(FolderStored, version=VERSIONS, written=st.booleans()),
    st.just(Tick()),
)


@settings(max_examples=400)
@given(st.lists(st.tuples(SECONDS, EVENTS), max_size=40))
def test_whatever_members_announce_no_update_outlasts_its_deadline_and_every_epoch_is_new(events):
    """Includes messages that make no sense: false ones, repetitions, ends of transfers that never began."""
    state, now, opened, closed = MembershipState(RULES), 0.0, [], []
    for wait, event in events:
        now += wait
        state, actions = advance(state, event, now)
        assert state.update is None or now < state.update.deadline_at
        assert state.update is None or state.update.epochs <= MAX_EPOCHS
        for action in actions:
            if isinstance(action, OpenTransfer):
                assert action.epoch == len(opened)
                assert 0 < action.remaining_s <= RULES.deadline_s
                assert action.receivers
                opened.append(action)
            if isinstance(action, UpdateClosed):
                assert action.seconds <= RULES.deadline_s + wait
                assert not set(action.current) & set(action.missed)
                closed.append(action)
    state, _ = advance(state, Tick(), now + RULES.deadline_s)
    state, _ = advance(state, Tick(), now + 2 * RULES.deadline_s)
    assert state.update is None
    assert state.pending is None


@dataclass
class Member:
    """A simulated explorer. It holds only versions that it has verified."""

    name: str
    held: HeldVersion = field(default_factory=HeldVersion)
    epoch: int = -1
    tried: int = -1
    announced: WeightVersion | None = None
    stopped: bool = False
    unread: list[WeightVersion] = field(default_factory=list)

    @property
    def receivers(self) -> list[str]:
        return [f"{self.name}#0"]

    def announcement(self) -> MemberSeen:
        return MemberSeen(self.name, (f"{self.name}#0",), self.held.version, self.held.sha256, self.epoch)


class Cluster(RuleBasedStateMachine):
    """A trainer and members around a log. Tensors may be lost, arrive damaged, or never all arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.state, self.now, self.version = MembershipState(RULES), 0.0, -1
        self.log: list[WeightVersion] = []
        self.unread_members: list[MemberSeen] = []
        self.members: dict[str, Member] = {}
        self.transfer: OpenTransfer | None = None
        self.taking: set[str] = set()
        self.folders: set[int] = set()
        self.offered_at: dict[int, float] = {}
        self.closed: set[int] = set()
        self.waited = self.overtime = 0.0

    # The trainer's shell.

    def apply(self, event: MembershipEvent) -> None:
        self.state, actions = advance(self.state, event, self.now)
        for action in actions:
            match action:
                case OpenTransfer():
                    self.transfer, self.taking = action, set()
                    self.announce(action.version, action.receivers, action.epoch)
                case AnnounceVersion(version):
                    self.announce(version, (), self.state.next_epoch - 1)
                case AbortTransfer(epoch):
                    assert self.transfer is not None
                    assert self.transfer.epoch == epoch
                    self.transfer = None
                case StoreFolder(version):
                    self.folders.add(version)
                    self.announce(version, (), self.state.next_epoch - 1)
                    self.apply(FolderStored(version, written=True))
                case UpdateClosed():
                    self.transfer = None
                    before, self.overtime = self.overtime, max(0.0, action.seconds - RULES.deadline_s)
                    assert self.overtime <= self.waited, "no later than at the first event after the deadline"
                    if action.version not in self.closed:
                        # Sent again, a version has a deadline of its own; sent first, it waits for one update at most.
                        late = self.now - self.offered_at[action.version]
                        assert late <= 2 * RULES.deadline_s + before + self.overtime
                    self.closed.add(action.version)

    def announce(self, version: int, receivers: tuple[str, ...], epoch: int) -> None:
        stored = max((one for one in self.folders if one <= version), default=-1)
        transport = "collective" if receivers else "checkpoint"
        event = WeightVersion("policy", version, version, transport, "", digest(version), 1, False, 0, epoch, receivers)
        if version in self.folders:
            event = changed(event, uri=f"v{version}")
        if stored >= 0:
            event = changed(event, stored_version=stored, stored_uri=f"v{stored}", stored_sha256=digest(stored))
        self.log.append(event)
        for member in self.members.values():
            member.unread.append(event)

    @rule(stored=st.booleans())
    def offer(self, stored: bool) -> None:
        if self.state.pending is None:
            self.version += 1
            self.offered_at[self.version] = self.now
            if stored:
                self.folders.add(self.version)
            self.apply(VersionOffered(self.version, digest(self.version), stored))

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.wait(seconds)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.waited = seconds
        self.apply(Tick())

    @precondition(lambda self: self.unread_members)
    @rule(data=st.data(), again=st.booleans())
    def the_trainer_reads_members(self, data: st.DataObject, again: bool) -> None:
        index = data.draw(st.integers(0, min(len(self.unread_members) - 1, 3)))
        self.apply(self.unread_members[index] if again else self.unread_members.pop(index))

    # Members.

    @rule(name=st.sampled_from("abcd"))
    def joins(self, name: str) -> None:
        if name not in self.members:
            self.members[name] = Member(name, unread=self.log[-1:])
            self.unread_members.append(self.members[name].announcement())

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def dies(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.members)))
        del self.members[name]
        self.taking.discard(name)

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def stops_or_goes_on(self, data: st.DataObject) -> None:
        member = self.members[data.draw(st.sampled_from(sorted(self.members)))]
        member.stopped = not member.stopped

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def reads(self, data: st.DataObject) -> None:
        self.read(self.members[data.draw(st.sampled_from(sorted(self.members)))])

    def read(self, member: Member) -> None:
        if member.stopped:
            return
        for event in member.unread:
            member.epoch = max(member.epoch, event.epoch)
            if supersedes(event, member.announced):
                member.announced = event
        member.unread.clear()
        match choose(member.announced, member.held, member.receivers, member.tried):
            case Receive(announced):
                member.tried = announced.epoch
                if self.transfer and self.transfer.epoch == announced.epoch:
                    self.taking.add(member.name)
            case Fetch(version, sha256, _):
                if version in self.folders:
                    member.held = HeldVersion(version, sha256)
        self.unread_members.append(member.announcement())

    @precondition(lambda self: self.transfer is not None)
    @rule(data=st.data())
    def the_transfer_ends(self, data: st.DataObject) -> None:
        """For some it brings the bytes, for some torn ones, which are refused; some have died or stopped in it."""
        assert self.transfer is not None
        opened, self.transfer = self.transfer, None
        able = sorted(name for name in self.taking if name in self.members and not self.members[name].stopped)
        whole = set(data.draw(st.lists(st.sampled_from(able), unique=True))) if able else set()
        for name in whole:
            self.members[name].held = HeldVersion(opened.version, digest(opened.version))
            self.unread_members.append(self.members[name].announcement())
        reached = frozenset(f"{name}#0" for name in whole)
        self.apply(TransferEnded(opened.epoch, reached, frozenset(opened.receivers) - {f"{name}#0" for name in able}))

    @invariant()
    def one_version_is_one_set_of_weights(self) -> None:
        for member in self.members.values():
            assert member.held in (HeldVersion(), HeldVersion(member.held.version, digest(member.held.version)))
            assert member.held.version <= self.version

    @invariant()
    def no_update_outlasts_its_deadline(self) -> None:
        assert self.state.update is None or self.now < self.state.update.deadline_at

    def teardown(self) -> None:
        """When the faults end, every member that lives holds the newest version soon."""
        if self.version < 0:
            return
        for member in self.members.values():
            member.stopped = False
        for _ in range(12):
            for member in self.members.values():
                self.read(member)
            while self.unread_members:
                self.apply(self.unread_members.pop(0))
            if self.transfer is not None:
                opened, self.transfer = self.transfer, None
                here = {name for name in self.taking if name in self.members}
                for name in here:
                    self.members[name].held = HeldVersion(opened.version, digest(opened.version))
                reached = frozenset(f"{name}#0" for name in here)
                self.apply(TransferEnded(opened.epoch, reached, frozenset(opened.receivers) - reached))
            self.wait(4)
        assert {name: member.held.version for name, member in self.members.items()} == dict.fromkeys(
            self.members, self.version
        )
        assert set(current_members(self.state)) >= set(self.members)


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
