"""Collects the rewards that are sent to a session. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from producers.gateway.contract import SessionReward
from rft.errors import RequestError
from rft.rewards.bounds import ALLOWED, is_reward
from rft.workflows.rollout import MAX_NAME_CHARS, MAX_REWARDS, Outcome
from schemas.sessions import GivenReward

WHOLE = None


@dataclass(slots=True)
class SessionRewards:
    """The newest revision of each reward: of the whole session (None), of a turn (its number) and by name."""

    _values: dict[int | str | None, tuple[int, float]] = field(default_factory=dict)

    def add(self, reward: SessionReward, turns: AbstractSet[int]) -> None:
        """Take a reward. One of a lower revision than what is known changes nothing.

        ``turns`` are the numbers of the session's turns.

        Raises RequestError if a value is no reward, or if the session has no such turn.
        """
        given = self._given(reward, turns)
        if sum(isinstance(key, str) for key in self._values.keys() | given.keys()) > MAX_REWARDS:
            raise RequestError(f"a session may have {MAX_REWARDS} rewards by name")
        for key, value in given.items():
            if key not in self._values or reward.revision >= self._values[key][0]:
                self._values[key] = (reward.revision, value)

    def restore(self, rewards: Iterable[GivenReward]) -> None:
        """Take what ``newest`` returned in another process."""
        for given in rewards:
            self._values[given.turn if given.name is None else given.name] = (given.revision, given.value)

    def newest(self) -> tuple[GivenReward, ...]:
        """Return the newest revision of each reward."""
        return tuple(
            GivenReward(
                name=key if isinstance(key, str) else None,
                turn=key if isinstance(key, int) else None,
                value=value,
                revision=revision,
            )
            for key, (revision, value) in self._values.items()
        )

    def outcome(self, returned: Outcome) -> Outcome:
        """Return the outcome of a rollout: what its agent returned, and beside it what was sent here."""
        sent = {key: value for key, (_, value) in self._values.items()}
        named = {key: value for key, value in sent.items() if isinstance(key, str)}
        by_turn = {key: value for key, value in sent.items() if isinstance(key, int)}
        return replace(
            returned,
            reward=sent.get(WHOLE) if returned.reward is None else returned.reward,
            rewards={**named, **returned.rewards},
            turn_rewards={**by_turn, **returned.turn_rewards},
        )

    @staticmethod
    def _given(reward: SessionReward, turns: AbstractSet[int]) -> Mapping[int | str | None, float]:
        given: dict[int | str | None, float] = {}
        for name, value in reward.rewards.items():
            if not 0 < len(name) <= MAX_NAME_CHARS:
                raise RequestError(f"the names of rewards have 1 to {MAX_NAME_CHARS} characters")
            given[name] = value
        if reward.value is not None:
            if reward.turn is not None and reward.turn not in turns:
                raise RequestError(f"the session has no turn {reward.turn}; it has {len(turns)}, counted from 0")
            given[reward.turn] = reward.value
        for key, value in given.items():
            if not is_reward(value):
                raise RequestError(f"the reward {key!r} is {value!r}; rewards are finite numbers and {ALLOWED}")
        return given
