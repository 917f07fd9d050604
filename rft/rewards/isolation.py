"""Runs reward functions that may hang, die or take memory in a process of their own, with a deadline for each call.

Those are the user's functions, and shipped ones whose time depends on a pattern or on what the model wrote. A process
that does not answer in time is ended with all that it has started, and the next sample gets a new one.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rft.config import ProcessorConfig, RewardTerm
from rft.errors import ConfigError, RewardError
from rft.plugins import is_plugin
from rft.rewards.functions import UNBOUNDED, Sample, load_reward
from rft.rewards.scorer import Scorer, TermFunction, combine_terms, in_process
from rft.workers.blocking import BlockingWorker, WorkerError
from rft.workers.guard import GroupGuard
from rft.workers.lines import WireError

START_S = 120.0
"""How long functions may take to load: their module may import a large library on a busy machine."""
SLOW_S = 2.0
"""A call that takes longer is named in a warning while it runs."""
SLOW_WARNINGS = 5
MIB = 1024 * 1024

log = logging.getLogger("rft")


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What one call of a function may take, and the settings that say so, for errors."""

    deadline_s: float
    memory_mb: int | None
    deadline_setting: str = "processor.reward_deadline_s"
    memory_setting: str = "processor.reward_memory_mb"
    holds_up: str | None = "the processor"
    """What waits while a call runs, for the warning of a slow one; None if slow calls are as they should be."""


def open_scorer(config: ProcessorConfig) -> Scorer:
    """Return one function for all terms of ``processor.rewards``, which any thread may call.

    Functions run in another process, as ``processor.reward_isolation`` says. It ends with this one. Raises ConfigError
    for an unknown function, for options that are unknown, missing or wrong, and for a function that cannot be loaded.
    """
    isolated = [term for term in config.rewards if config.reward_isolation == "process" and needs_process(term)]
    limits = CallLimits(config.reward_deadline_s, config.reward_memory_mb)
    functions = iter(IsolatedFunctions(limits, isolated).functions if isolated else ())
    return combine_terms(
        config.rewards,
        [
            next(functions) if term in isolated else in_process(load_reward(term.function, term.options))
            for term in config.rewards
        ],
    )


def needs_process(term: RewardTerm) -> bool:
    """Return whether a function's time and memory have no bound of their own."""
    return is_plugin(term.function) or term.function in UNBOUNDED


class IsolatedFunctions:
    """Runs functions in one process, one call at a time. Thread-safe."""

    def __init__(self, limits: CallLimits, terms: Sequence[RewardTerm], setting: str = "processor.rewards") -> None:
        """Start the process. Raises ConfigError for functions that cannot be used. ``setting`` is for errors."""
        self._limits = limits
        self._terms = terms
        self._setting = setting
        self._guard = GroupGuard()
        self._lock = threading.Lock()
        self._worker: BlockingWorker | None = None
        self._wanted: list[list[str]] = []
        self._slow_calls = 0
        self.replaced = 0
        """Processes that were ended because they hung or died."""
        try:
            self._start()
        except RewardError as error:
            raise ConfigError(str(error)) from error
        self.functions: list[TermFunction] = [self._function(index) for index in range(len(terms))]

    def close(self) -> None:
        """End the process. A further call starts another."""
        with self._lock:
            if self._worker is not None:
                self._worker.end()
                self._worker = None
            self._guard.close()

    def _function(self, index: int) -> TermFunction:
        return lambda sample: self._score(index, sample)

    def _score(self, index: int, sample: Sample) -> dict[str, float]:
        name, limits = self._terms[index].function, self._limits
        slow_s = SLOW_S if limits.holds_up else None
        with self._lock:
            worker = self._worker or self._start()
            seen = {"response": sample.response, "answer": sample.answer}
            seen |= {key: getattr(sample, key) for key in self._wanted[index]}
            request = {"op": "score", "function": index, "sample": seen}
            try:
                reply = worker.ask(
                    request, limits.deadline_s, slow_s=slow_s, slow=lambda: self._warn_of_slow_call(name)
                )
            except WireError as error:
                raise RewardError(f"reward function {name}: the sample {error}") from error
            except WorkerError as error:
                self._discard()
                where = f" ({limits.deadline_setting})" if "within" in str(error) else ""
                raise RewardError(f"reward function {name} {error}{where}") from error
            if "ends" in reply:
                self._discard()
        if "error" in reply:
            memory = f" ({limits.memory_setting})" if reply.get("ends") == "memory" else ""
            raise RewardError(f"{reply['error']}{memory}")
        rewards: dict[str, float] = reply["rewards"]
        return rewards

    def _start(self) -> BlockingWorker:
        memory_mb = self._limits.memory_mb
        request: dict[str, Any] = {
            "op": "open",
            "path": [path for path in sys.path if path],
            "memory_bytes": None if memory_mb is None else memory_mb * MIB,
            "setting": self._setting,
            "functions": [[term.function, term.options] for term in self._terms],
        }
        worker = BlockingWorker("rft.rewards.worker", self._guard)
        try:
            reply = worker.ask(request, START_S, slow_s=START_S / 4, slow=self._warn_of_slow_start)
        except (WorkerError, WireError) as error:
            worker.end()
            raise RewardError(
                f"{self._setting}: the process of {self._names()} {error}, while it loaded them"
            ) from error
        if "config_error" in reply:
            worker.end()
            raise ConfigError(str(reply["config_error"]))
        self._worker, self._wanted = worker, reply["wanted"]
        return worker

    def _discard(self) -> None:
        assert self._worker is not None
        self._worker.end()
        self._worker = None
        self.replaced += 1

    def _names(self) -> str:
        return ", ".join(dict.fromkeys(term.function for term in self._terms))

    def _warn_of_slow_start(self) -> None:
        log.warning("%s: %s take long to load; they may take %g s", self._setting, self._names(), START_S)

    def _warn_of_slow_call(self, name: str) -> None:
        self._slow_calls += 1
        if self._slow_calls <= SLOW_WARNINGS:
            log.warning(
                "reward function %s has run for %g s on one sample and holds up %s; it is ended after %g s (%s)%s",
                name,
                SLOW_S,
                self._limits.holds_up,
                self._limits.deadline_s,
                self._limits.deadline_setting,
                ". Further slow calls are not named" if self._slow_calls == SLOW_WARNINGS else "",
            )
