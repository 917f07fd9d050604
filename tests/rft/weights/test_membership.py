"""The membership of transfers over any interleaving of joins, deaths, hangs, lost and repeated messages, and time."""

from __future__ import annotations

from dataclasses import dataclass, field
from dataclasses import replace as changed

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rft.weights.choosing import Fetch, Held, Receive, choose, supersedes
from rft.weights.membership import MAX_EPOCHS, Rules, State, current_members, step
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
from schemas.events import WeightVersion

RULES = Rules(deadline_s=10, silence_s=30, retry_s=2)


def digest(version: int) -> str:
    return f"sha-{version}"


def heard(member: str, version: int = -1, *, epoch: int = -1, ranks: int = 1, sha256: str = "") -> Heard:
    receivers = tuple(f"{member}#{i}" for i in range(ranks))
    return Heard(member, receivers, version, sha256 or (digest(version) if version >= 0 else ""), epoch)


def after(*events: tuple[float, Happening], state: State | None = None) -> tuple[State, list[Action]]:
    """The state, and what the last of the events led to."""
    state, actions = state or State(RULES), []
    for now, event in events:
        state, actions = step(state, event, now)
    return state, actions


def test_an_offer_goes_to_all_who_are_here_and_closes_when_all_have_it():
    state, actions = after((0, heard("a")), (0, heard("b", ranks=2)), (1, Offer(1, digest(1), stored=False)))
    assert actions == [Open(0, 1, ("a#0", "b#0", "b#1"), 10)]
    state, actions = step(state, Ended(0, frozenset(("a#0", "b#0", "b#1")), frozenset()), 3)
    assert actions == [Closed(1, ("a", "b"), (), 1, 2)]
    assert current_members(state) == ["a", "b"]


def test_a_version_for_nobody_is_announced_and_closed_at_once():
    _, actions = after((0, Offer(0, digest(0), stored=True)))
    assert actions == [Announce(0), Closed(0, (), (), 0, 0)]


def test_survivors_of_a_broken_transfer_get_it_in_a_second_epoch_and_the_silent_do_not():
    state, _ = after((0, heard("a")), (0, heard("b")), (1, Offer(1, digest(1), stored=False)))
    state, actions = step(state, Ended(0, frozenset(), frozenset(("b#0",))), 4)
    assert actions == [Open(1, 1, ("a#0",), 7)]
    state, actions = step(state, Ended(1, frozenset(("a#0",)), frozenset()), 5)
    assert actions == [Closed(1, ("a",), ("b",), 2, 4)]
    # b says something that it had sent before: it does not know of the epoch that it missed.
    state, _ = step(state, heard("b", 0), 6)
    state, actions = step(state, Offer(2, digest(2), stored=False), 7)
    assert actions == [Open(2, 2, ("a#0",), 10)]
    state, _ = step(state, Ended(2, frozenset(("a#0",)), frozenset()), 8)
    # Now it knows, and is behind: a folder helps it at once, the next epoch afterwards.
    state, actions = step(state, heard("b", 0, epoch=2), 9)
    assert actions == [Store(2)]
    state, _ = step(state, Stored(2, done=True), 9)
    state, actions = step(state, Offer(3, digest(3), stored=False), 10)
    assert actions == [Open(3, 3, ("a#0", "b#0"), 10)]


def test_a_transfer_that_does_not_end_is_abandoned_at_the_deadline():
    state, _ = after((0, heard("a")), (1, Offer(1, digest(1), stored=False)))
    assert step(state, Tick(), 10.9)[1] == []
    state, actions = step(state, Tick(), 11)
    assert actions == [Abandon(0), Closed(1, (), ("a",), 1, 10)]
    assert step(state, Ended(0, frozenset(("a#0",)), frozenset()), 12)[1] == [], "its end comes too late to count"


def test_what_fails_again_and_again_is_left_to_folders():
    state, actions = after((0, heard("a")), (0, Offer(1, digest(1), stored=False)))
    for epoch in range(MAX_EPOCHS):
        assert actions == [Open(epoch, 1, ("a#0",), 10)]
        state, actions = step(state, Ended(epoch, frozenset(), frozenset()), 0)
    assert actions == [Closed(1, (), ("a",), MAX_EPOCHS, 0), Store(1)]


def test_a_member_that_takes_folders_only_gets_one_of_each_version():
    state, actions = after((0, heard("a", ranks=0)), (0, Offer(1, digest(1), stored=False)))
    assert actions == [Announce(1), Closed(1, (), (), 0, 0), Store(1)]
    assert step(state, heard("a", ranks=0), 1)[1] == [], "it is being written"
    state, actions = step(state, Stored(1, done=False), 1)
    assert step(state, Tick(), 2)[1] == []
    assert step(state, Tick(), 3)[1] == [Store(1)], "a disk that was full is tried again"


def test_a_member_that_received_and_never_says_so_is_helped_in_the_end():
    state, _ = after((0, heard("a")), (0, Offer(1, digest(1), stored=False)))
    state, actions = step(state, Ended(0, frozenset(("a#0",)), frozenset()), 1)
    assert Store(1) not in actions
    state, actions = step(state, heard("a", epoch=0), 20)
    assert actions == []
    assert step(state, heard("a", epoch=0), 32)[1] == [Store(1)]


def test_a_member_that_sees_no_folders_is_sent_the_version_again():
    """As one on another machine without a shared folder: it joins when nothing is offered any more."""
    state, _ = after((0, Offer(5, digest(5), stored=True)), (100, heard("far", -1, epoch=-1)))
    assert step(state, heard("far"), 109)[1] == [], "it has time to take a folder"
    state, actions = step(state, heard("far"), 110)
    assert actions == [Open(0, 5, ("far#0",), 10)]
    state, actions = step(state, Ended(0, frozenset(("far#0",)), frozenset()), 111)
    assert actions == [Closed(5, ("far",), (), 1, 1)]
    # Who missed a transfer, too.
    state, _ = after((0, heard("a", ranks=1)), (0, Offer(1, digest(1), stored=True)))
    state, _ = step(state, Ended(0, frozenset(), frozenset(("a#0",))), 1)
    state, actions = step(state, heard("a", epoch=0), 3)
    assert actions == []
    assert step(state, heard("a", epoch=0), 12)[1] == [Open(1, 1, ("a#0",), 10)]


def test_a_member_with_other_bytes_under_the_same_number_is_not_current():
    state, _ = after((0, heard("a")), (0, Offer(1, digest(1), stored=False)))
    state, _ = step(state, Ended(0, frozenset(("a#0",)), frozenset()), 1)
    state, actions = step(state, heard("a", 1, epoch=0, sha256="other"), 2)
    assert current_members(state) == []
    assert actions == [Store(1)]
    announced = WeightVersion("policy", 1, 1, "checkpoint", "v1", digest(1), 1, False, 0)
    assert choose(announced, Held(1, "other"), ["a#0"], 0) == Fetch(1, digest(1), "v1")
    assert choose(announced, Held(1, digest(1)), ["a#0"], 0) is None


def test_an_offer_during_an_update_waits_for_its_end_and_only_the_newest_waits():
    state, _ = after((0, heard("a")), (0, Offer(1, digest(1), stored=False)))
    state, actions = step(state, Offer(2, digest(2), stored=False), 1)
    state, more = step(state, Offer(3, digest(3), stored=False), 2)
    assert actions + more == []
    _, actions = step(state, Ended(0, frozenset(("a#0",)), frozenset()), 3)
    assert actions == [Closed(1, ("a",), (), 1, 3), Open(1, 3, ("a#0",), 10)]


SECONDS = st.integers(0, 32).map(lambda quarters: quarters / 4)
NAMES = st.sampled_from("abc")
VERSIONS = st.integers(-1, 4)
RECEIVERS = st.frozensets(st.sampled_from([f"{name}#{i}" for name in "abc" for i in range(2)]))
EVENTS = st.one_of(
    st.builds(
        Heard,
        member=NAMES,
        receivers=st.sampled_from([(), ("a#0",), ("b#0",), ("c#0", "c#1")]),
        version=VERSIONS,
        sha256=st.sampled_from(["", *map(digest, range(4)), "other"]),
        epoch=st.integers(-1, 8),
        here=st.booleans(),
    ),
    st.builds(Offer, version=VERSIONS, sha256=st.sampled_from([*map(digest, range(4))]), stored=st.booleans()),
    st.builds(Ended, epoch=st.integers(-1, 8), reached=RECEIVERS, silent=RECEIVERS),
    st.builds(Stored, version=VERSIONS, done=st.booleans()),
    st.just(Tick()),
)


@settings(max_examples=400)
@given(st.lists(st.tuples(SECONDS, EVENTS), max_size=40))
def test_whatever_is_heard_no_update_outlasts_its_deadline_and_every_epoch_is_new(events):
    """Messages that make no sense at all included: lies, repetitions, ends of transfers that never were."""
    state, now, opened, closed = State(RULES), 0.0, [], []
    for wait, event in events:
        now += wait
        state, actions = step(state, event, now)
        assert state.update is None or now < state.update.deadline_at
        assert state.update is None or state.update.epochs <= MAX_EPOCHS
        for action in actions:
            if isinstance(action, Open):
                assert action.epoch == len(opened)
                assert 0 < action.left_s <= RULES.deadline_s
                assert action.receivers
                opened.append(action)
            if isinstance(action, Closed):
                assert action.seconds <= RULES.deadline_s + wait
                assert not set(action.current) & set(action.missed)
                closed.append(action)
    state, _ = step(state, Tick(), now + RULES.deadline_s)
    state, _ = step(state, Tick(), now + 2 * RULES.deadline_s)
    assert state.update is None
    assert state.waiting is None


@dataclass
class Member:
    """A simulated explorer: what it holds was verified, or it was not taken."""

    name: str
    held: Held = field(default_factory=Held)
    epoch: int = -1
    tried: int = -1
    announced: WeightVersion | None = None
    stopped: bool = False
    unread: list[WeightVersion] = field(default_factory=list)

    @property
    def receivers(self) -> list[str]:
        return [f"{self.name}#0"]

    def says(self) -> Heard:
        return Heard(self.name, (f"{self.name}#0",), self.held.version, self.held.sha256, self.epoch)


class Cluster(RuleBasedStateMachine):
    """A trainer and members around a log; tensors may be lost, come torn, or never end."""

    def __init__(self) -> None:
        super().__init__()
        self.state, self.now, self.version = State(RULES), 0.0, -1
        self.log: list[WeightVersion] = []
        self.said: list[Heard] = []
        self.members: dict[str, Member] = {}
        self.transfer: Open | None = None
        self.taking: set[str] = set()
        self.folders: set[int] = set()
        self.offered_at: dict[int, float] = {}
        self.closed: set[int] = set()
        self.waited = self.overtime = 0.0

    # The trainer's shell.

    def happens(self, event: Happening) -> None:
        self.state, actions = step(self.state, event, self.now)
        for action in actions:
            match action:
                case Open():
                    self.transfer, self.taking = action, set()
                    self.announce(action.version, action.receivers, action.epoch)
                case Announce(version):
                    self.announce(version, (), self.state.next_epoch - 1)
                case Abandon(epoch):
                    assert self.transfer is not None
                    assert self.transfer.epoch == epoch
                    self.transfer = None
                case Store(version):
                    self.folders.add(version)
                    self.announce(version, (), self.state.next_epoch - 1)
                    self.happens(Stored(version, done=True))
                case Closed():
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
        if self.state.waiting is None:
            self.version += 1
            self.offered_at[self.version] = self.now
            if stored:
                self.folders.add(self.version)
            self.happens(Offer(self.version, digest(self.version), stored))

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.wait(seconds)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.waited = seconds
        self.happens(Tick())

    @precondition(lambda self: self.said)
    @rule(data=st.data(), again=st.booleans())
    def the_trainer_hears(self, data: st.DataObject, again: bool) -> None:
        index = data.draw(st.integers(0, min(len(self.said) - 1, 3)))
        self.happens(self.said[index] if again else self.said.pop(index))

    # Members.

    @rule(name=st.sampled_from("abcd"))
    def joins(self, name: str) -> None:
        if name not in self.members:
            self.members[name] = Member(name, unread=self.log[-1:])
            self.said.append(self.members[name].says())

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
                    member.held = Held(version, sha256)
        self.said.append(member.says())

    @precondition(lambda self: self.transfer is not None)
    @rule(data=st.data())
    def the_transfer_ends(self, data: st.DataObject) -> None:
        """For some it brings the bytes, for some torn ones, which are refused; some have died or stopped in it."""
        assert self.transfer is not None
        opened, self.transfer = self.transfer, None
        able = sorted(name for name in self.taking if name in self.members and not self.members[name].stopped)
        whole = set(data.draw(st.lists(st.sampled_from(able), unique=True))) if able else set()
        for name in whole:
            self.members[name].held = Held(opened.version, digest(opened.version))
            self.said.append(self.members[name].says())
        reached = frozenset(f"{name}#0" for name in whole)
        self.happens(Ended(opened.epoch, reached, frozenset(opened.receivers) - {f"{name}#0" for name in able}))

    @invariant()
    def one_version_is_one_set_of_weights(self) -> None:
        for member in self.members.values():
            assert member.held in (Held(), Held(member.held.version, digest(member.held.version)))
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
            while self.said:
                self.happens(self.said.pop(0))
            if self.transfer is not None:
                opened, self.transfer = self.transfer, None
                here = {name for name in self.taking if name in self.members}
                for name in here:
                    self.members[name].held = Held(opened.version, digest(opened.version))
                reached = frozenset(f"{name}#0" for name in here)
                self.happens(Ended(opened.epoch, reached, frozenset(opened.receivers) - reached))
            self.wait(4)
        assert {name: member.held.version for name, member in self.members.items()} == dict.fromkeys(
            self.members, self.version
        )
        assert set(current_members(self.state)) >= set(self.members)


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
