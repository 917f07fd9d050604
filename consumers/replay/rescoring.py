"""Replaces recorded rewards: by other reward functions, or by later revisions of external rewards. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from consumers.replay import ReplayError
from rft.config import ProcessorConfig
from rft.errors import RewardError
from rft.rewards.isolation import open_scorer
from rft.rewards.scorer import Scorer, labels
from rft.stream.combine import MISSING, NOT_FINITE, combine_rewards
from rft.stream.pending_sample import GIVEN, filter_cause
from schemas.events import ExternalReward, Reward, ScoredExperience, WaitingMember

Rescorer = Callable[[ScoredExperience], ScoredExperience]
"""Returns the same experience with another reward, and the verdict that follows from it."""

SEVERAL_ROWS = "several_rows"
"""Cause of samples that functions cannot score again."""

LatestValues = Mapping[str, Mapping[str, float]]
"""Newest value by experience id and source."""


def by_functions(config: ProcessorConfig) -> Rescorer:
    """Return a rescorer that scores experiences with ``processor.rewards``, as if they came only now.

    It applies the rules for single samples (``max_response_tokens``, ``drop_truncated``) again. It does not apply the
    rules for groups: a group that was filtered for being uniform may not be uniform any more. If a function fails, the
    experience is filtered with cause ``score_failed``. Values of external sources stay. Demonstrations and preferences
    keep their rewards. A sample of several rows is filtered as ``several_rows``: its reward is that of its last row,
    which is another event. Raises ConfigError for unknown functions.
    """
    scorer = open_scorer(config)
    return lambda scored: _rescore(scored, scorer, config)


def latest_values(rewards: Iterable[Reward]) -> dict[str, dict[str, float]]:
    """Return the value of the highest revision for each experience and source.

    Of equal revisions the first counts, as in processors.
    """
    newest: dict[tuple[str, str], Reward] = {}
    for reward in rewards:
        key = reward.experience_id, reward.source
        if key not in newest or reward.revision > newest[key].revision:
            newest[key] = reward
    values: dict[str, dict[str, float]] = {}
    for (experience_id, source), reward in newest.items():
        values.setdefault(experience_id, {})[source] = reward.value
    return values


def by_external_rewards(values: LatestValues, config: ProcessorConfig) -> Rescorer:
    """Return a rescorer that combines external rewards as ``processor.external`` says, as if all had come in time.

    An experience without all required rewards is treated as ``on_missing`` says for a deadline that has passed.
    Raises ReplayError if the configuration names no sources.
    """
    if not config.external.required:
        raise ReplayError(
            "--latest-rewards: the configuration names no sources of external rewards: set processor.external.required"
        )

    def revise(scored: ScoredExperience) -> ScoredExperience:
        experience = scored.experience
        settled = scored.verdict != "train" and scored.cause not in (MISSING, NOT_FINITE)
        if settled or experience.kind != "rollout" or experience.split == "eval":
            return scored
        own = {name: value for name, value in scored.rewards.items() if name not in _sources(config)}
        last_row = experience.sample_id if experience.rows == 1 else f"{experience.sample_id}/{experience.rows - 1}"
        given = {**values.get(last_row, {}), **values.get(experience.sample_id, {})}
        newest = _external(scored, config) | given
        return _combine(scored, _sum(own, config), own, newest, config)

    return revise


def _rescore(scored: ScoredExperience, scorer: Scorer, config: ProcessorConfig) -> ScoredExperience:
    experience = scored.experience
    if experience.kind != "rollout":
        return scored
    if experience.rows > 1:
        return _filtered(scored, SEVERAL_ROWS)
    cause = filter_cause(experience, config)
    if cause is not None:
        return _filtered(scored, cause)
    try:
        reward, rewards = scorer(experience)
    except RewardError:
        return _filtered(scored, "score_failed")
    return _combine(scored, reward, rewards, _external(scored, config), config)


def _combine(
    scored: ScoredExperience,
    own: float,
    rewards: dict[str, float],
    external: Mapping[str, float],
    config: ProcessorConfig,
) -> ScoredExperience:
    given = tuple(ExternalReward(source, value, 0) for source, value in external.items())
    exempt = scored.experience.split == "eval"
    member = WaitingMember("", -1, 0, None, exempt, own, rewards, given)
    reward, by_name, cause = combine_rewards(member, config.external, bool(config.rewards))
    return replace(scored, reward=reward, rewards=by_name, verdict="filtered" if cause else "train", cause=cause)


def _sum(own: Mapping[str, float], config: ProcessorConfig) -> float:
    """Return the weighted sum of the functions' recorded values."""
    if GIVEN in own:
        return own[GIVEN]
    weights = dict(zip(labels(config.rewards), (term.weight for term in config.rewards), strict=True))
    return math.fsum(weights.get(name, 1.0) * value for name, value in own.items())


def _sources(config: ProcessorConfig) -> frozenset[str]:
    return frozenset((*config.external.required, *config.external.optional))


def _external(scored: ScoredExperience, config: ProcessorConfig) -> dict[str, float]:
    return {name: value for name, value in scored.rewards.items() if name in _sources(config)}


def _filtered(scored: ScoredExperience, cause: str) -> ScoredExperience:
    return replace(scored, reward=0.0, rewards={}, verdict="filtered", cause=cause)
