"""From the story of a run to the numbers of ``report.json`` and the series of ``report.html``. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from functools import reduce
from typing import Any

import numpy as np

from consumers.report.measures import TrainerSeconds, summed
from consumers.report.reducer import Rollout, Step, Story
from consumers.report.transfers import transfers
from rft.config import MAIN_SET, Config
from rft.evaluation.tally import classes_of

BUCKETS = 60
"""Points of the throughput curve."""
SAMPLES = 8
LONGEST_TEXT = 2000
"""Characters of a sample rollout that are kept."""

Series = list[tuple[float, float]]


def summarize(story: Story, config: Config, *, wall_s: float | None, versions: Mapping[str, str]) -> dict[str, Any]:
    """The content of ``report.json``.

    ``wall_s`` is what the launcher measured; without it, the time from the log's first event to its last.
    Counts are of distinct ids, except ``experiences.published``, which is all events of the topic:
    published = distinct + duplicates + dead_lettered, once the processors have seen everything.
    """
    steps = lineage(story)
    dead = len(_dead_experiences(story, config))
    distinct = len(story.experience_ids)
    trained = {experience_id for step in steps for experience_id in step.trained}
    seconds = reduce(TrainerSeconds.__add__, (step.seconds for step in steps), TrainerSeconds())
    staleness = _staleness(steps)
    return {
        "run": config.run.name,
        "finished": finished(story, config),
        "complete": story.complete,
        "accuracy": _accuracy(story, config),
        "evaluations": evaluations(story, config),
        "steps": len(steps),
        "wall_s": round(log_seconds(story) if wall_s is None else wall_s, 3),
        "experiences": {
            "published": story.experience_events,
            "distinct": distinct,
            "ready": len(story.ready_ids),
            "trained": len(trained),
            "evaluated": len(story.evaluated_ids),
            "filtered": len(story.filtered),
            "filtered_by_cause": dict(sorted(Counter(story.filtered.values()).items())),
            "dropped_by_trainer": dict(sorted(_dropped(story, trained).items())),
            "dead_lettered": dead,
            "dead_letters_by_class": dict(sorted(story.dead_causes.items())),
            "duplicates": story.duplicates,
        },
        "staleness": {
            "max": int(staleness.max()) if staleness.size else 0,
            "mean": round(float(staleness.mean()), 4) if staleness.size else 0.0,
            "bound": config.trainer.max_staleness,
        },
        "trainer": {
            "idle_share": round(seconds.idle_share, 4),
            "step_s": round(seconds.step / len(steps), 4) if steps else 0.0,
            "training_s": round(training_seconds(steps), 3),
            "seconds": {name: round(value, 3) for name, value in asdict(seconds).items()},
        },
        "trainers": _further(story),
        "explorers": explorer_seconds(story),
        "weights": transfers(story, steps),
        "throughput": {"experiences_per_s": round(_rate(story), 2)},
        "broker": config.broker.kind,
        "versions": dict(versions),
        "series": {
            "reward": [[step.number, round(step.reward_mean, 5)] for step in steps],
            "accuracy": [
                [version, round(share, 5), tasks] for version, share, tasks in accuracies(story, first_set(config))
            ],
        },
    }


def lineage(story: Story) -> list[Step]:
    """The steps that led to the newest weights, in order."""
    return [story.steps[number] for number in sorted(story.steps)]


def finished(story: Story, config: Config) -> bool:
    """Whether the last weights are announced and evaluated; when exploring, whether all is scored."""
    if config.run.mode == "explore":
        groups = {name.partition("/")[0] for name in (*story.ready_ids, *story.filtered) if name.startswith("train-")}
        return len(groups) >= config.trainer.steps * config.trainer.groups_per_step
    if story.final_version is None:
        return False
    return all(
        tally is not None and tally.answered >= chosen.tasks
        for chosen in config.eval_sets.values()
        for tally in [story.evaluations.get(chosen.name, {}).get(story.final_version)]
    )


def accuracies(story: Story, name: str) -> list[tuple[int, float, int]]:
    """(version, share of right answers, tasks) of each evaluation of a set, by version."""
    tallies = sorted(story.evaluations.get(name, {}).items())
    return [(version, tally.accuracy, len(tally.tasks)) for version, tally in tallies]


def evaluations(story: Story, config: Config) -> list[dict[str, Any]]:
    """Every evaluation of every set with its estimates, see :meth:`rft.evaluation.tally.Tally.result`."""
    found = []
    for name, chosen in config.eval_sets.items():
        tallies = dict(sorted(story.evaluations.get(name, {}).items()))
        classes = classes_of(chosen, list(tallies.values()))
        for version, tally in tallies.items():
            found.append(
                {
                    "set": name,
                    "version": version,
                    "samples": chosen.samples,
                    "temperature": chosen.temperature,
                    "difficulty": classes.by,
                    **tally.result(chosen, classes),
                }
            )
    return found


def first_set(config: Config) -> str:
    """The set that tiles and sample rollouts tell of."""
    return next(iter(config.eval_sets), MAIN_SET)


def samples(story: Story, count: int = SAMPLES) -> list[tuple[Rollout, Rollout]]:
    """The same held-out tasks before and after, evenly spread over all of them and not picked by result."""
    if story.final_version is None or 0 not in story.rollouts:
        return []
    after = {rollout.prompt: rollout for rollout in story.rollouts.get(story.final_version, {}).values()}
    pairs = [
        (rollout, after[rollout.prompt]) for _, rollout in sorted(story.rollouts[0].items()) if rollout.prompt in after
    ]
    if len(pairs) <= count:
        return pairs
    return [pairs[index * len(pairs) // count] for index in range(count)]


def throughput(story: Story) -> Series:
    """(seconds since the first, distinct experiences a second) in equal stretches of time."""
    if len(story.published_at) < 2:
        return []
    times = np.array(story.published_at, dtype=np.float64) / 1000
    seconds = times - times.min()
    buckets = min(BUCKETS, max(1, int(seconds.max())))
    counts, edges = np.histogram(seconds, bins=buckets)
    width = edges[1] - edges[0]
    return [(float(edge + width / 2), float(n / width)) for edge, n in zip(edges, counts, strict=False)]


def explorer_seconds(story: Story) -> dict[str, float]:
    """Seconds by activity and counts, summed over all explorers that ever were."""
    names = ("generating_s", "waiting_s", "resync_s", "rollouts", "failed", "tokens")
    return summed(story.members.values(), names)


def training_seconds(steps: list[Step]) -> float:
    """From the start of the first step, its waiting included, to the end of the last."""
    if not steps:
        return 0.0
    return (steps[-1].created_at - steps[0].created_at) / 1000 + steps[0].seconds.total


def log_seconds(story: Story) -> float:
    """From the log's first event to its last."""
    if story.first_ms is None or story.last_ms is None:
        return 0.0
    return (story.last_ms - story.first_ms) / 1000


def _accuracy(story: Story, config: Config) -> dict[str, float | int | None]:
    tallies = story.evaluations.get(first_set(config), {})
    before = tallies.get(0)
    after = tallies.get(story.final_version) if story.final_version is not None else None
    counts = [len(tally.tasks) for tally in (before, after) if tally]
    return {
        "before": round(before.accuracy, 5) if before else None,
        "after": round(after.accuracy, 5) if after else None,
        "tasks": min(counts, default=0),
    }


def _further(story: Story) -> dict[str, dict[str, Any]]:
    """What the other trainers on this log did, by identity."""
    return {
        model: {
            "steps": len(steps),
            "trained": len({experience_id for step in steps.values() for experience_id in step.trained}),
            "reward": [[number, round(steps[number].reward_mean, 5)] for number in sorted(steps)],
            "loss": [[number, round(steps[number].loss, 5)] for number in sorted(steps)],
        }
        for model, steps in sorted(story.further.items())
    }


def _staleness(steps: list[Step]) -> np.ndarray:
    """Of all trained experiences that hold a token of the policy."""
    everything = np.concatenate([step.staleness for step in steps]) if steps else np.zeros(0, dtype=np.int32)
    return everything[everything >= 0]


def _dropped(story: Story, trained: set[str]) -> Counter[str]:
    """By cause, filtered members (which the processors dropped already) and what another copy trained left out."""
    return Counter(
        cause
        for experience_id, cause in story.dropped.items()
        if experience_id not in trained and experience_id not in story.filtered
    )


def _dead_experiences(story: Story, config: Config) -> set[tuple[int, int]]:
    return story.dead.get(f"{config.log.namespace}.experiences.v1", set())


def _rate(story: Story) -> float:
    if len(story.published_at) < 2:
        return 0.0
    seconds = (max(story.published_at) - min(story.published_at)) / 1000
    return len(story.published_at) / seconds if seconds else 0.0
