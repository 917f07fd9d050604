"""Runs a waiting room on logs and a changelog that survive when its worker is killed."""

from __future__ import annotations

from collections import Counter

from stream_experiences import MAX_BYTES, score_exactly

from rft.config import ProcessorConfig
from rft.stream.actions import Action, DeadLetter, Publish, Received, Release, Resolve, SaveWaiting
from rft.stream.pipeline import Pipeline
from rft.stream.prioritize import fifo
from rft.stream.rules import Rules
from schemas.codec import decode
from schemas.events import Reward, Waiting


def make(external: dict, **settings_: object) -> Pipeline:
    config = ProcessorConfig.model_validate({"min_group_size": 1, "external": external, **settings_})
    scorer = score_exactly if config.rewards else lambda _: (0.0, {})
    pipeline = Pipeline(Rules(config, scorer, fifo, MAX_BYTES))
    assert pipeline.room is not None
    pipeline.room.restore(0, [])
    pipeline.room.resume_deadlines(0)
    return pipeline


def reward(number: int, sample: int, value: float, source: str = "human", revision: int = 0) -> Reward:
    group_id = f"train-{number:08d}"
    return Reward(f"{group_id}/{sample}", group_id, source, value, 1, revision)


class World:
    """A log of both topics, and a worker that may be killed: what survives is the changelog and what was committed."""

    def __init__(self, external: dict, **settings_: object) -> None:
        self.settings = (external, settings_)
        self.pipeline = make(external, **settings_)
        self.logs: dict[str, list[Received]] = {"experiences": [], "rewards": []}
        self.changelog: dict[str, bytes] = {}
        self.finished: dict[str, set[int]] = {"experiences": set(), "rewards": set()}
        self.read = {"experiences": 0, "rewards": 0}
        self.published: list[Publish] = []
        self.resolved: Counter[str] = Counter()
        self.letters: list[tuple[int, str]] = []

    def write(self, what: str, event: Received) -> None:
        self.logs[what].append(event)

    def feed(self, what: str, now: int) -> None:
        at, log = self.read[what], self.logs[what]
        if at < len(log):
            self.read[what] = at + 1
            take = self.pipeline.receive if what == "experiences" else self.pipeline.receive_reward
            self.perform(take(log[at], now), now)

    def perform(self, actions: list[Action], now: int) -> None:
        for action in actions:
            if isinstance(action, Resolve):
                self.finished[action.source].add(action.offset)
                self.resolved[action.cause] += 1
            elif isinstance(action, SaveWaiting):
                self.save(action.group_id, action.value)
                self.done(action)
            elif isinstance(action, Release):
                found = {m.offset: self.logs["experiences"][m.offset] for m in action.waiting.members if m.offset >= 0}
                self.published.append(self.pipeline.room.publish(action, found, now))
                self.letters += [(offset, "reward") for offset in action.dead_letters]
                self.save(action.waiting.group_id, action.marker)
                self.pipeline.room.release_saved(0, action.waiting)
                self.done(action)
            elif isinstance(action, DeadLetter):
                self.letters.append((action.offset, action.stage))

    def save(self, group_id: str, value: bytes | None) -> None:
        if value is None:
            self.changelog.pop(group_id, None)
        else:
            self.changelog[group_id] = value

    def done(self, action: SaveWaiting | Release) -> None:
        self.finished["experiences"].update(action.experiences)
        self.finished["rewards"].update(action.rewards)

    def position(self, what: str) -> int:
        """What is committed: everything before it is done with."""
        return next((n for n in range(self.read[what]) if n not in self.finished[what]), self.read[what])

    def commit(self, now: int) -> None:
        self.perform(self.pipeline.room.committed(0, self.position("experiences"), now), now)

    def kill(self) -> None:
        for what in self.logs:
            self.read[what] = self.position(what)
        external, settings_ = self.settings
        self.pipeline = make(external, **settings_)
        self.pipeline.room.restore(0, [decode(value, Waiting) for value in self.changelog.values()])

    def finish(self, now: int) -> None:
        for what in self.logs:
            while self.read[what] < len(self.logs[what]):
                self.feed(what, now)
        self.pipeline.room.resume_deadlines(0)
        self.perform([*self.pipeline.room.flush(), *self.pipeline.tick(now)], now)
