"""Makes the events that come of a session which an agent opened: experiences at its end, rewards after it. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from producers.gateway.contract import SessionReward
from producers.gateway.session_groups import SessionPlace
from rft.config import Config
from rft.errors import RequestError, RolloutError
from rft.rewards.bounds import ALLOWED, is_reward
from rft.workflows.experiences import make_experiences, make_failed_experience
from rft.workflows.rollout import Outcome, Rollout
from rft.workflows.running import check_rollout
from schemas.events import Experience, Reward, Task


@dataclass(frozen=True, slots=True)
class Stamp:
    """Says who publishes the rows of a session, and when. All rows of one session have the same."""

    source: str
    model: str
    now_ms: int
    duration_ms: int

    def failed(self, task: Task, sample: int, error: RolloutError) -> Experience:
        """Return the experience of a session that gives nothing to learn from. Its group does not wait for it."""
        return make_failed_experience(
            task,
            sample,
            error,
            source=self.source,
            model=self.model,
            now_ms=self.now_ms,
            duration_ms=self.duration_ms,
        )


class RewardNames:
    """Knows the source of rewards that have no name.

    If processors wait for that source, or count it, an unnamed reward is its reward, before the session's end as well
    as after it. Otherwise an unnamed reward is that of the experience, if it comes before the session's end.
    """

    def __init__(self, config: Config) -> None:
        external = config.processor.external
        self._source = config.gateway.reward_source
        self._claimed = self._source in (*external.required, *external.optional)

    def outcome(self, outcome: Outcome) -> Outcome:
        """Return what a session that ends was given, with the reward of the whole under its name if it has one."""
        if not self._claimed or outcome.reward is None:
            return outcome
        return replace(outcome, reward=None, rewards={**outcome.rewards, self._source: outcome.reward})

    def events(self, place: SessionPlace, reward: SessionReward, now_ms: int, turns: Collection[int]) -> list[Reward]:
        """Return the events that publish a reward for a session that has ended.

        A reward by turn has a source of its own, ``<source>.turn-<n>``. ``turns`` are the numbers of its
        turns. Raises RequestError for what is no reward.
        """
        values: Mapping[str, float] = dict(reward.rewards)
        metadata = "{}"
        if reward.value is not None:
            source = self._source
            if reward.turn is not None:
                if reward.turn not in turns:
                    raise RequestError(f"the session has no turn {reward.turn}; it has {len(turns)}, counted from 0")
                source, metadata = f"{source}.turn-{reward.turn}", json.dumps({"turn": reward.turn})
            values = {**values, source: reward.value}
        if wrong := [name for name, value in values.items() if not is_reward(value)]:
            raise RequestError(f"the reward {wrong[0]!r} is no reward; rewards are finite and {ALLOWED}")
        return [
            Reward(place.sample_id, place.group_id, source, value, now_ms, reward.revision, metadata)
            for source, value in values.items()
        ]


def experiences_of(task: Task, sample: int, rollout: Rollout, names: RewardNames, stamp: Stamp) -> list[Experience]:
    """Return the rows of a session that has ended, or one experience that says why there are none.

    A session without a turn gives nothing, unless others of its group would wait for it.
    """
    if not rollout.rows and task.samples == 1:
        return []
    try:
        if not rollout.rows:
            raise RolloutError("the session ended without a turn of the policy")
        checked = check_rollout(replace(rollout, outcome=names.outcome(rollout.outcome)))
    except RolloutError as error:
        return [stamp.failed(task, sample, error)]
    return make_experiences(
        task,
        sample,
        checked,
        source=stamp.source,
        model=stamp.model,
        now_ms=stamp.now_ms,
        duration_ms=stamp.duration_ms,
    )
