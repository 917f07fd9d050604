"""Ends a run in which nothing can be trained, and explains why: what became of the newest experiences."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from producers.conductor.core import FAILED_CAUSES, Conductor
from rft.config import Config
from rft.errors import StarvationError
from rft.log.dead_letter_index import read_dead_letter, resolution
from rft.log.events import Event
from rft.log.reader import EventReader
from rft.log.records import CountedRejects, read_records
from schemas.events import ScoredExperience

log = logging.getLogger("rft")

NEWEST = 100
"""Events of each partition that are looked at."""


class StarvationCheck:
    """Raises StarvationError when the run is hopeless."""

    def __init__(self, config: Config, core: Conductor) -> None:
        """``core`` has caught up with the log: groups that failed earlier do not count as failed."""
        self._config = config
        self._core = core
        self._limit = config.trainer.max_barren_groups
        self._failed_limit = config.trainer.max_failed_groups
        self._before = core.starved
        self._look_at = self._failed_limit
        """Number of groups at which it is looked next whether they failed: a look reads the end of ``ready``."""

    def check(self) -> None:
        """Raise StarvationError if too many groups in a row failed, or could not be trained."""
        core = self._core
        if self._limit and core.starved >= self._limit:
            newest = read_newest(self._config, "train")
            raise StarvationError(describe_starvation(core.starved, newest, newest_failure(self._config)))
        if not self._failed_limit:
            return
        if core.failed_answers >= self._failed_limit and not core.pacer.steps_done:
            newest = read_newest(self._config, "eval")
            raise StarvationError(describe_failed_evaluation(core.failed_answers, newest, newest_failure(self._config)))
        if core.starved < self._before:
            self._before, self._look_at = 0, self._failed_limit
        if core.starved - self._before >= self._look_at:
            newest = read_newest(self._config, "train")
            if all_failed(newest):
                raise StarvationError(
                    describe_failed_groups(core.starved - self._before, newest, newest_failure(self._config))
                )
            self._look_at *= 2
            log.warning("%s", warn_of_starvation(core.starved, newest, self._limit))


def read_newest(config: Config, split: str) -> list[ScoredExperience]:
    """Return the newest experiences of a split from the end of ``ready``. Raises BrokerError if it cannot be read."""
    rejects = CountedRejects()
    found = list(read_records(_newest_events(config, "ready"), ScoredExperience, rejects.reject))
    return [scored for scored in found if scored.experience.split == split]


def newest_failure(config: Config) -> str:
    """Return the most frequent error of the newest experiences that could not be scored; empty if there is none."""
    letters = [read_dead_letter(event) for event in _newest_events(config, "dlq") if resolution(event.headers) is None]
    found = Counter(f"{letter.error}: {letter.message}" for letter in letters if letter.stage == "score")
    return found.most_common(1)[0][0] if found else ""


def all_failed(newest: Sequence[ScoredExperience]) -> bool:
    """Return whether each of these experiences is there only to say that its rollout or its reward failed."""
    return bool(newest) and all(scored.cause in FAILED_CAUSES for scored in newest)


def describe_starvation(groups: int, newest: Iterable[ScoredExperience], failure: str = "") -> str:
    """Say why ``groups`` groups could not be trained, by the causes of the newest experiences (pure).

    ``failure`` is the most frequent error of the reward functions.
    """
    return (
        f"{groups} groups in a row were retired without one gradient step. {_causes(list(newest), failure)} "
        "Fix the cause or raise trainer.max_barren_groups."
    )


def warn_of_starvation(groups: int, newest: Iterable[ScoredExperience], limit: int) -> str:
    """Say that the last groups gave no step, before it is certain that none will (pure)."""
    end = f" The run ends after {limit} such groups (trainer.max_barren_groups)." if limit else ""
    return f"{groups} groups in a row were retired without one gradient step. {_causes(list(newest), '')}{end}"


def describe_failed_groups(groups: int, newest: Iterable[ScoredExperience], failure: str) -> str:
    """Say that ``groups`` groups failed one after the other (pure)."""
    return f"all of the last {groups} groups failed. {_causes(list(newest), failure)} {_FIX}"


def describe_failed_evaluation(answers: int, newest: Iterable[ScoredExperience], failure: str) -> str:
    """Say that no held-out answer could be scored before training (pure)."""
    return f"all of the first {answers} held-out answers failed. {_causes(list(newest), failure)} {_FIX}"


_FIX = "Fix the cause. trainer.max_failed_groups says after how many failures a run ends; 0 lets it go on."


def _causes(newest: list[ScoredExperience], failure: str) -> str:
    causes = Counter(_cause(scored) for scored in newest)
    counts = ", ".join(f"{count} {cause}" for cause, count in causes.most_common())
    errors = Counter(scored.experience.error for scored in newest if scored.experience.error)
    example = f" The most frequent error of a rollout: {errors.most_common(1)[0][0]}." if errors else ""
    if failure and any(scored.cause == "score_failed" for scored in newest):
        example += f" The most frequent error of a reward: {failure}."
    return f"Of the newest {len(newest)} experiences: {counts or 'none'}.{example}"


def _cause(scored: ScoredExperience) -> str:
    return f"filtered as {scored.cause}" if scored.verdict == "filtered" else "fit for training, but too stale"


def _newest_events(config: Config, entity: str) -> Iterator[Event]:
    with EventReader(config, "conductor-starvation", [entity]) as reader:
        begins, ends = reader.begin_offsets(), reader.end_offsets()
        for at, end in ends.items():
            reader.seek(at.entity, at.partition, max(begins[at], end - NEWEST))
        while not reader.caught_up(ends):
            yield from reader.poll()
