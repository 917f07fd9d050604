"""Trains algorithms in one process over the real engine, without log and roles. Samples stay in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rft.config import Config
from rft.policy.base import Generation, Sampling
from rft.policy.transformers.running_batch import Request, RunningBatch
from rft.training.batch import StepBatch
from rft.training.engines.torch_engine import TorchEngine
from rft.training.sample import Payload


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt and an expert's answer, as token ids."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """A task and an answer to it."""

    task: Task
    group: int
    tokens: Sequence[int]
    logprobs: Sequence[float]
    reward: float
    kind: str = "rollout"
    terms: Mapping[str, float] = field(default_factory=dict)
    """Rewards by name."""


@dataclass(frozen=True)
class Lab:
    """A model, its tasks, and the reward of an answer."""

    model: Path
    train: Sequence[Task]
    held_out: Sequence[Task]
    reward: Callable[[Task, Sequence[int]], float]
    end_tokens: frozenset[int]
    max_tokens: int
    groups: int
    """Groups of a step."""
    samples: int
    """Rollouts of a task."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Fields of ``[trainer]``."""
    draws: int = 4
    """Answers to each held-out task."""

    def engine(self, algorithm: dict[str, Any], trainer: dict[str, Any] | None = None) -> TorchEngine:
        """Return a new engine with the initial weights.

        Nothing is packed: the model in training also samples here, and attention for packed rows knows no padding, so
        prompts shorter than the longest of their batch would be continued wrongly.
        """
        config = Config(
            policy={"model": str(self.model)},
            rollout={"max_tokens": self.max_tokens, "samples": self.samples},
            algorithm=algorithm,
            trainer={"packing": "off", **self.trainer, **(trainer or {})},
        )
        engine = TorchEngine(self.model, config)
        if engine.needs_reference:
            engine.set_reference(self.model)
        return engine

    def tasks(self, step: int) -> list[Task]:
        """Return the tasks of one step."""
        start = step * self.groups
        return [self.train[(start + i) % len(self.train)] for i in range(self.groups)]

    @torch.inference_mode()
    def write(self, model: Any, tasks: Sequence[Task], samples: int, temperature: float, seed: int) -> list[Written]:
        """Return ``samples`` answers of ``model`` to each task, sampled at ``temperature``."""
        sampling = Sampling(self.max_tokens, temperature)
        owners = [(task, group) for group, task in enumerate(tasks) for _ in range(samples)]
        requests = [
            Request(task.prompt, sampling, np.random.default_rng([seed, index]))
            for index, (task, _) in enumerate(owners)
        ]
        # No stop texts are asked for, so no text is needed.
        batch = RunningBatch(model, self.end_tokens, lambda _: "")
        batch.prefill(requests, 0)
        while batch.requests:
            batch.decode(0)
        return [
            Written(task, group, made.tokens.tolist(), made.logprobs.tolist(), self.reward(task, made.tokens.tolist()))
            for (task, group), made in zip(owners, (_result(request) for request in requests), strict=True)
        ]

    def measure(self, model: Any, temperature: float = 1.0) -> float:
        """Return the mean reward of held-out tasks, by default sampled as in training; temperature 0 is greedy."""
        draws = self.draws if temperature else 1
        written = self.write(model, self.held_out, draws, temperature, seed=1_000_003)
        return float(np.mean([one.reward for one in written]))


Source = Callable[[Lab, Any], Iterator[list[Written]]]
"""Yields the samples of each step for a model in training."""


def online(lab: Lab, model: Any) -> Iterator[list[Written]]:
    """Yield samples of the policy's current weights."""
    for step in count():
        yield lab.write(model, lab.tasks(step), lab.samples, 1.0, seed=step)


def lagging(every: int) -> Source:
    """Return a source of samples from weights that are up to ``every - 1`` steps old."""

    def source(lab: Lab, model: Any) -> Iterator[list[Written]]:
        ahead: list[list[Written]] = []
        for step in count():
            if not ahead:
                ahead = [lab.write(model, lab.tasks(step + i), lab.samples, 1.0, seed=step + i) for i in range(every)]
            yield ahead.pop(0)

    return source


def replayed(batches: int) -> Source:
    """Return a source that repeats ``batches`` batches of the initial weights: offline data."""

    def source(lab: Lab, model: Any) -> Iterator[list[Written]]:
        initial = lab.engine({}).model
        written = [lab.write(initial, lab.tasks(step), lab.samples, 1.0, seed=step) for step in range(batches)]
        for step in count():
            yield written[step % batches]

    return source


def demonstrated(lab: Lab, model: Any) -> Iterator[list[Written]]:
    """Yield an expert's answers."""
    for step in count():
        yield [_demonstration(task, group) for group, task in enumerate(lab.tasks(step))]


def preferred(lab: Lab, model: Any) -> Iterator[list[Written]]:
    """Yield pairs of an expert's answer and a worse one of the initial weights."""
    initial = lab.engine({}).model
    for step in count():
        worse = lab.write(initial, lab.tasks(step), 1, 1.0, seed=step)
        yield [
            one for w in worse if w.reward < 1 for one in (_preference(_demonstration(w.task, w.group)), _preference(w))
        ]


def mixed(lab: Lab, model: Any) -> Iterator[list[Written]]:
    """Yield the policy's own samples, and an expert's answers to a quarter as many tasks."""
    for step, own in enumerate(online(lab, model)):
        extra = lab.tasks(step + 7)[: max(lab.groups // 4, 1)]
        yield own + [_demonstration(task, lab.groups + index) for index, task in enumerate(extra)]


LETTERS = 0.1
"""Weight of the reward ``letters`` beside ``right``."""


def graded(lab: Lab, model: Any) -> Iterator[list[Written]]:
    """Yield the policy's samples with two rewards: 1 for a right answer, and a tenth of 10 times its share of right
    letters."""
    for written in online(lab, model):
        yield [_graded(one) for one in written]


def guided(lab: Lab, model: Any) -> Iterator[list[Written]]:
    """Yield the policy's own samples, and in each group an expert's answer in place of one of them."""
    for written in online(lab, model):
        group, guided = -1, []
        for one in written:
            guided.append(one if one.group == group else _demonstration(one.task, one.group))
            group = one.group
        yield guided


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a short run."""

    before: float
    """Held-out reward at temperature 1, before training."""
    after: float
    """Held-out reward at temperature 1, after training."""
    greedy: float
    """Held-out reward with greedy sampling, after training."""
    first: float
    """Mean reward of the samples in the first tenth of the steps."""
    last: float
    """Mean reward of the samples in the last tenth of the steps."""
    finite: bool
    """All losses and gradients were finite."""
    step_ms: float


def train(
    lab: Lab,
    source: Source,
    algorithm: dict[str, Any],
    steps: int,
    *,
    trainer: dict[str, Any] | None = None,
    on_step: Callable[[int], None] = lambda step: None,
    save: Path | None = None,
) -> Outcome:
    """Take ``steps`` steps of an algorithm and measure before and after.

    Args:
        on_step: called with the number of each step that was taken.
        save: file to write the trained weights to.
    """
    engine = lab.engine(algorithm, trainer)
    before = lab.measure(engine.model)
    rewards, finite, seconds = [], True, 0.0
    for number, written in enumerate(islice(source(lab, engine.model), steps), start=1):
        started = time.perf_counter()
        metrics = engine.step(number, batch_of(written), version=None)
        seconds += time.perf_counter() - started
        finite = finite and metrics["skipped"] == 0 and math.isfinite(metrics.get("loss", math.nan))
        rewards.append(metrics["reward_mean"])
        on_step(number)
    if save is not None:
        save.write_bytes(engine.serialized().data)
    tenth = max(steps // 10, 1)
    return Outcome(
        before, lab.measure(engine.model), lab.measure(engine.model, temperature=0),
        float(np.mean(rewards[:tenth])), float(np.mean(rewards[-tenth:])), finite, 1000 * seconds / steps,
    )  # fmt: skip


def batch_of(written: Sequence[Written]) -> StepBatch:
    """Return the batch of one step."""
    groups = np.unique([one.group for one in written], return_inverse=True)[1].astype(np.int64)
    ones = np.ones(len(written))
    names = tuple(sorted({name for one in written for name in one.terms}))
    return StepBatch(
        payloads=[_payload(one) for one in written],
        rewards=np.array([one.reward for one in written]),
        groups=groups,
        kinds=tuple(one.kind for one in written),
        temperatures=ones.copy(),
        top_ps=ones.copy(),
        truncated=ones > 1,
        reward_names=names,
        reward_values=np.array([[one.terms.get(name, np.nan) for name in names] for one in written]),
        reward_weights=np.array([LETTERS if name == "letters" else 1.0 for name in names]),
    )


def _payload(one: Written) -> Payload:
    before, after = len(one.task.prompt), len(one.tokens)
    mask = np.array([0] * before + [1] * after, dtype=np.uint8)
    return Payload(
        tokens=np.array([*one.task.prompt, *one.tokens], dtype=np.int32),
        action_mask=mask,
        logprobs=np.array([0.0] * before + list(one.logprobs), dtype=np.float32),
        versions=np.where(mask == 1, 0, -1).astype(np.int32),
    )


def _demonstration(task: Task, group: int) -> Written:
    return Written(task, group, task.answer, [0.0] * len(task.answer), 1.0, "demonstration")


def _graded(one: Written) -> Written:
    pairs = list(zip(one.tokens, one.task.answer, strict=False))
    letters = 10 * sum(ours == theirs for ours, theirs in pairs) / max(len(one.tokens), len(one.task.answer))
    return replace(one, reward=one.reward + LETTERS * letters, terms={"right": one.reward, "letters": letters})


def _preference(one: Written) -> Written:
    return Written(one.task, one.group, one.tokens, one.logprobs, one.reward, "preference")


def _result(request: Request) -> Generation:
    return request.future.result(timeout=0)
