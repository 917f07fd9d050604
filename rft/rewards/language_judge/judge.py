"""Rewards samples by a language model: each by a score, or all of a group against each other."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from itertools import permutations

from rft.config import RewarderConfig
from rft.rewards.functions import Sample
from rft.rewards.judgement import Judgement, Usage
from rft.rewards.language_judge.answers import read_better, read_ranking, read_score
from rft.rewards.language_judge.endpoint import ChatEndpoint
from rft.rewards.language_judge.prompts import pair_messages, ranking_messages, score_messages
from rft.rewards.language_judge.settings import JudgeOptions
from rft.rewards.options import read_options

MAX_PAIRS_AT_ONCE = 8


class LanguageJudge:
    """A judge behind a chat endpoint."""

    overhead_s = 0.0

    def __init__(self, name: str, config: RewarderConfig) -> None:
        """Read the options. Raises ConfigError for wrong ones. The endpoint is asked with the first sample."""
        self._options = read_options(name, config, JudgeOptions)
        self._relative = config.scope == "group"
        self._endpoint = ChatEndpoint(name, self._options)

    @property
    def usage(self) -> Usage:
        """Tokens and cost so far."""
        return self._endpoint.usage

    async def judge(self, samples: Sequence[Sample]) -> list[Judgement]:
        """Return a reward from 0 to 1 of each sample."""
        if not self._relative:
            return [await self._score(sample) for sample in samples]
        if len(samples) < 2:
            return [Judgement({"": 0.5}, {"reason": "there is nothing to compare it with"}) for _ in samples]
        return await (self._rank(samples) if self._options.method == "ranking" else self._compare(samples))

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()

    async def _score(self, sample: Sample) -> Judgement:
        answer = await self._endpoint.ask(score_messages(sample, self._options, _word()))
        score, reason = read_score(answer, self._options.lowest, self._options.highest)
        return Judgement({"": score}, {"reason": reason})

    async def _rank(self, samples: Sequence[Sample]) -> list[Judgement]:
        """Return 1 for the best, 0 for the worst, the others evenly between.

        The judge sees the responses in a random order: models prefer early or late ones.
        """
        order = list(range(len(samples)))
        secrets.SystemRandom().shuffle(order)
        shown = [samples[index] for index in order]
        answer = await self._endpoint.ask(ranking_messages(shown, self._options, _word()))
        ranking, reason = read_ranking(answer, len(shown))
        rank = {order[number]: place for place, number in enumerate(ranking)}
        last = len(samples) - 1
        return [
            Judgement({"": 1 - rank[index] / last}, {"rank": rank[index] + 1, "reason": reason})
            for index in range(len(samples))
        ]

    async def _compare(self, samples: Sequence[Sample]) -> list[Judgement]:
        """Return the share of comparisons that each response wins, in both orders of each pair."""
        won = [0.0] * len(samples)
        room = asyncio.Semaphore(MAX_PAIRS_AT_ONCE)

        async def compare(first: int, second: int) -> None:
            async with room:
                messages = pair_messages(samples[first], samples[second], self._options, _word())
                better, _ = read_better(await self._endpoint.ask(messages))
            won[first] += {0: 0.5, 1: 1.0, 2: 0.0}[better]
            won[second] += {0: 0.5, 1: 0.0, 2: 1.0}[better]

        tasks = [asyncio.ensure_future(compare(*pair)) for pair in permutations(range(len(samples)), 2)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        each = 2 * (len(samples) - 1)
        return [Judgement({"": wins / each}, {"won": wins, "comparisons": each}) for wins in won]


def _word() -> str:
    return secrets.token_hex(8)
