"""Rewards units, many at once, each try with a deadline, each failure with retries. Runs on one event loop."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from producers.rewarder.cache import JudgementCache
from producers.rewarder.intake import Received, Unit
from producers.rewarder.known_rewards import KnownRewards
from producers.rewarder.rate_limit import RateLimit
from rft.config import RewarderConfig
from rft.errors import RewardError, RewardServiceError, RftError
from rft.retry import Backoff
from rft.rewards.bounds import ALLOWED, is_reward
from rft.rewards.functions import Sample
from rft.rewards.judgement import Judge, Judgement
from rft.rewards.scorer import sample_of
from schemas.events import Reward

LONGEST_BACKOFF_S = 60.0
MAX_METADATA_CHARS = 64 * 1024
"""Of a reward; more of what a judge writes is left out."""
LEAST_QUEUE = 32

log = logging.getLogger("rft")


@dataclass(slots=True)
class Counts:
    """What became of samples since the start."""

    rewarded: int = 0
    cached: int = 0
    """Of these, the ones whose judgement was taken from the cache."""
    failed: int = 0
    """Samples that became dead letters."""
    abstained: int = 0
    """Samples of an optional source that got no reward."""
    retries: int = 0

    def __str__(self) -> str:
        parts = [f"{self.rewarded:,} samples rewarded"]
        parts += [f"{self.cached:,} of them from the cache"] if self.cached else []
        parts += [f"{self.abstained:,} without a reward"] if self.abstained else []
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += [f"{self.retries:,} retries"] if self.retries else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What the pool tells its owner. Called on the event loop."""

    owns: Callable[[int], bool]
    """Returns whether the partition is this process's now."""
    publish: Callable[[Unit, Sequence[Reward]], None]
    """Takes the rewards of a unit, which is finished when they are on the log."""
    reject: Callable[[Received, RewardError], Awaitable[None]]
    """Publishes a sample that could not be rewarded as a dead letter."""
    abandon: Callable[[Unit], None]
    """Takes a unit that another process rewards, or whoever has its partition next."""


class RewardPool:
    """Judges units and hands out their rewards."""

    def __init__(
        self,
        name: str,
        config: RewarderConfig,
        judge: Judge,
        cache: JudgementCache | None,
        known: KnownRewards,
        outcomes: Outcomes,
        *,
        required: bool,
    ) -> None:
        """``name`` is the rewards' source; ``required`` tells whether groups wait for it."""
        self._name = name
        self._config = config
        self._judge = judge
        self._cache = cache
        self._known = known
        self._outcomes = outcomes
        self._required = required
        self._rate = RateLimit(config.rate)
        self._backoff = Backoff(config.backoff_s, 2.0, max(config.backoff_s, LONGEST_BACKOFF_S))
        self._queue: deque[Unit] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._judged_at = time.monotonic()
        self._service_failed: RewardServiceError | None = None
        self._cache_failed = False
        self.counts = Counts()
        self.error: BaseException | None = None
        """What ended the pool: a bug, or a fault of the configuration or of the service."""

    @property
    def saturated(self) -> bool:
        """Whether there is enough work for now. Thread-safe."""
        return len(self._queue) >= max(LEAST_QUEUE, self._config.concurrency)

    @property
    def open(self) -> int:
        """Units that are queued or judged now."""
        return len(self._queue) + len(self._tasks)

    @property
    def service_failure(self) -> str | None:
        """What the service says, if it has not judged anything since it failed."""
        return None if self._service_failed is None else str(self._service_failed)

    def add(self, units: Sequence[Unit]) -> None:
        """Queue units."""
        self._queue.extend(units)
        self._start_queued()

    async def abandon(self) -> None:
        """Cancel what runs. Nothing of it is finished."""
        self._queue.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

    def _start_queued(self) -> None:
        while self._queue and len(self._tasks) < self._config.concurrency and self.error is None:
            task = asyncio.create_task(self._handle(self._queue.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.error = self.error or error
        self._start_queued()

    async def _handle(self, unit: Unit) -> None:
        if not self._outcomes.owns(unit.partition):
            self._outcomes.abandon(unit)
            return
        if all(one.experience.sample_id in self._known for one in unit.samples):
            self._outcomes.publish(unit, ())
            return
        try:
            judgements = await self._judgements([sample_of(one.experience) for one in unit.samples])
            rewards = [self._reward(one, judged) for one, judged in zip(unit.samples, judgements, strict=True)]
        except RewardError as error:
            await self._fail(unit, error)
            return
        await self._publish(unit, rewards)

    async def _publish(self, unit: Unit, rewards: Sequence[Reward | RewardError | None]) -> None:
        """Publish the rewards that are not on the log, and dead letters in place of the others."""
        if not self._outcomes.owns(unit.partition):
            self._outcomes.abandon(unit)
            return
        found: list[Reward] = []
        for one, reward in zip(unit.samples, rewards, strict=True):
            if isinstance(reward, RewardError):
                self.counts.failed += 1
                await self._outcomes.reject(one, reward)
                if self._config.on_failure == "default":
                    details = {"default": True, "cause": str(reward)}
                    found.append(self._event(one, self._config.default_value, details))
            elif reward is None:
                self.counts.abstained += 1
            else:
                self.counts.rewarded += 1
                found.append(reward)
        self._outcomes.publish(unit, [reward for reward in found if self._known.add(reward.experience_id)])

    async def _fail(self, unit: Unit, error: RewardError) -> None:
        await self._publish(unit, [error] * len(unit.samples))

    async def _judgements(self, samples: Sequence[Sample]) -> list[Judgement]:
        """Return the judgements from the cache, or by as many tries as are allowed. Raises RewardError."""
        digest = self._cache.digest(samples) if self._cache else b""
        if self._cache and (kept := self._cache.get(digest)) is not None:
            self.counts.cached += len(kept)
            return kept
        failures, began = 0, time.monotonic()
        service_failures = 0
        while True:
            await self._rate.wait()
            try:
                judgements = await self._try(samples)
            except RewardServiceError as error:
                service_failures += 1
                pause_s = max(self._backoff.pause_s(service_failures), error.retry_after_s or 0.0)
                self._check_outage(error, began, pause_s)
            except RewardError:
                failures += 1
                if failures > self._config.retries:
                    raise
                pause_s = self._backoff.pause_s(failures)
            else:
                break
            self.counts.retries += 1
            await asyncio.sleep(pause_s)
        self._judged_at, self._service_failed = time.monotonic(), None
        self._keep(digest, judgements)
        return judgements

    async def _try(self, samples: Sequence[Sample]) -> list[Judgement]:
        try:
            async with asyncio.timeout(self._config.deadline_s + self._judge.overhead_s):
                judgements = await self._judge.judge(samples)
        except TimeoutError:
            limit = f"rewarders.{self._name}.deadline_s = {self._config.deadline_s:g}"
            raise RewardError(f"{self._config.function} took longer than {limit}") from None
        if len(judgements) != len(samples):
            raise RewardError(f"{self._config.function} returned {len(judgements)} rewards for {len(samples)} samples")
        return judgements

    def _check_outage(self, error: RewardServiceError, began: float, pause_s: float) -> None:
        """Raise if a service has failed for too long: for this sample, or, if it judged none meanwhile, for all."""
        self._service_failed = error
        if error.retry_after_s:
            self._rate.pause(error.retry_after_s)
        if time.monotonic() + pause_s - began < self._config.outage_s:
            return
        if self._judged_at > began:
            raise RewardError(f"{error} (for {self._config.outage_s:g} s, while other samples were judged)") from error
        raise RftError(
            f"[rewarders.{self._name}] has judged nothing for {self._config.outage_s:g} s: {error}. Bring the service "
            f"back, or raise rewarders.{self._name}.outage_s"
        ) from error

    def _keep(self, digest: bytes, judgements: Sequence[Judgement]) -> None:
        """Put judgements into the cache. A full disk costs only later hits."""
        if self._cache is None:
            return
        try:
            self._cache.put(digest, judgements)
        except (sqlite3.Error, TypeError, ValueError) as error:
            if not self._cache_failed:
                log.warning("judgements are not kept: %s", error)
            self._cache_failed = True

    def _reward(self, one: Received, judgement: Judgement) -> Reward | RewardError | None:
        value = judgement.reward
        if value is None:
            if not self._required:
                return None
            return RewardError(
                f"{self._config.function} gave no reward (None), and processor.external.required names '{self._name}'"
            )
        if not is_reward(value):
            return RewardError(f"{self._config.function} gave {value}; rewards are finite and {ALLOWED}")
        named = {name: value for name, value in judgement.values.items() if name}
        return self._event(one, value, {**({"values": named} if named else {}), **judgement.details})

    def _event(self, one: Received, value: float, details: dict[str, object]) -> Reward:
        experience = one.experience
        try:
            metadata = json.dumps(details, allow_nan=False)
        except (TypeError, ValueError):
            metadata = "{}"
        return Reward(
            experience.sample_id,
            experience.group_id,
            self._name,
            value,
            int(time.time() * 1000),
            self._config.revision,
            metadata if len(metadata) <= MAX_METADATA_CHARS else "{}",
        )
