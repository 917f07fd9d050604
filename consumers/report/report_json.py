"""Computes the content of ``report.json`` and the series of ``report.html`` from a run's summary. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from typing import Any

import numpy as np

from consumers.report.learning import held_out_figures, learning_warnings
from consumers.report.long_tail import long_tail_figures
from consumers.report.measures import TrainerSeconds, sum_stats
from consumers.report.outcome import RunEnd, note_rows, outcome_figures
from consumers.report.reducer import Rollout, RunSummary, Step
from consumers.report.transfers import transfer_figures
from rft.config import MAIN_SET, Config
from rft.evaluation.tally import difficulty_classes
from rft.log.topics import topic_name
from rft.telemetry.notes import Note

MAX_BUCKETS = 60
"""Most points of the throughput curve."""
SAMPLES = 8
MAX_TEXT_CHARS = 2000
"""Characters of a sample rollout that the page shows."""

Series = list[tuple[float, float]]


def report_content(
    summary: RunSummary,
    config: Config,
    *,
    wall_s: float | None,
    versions: Mapping[str, str],
    end: RunEnd | None = None,
    notes: Mapping[str, Sequence[Note]] | None = None,
) -> dict[str, Any]:
    """Return the content of ``report.json``.

    ``wall_s`` is the time that the launcher measured; without it, the time from the log's first event to its last.
    Counts are of distinct ids, except ``experiences.published``, which counts all events of the topic: published =
    distinct + duplicates + dead_lettered, once the processors have seen everything.

    Args:
        end: how the newest launch ended, if it did not finish the run.
        notes: warnings and errors of the roles.
    """
    steps = steps_in_order(summary)
    dead_lettered = len(summary.dead_letters.get(topic_name(config, "experiences"), ()))
    distinct = len(summary.experience_ids)
    trained = {experience_id for step in steps for experience_id in step.trained}
    seconds = reduce(TrainerSeconds.__add__, (step.seconds for step in steps), TrainerSeconds())
    staleness = _staleness(steps)
    is_finished = finished(summary, config)
    held_out = _held_out(summary, config)
    return {
        "run": config.run.name,
        "finished": is_finished,
        **outcome_figures(finished=is_finished, end=end),
        "complete": summary.complete,
        "accuracy": _accuracy(held_out),
        "held_out": held_out,
        "learning": learning_warnings(summary, steps, held_out, config, finished=is_finished),
        "notes": note_rows(notes or {}),
        "evaluations": evaluations(summary, config),
        "steps": len(steps),
        "wall_s": round(log_seconds(summary) if wall_s is None else wall_s, 3),
        "experiences": {
            "published": summary.experience_events,
            "distinct": distinct,
            "ready": len(summary.ready_ids),
            "trained": len(trained),
            "evaluated": len(summary.evaluated_ids),
            "filtered": len(summary.filtered),
            "filtered_by_cause": dict(sorted(Counter(summary.filtered.values()).items())),
            "dropped_by_trainer": dict(sorted(_dropped(summary, trained).items())),
            "dead_lettered": dead_lettered,
            "dead_letters_by_class": dict(sorted(summary.dead_letter_classes.items())),
            "duplicates": summary.duplicates,
        },
        "unreadable": dict(sorted(summary.unreadable.items())),
        "staleness": {
            "max": int(staleness.max()) if staleness.size else 0,
            "mean": round(float(staleness.mean()), 4) if staleness.size else 0.0,
            "bound": config.trainer.max_staleness,
        },
        "long_tail": long_tail_figures(summary, steps, config.trainer.max_staleness),
        "trainer": {
            "idle_share": round(seconds.idle_share, 4),
            "step_s": round(seconds.step / len(steps), 4) if steps else 0.0,
            "training_s": round(training_seconds(steps), 3),
            "seconds": {name: round(value, 3) for name, value in asdict(seconds).items()},
        },
        "trainers": _other_trainers(summary),
        "explorers": explorer_seconds(summary),
        "weights": transfer_figures(summary, steps),
        "throughput": {"experiences_per_s": round(_rate(summary), 2)},
        "broker": config.broker.kind,
        "versions": dict(versions),
        "series": {
            "reward": [[step.number, round(step.reward_mean, 5)] for step in steps],
            "accuracy": [
                [version, round(share, 5), tasks] for version, share, tasks in accuracies(summary, first_set(config))
            ],
        },
    }


def steps_in_order(summary: RunSummary) -> list[Step]:
    """Return the steps that led to the newest weights, in order."""
    return [summary.steps[number] for number in sorted(summary.steps)]


def finished(summary: RunSummary, config: Config) -> bool:
    """Return whether the final weights are announced and evaluated; in mode ``explore``, whether all is scored."""
    if config.run.mode == "explore":
        scored_ids = (*summary.ready_ids, *summary.filtered)
        groups = {scored_id.partition("/")[0] for scored_id in scored_ids if scored_id.startswith("train-")}
        return len(groups) >= config.trainer.steps * config.trainer.groups_per_step
    if summary.final_version is None:
        return False
    return all(
        tally is not None and tally.answered >= eval_set.tasks
        for eval_set in config.eval_sets.values()
        for tally in [summary.evaluations.get(eval_set.name, {}).get(summary.final_version)]
    )


def accuracies(summary: RunSummary, name: str) -> list[tuple[int, float, int]]:
    """Return (version, share of correct answers, tasks) of each evaluation of a set that is scored, by version.

    There are none if rewards outside 0 to 1 decide about answers.
    """
    return scores(summary, name) if has_shares(summary, name) else []


def scores(summary: RunSummary, name: str) -> list[tuple[int, float, int]]:
    """Return (version, score, tasks) of each evaluation of a set that is scored: shares, or mean rewards."""
    tallies = sorted(summary.evaluations.get(name, {}).items())
    share = has_shares(summary, name)
    found = [(version, tally.accuracy if share else tally.mean_reward, len(tally.tasks)) for version, tally in tallies]
    return [(version, score, tasks) for version, score, tasks in found if score is not None]


def has_shares(summary: RunSummary, name: str) -> bool:
    """Return whether answers of a set are right or wrong: all rewards that decide about them lie between 0 and 1."""
    return all(tally.bounded for tally in summary.evaluations.get(name, {}).values())


def evaluations(summary: RunSummary, config: Config) -> list[dict[str, Any]]:
    """Return every evaluation of every set with its estimates, see :meth:`rft.evaluation.tally.Tally.result`."""
    results = []
    for name, eval_set in config.eval_sets.items():
        tallies = dict(sorted(summary.evaluations.get(name, {}).items()))
        classes = difficulty_classes(eval_set, list(tallies.values()))
        for version, tally in tallies.items():
            results.append(
                {
                    "set": name,
                    "version": version,
                    "samples": eval_set.samples,
                    "temperature": eval_set.temperature,
                    "difficulty": classes.by,
                    **tally.result(eval_set, classes),
                }
            )
    return results


def first_set(config: Config) -> str:
    """Return the name of the set that tiles and sample rollouts show."""
    return next(iter(config.eval_sets), MAIN_SET)


def samples(summary: RunSummary, count: int = SAMPLES) -> list[tuple[Rollout, Rollout]]:
    """Return rollouts of the same held-out tasks before and after, evenly spread over all and not picked by result."""
    if summary.final_version is None or 0 not in summary.rollouts:
        return []
    after = {rollout.prompt: rollout for rollout in summary.rollouts.get(summary.final_version, {}).values()}
    before = [rollout for _, rollout in sorted(summary.rollouts[0].items())]
    pairs = [(rollout, after[rollout.prompt]) for rollout in before if rollout.prompt in after]
    if len(pairs) <= count:
        return pairs
    return [pairs[index * len(pairs) // count] for index in range(count)]


def throughput(summary: RunSummary) -> Series:
    """Return (seconds since the first, distinct experiences a second) in equal intervals."""
    published_at = summary.possible_times
    if len(published_at) < 2:
        return []
    times = np.array(published_at, dtype=np.float64) / 1000
    seconds = times - times.min()
    buckets = min(MAX_BUCKETS, max(1, int(seconds.max())))
    counts, edges = np.histogram(seconds, bins=buckets)
    width = edges[1] - edges[0]
    return [(float(edge + width / 2), float(n / width)) for edge, n in zip(edges, counts, strict=False)]


def explorer_seconds(summary: RunSummary) -> dict[str, float]:
    """Return seconds by activity and counts, summed over all explorers that took part at any time."""
    names = ("generating_s", "waiting_s", "resync_s", "rollouts", "failed", "cancelled", "tokens")
    return sum_stats(summary.members.values(), names)


def training_seconds(steps: list[Step]) -> float:
    """Return the time from the start of the first step, its waiting included, to the end of the last."""
    if not steps:
        return 0.0
    return (steps[-1].created_at - steps[0].created_at) / 1000 + steps[0].seconds.total


def log_seconds(summary: RunSummary) -> float:
    """Return the time from the log's first event to its last."""
    if summary.first_ms is None or summary.last_ms is None:
        return 0.0
    return (summary.last_ms - summary.first_ms) / 1000


def _held_out(summary: RunSummary, config: Config) -> dict[str, Any]:
    tallies = summary.evaluations.get(first_set(config), {})
    after = tallies.get(summary.final_version) if summary.final_version is not None else None
    return held_out_figures(tallies.get(0), after)


def _accuracy(held_out: Mapping[str, Any]) -> dict[str, float | int | None]:
    """Return the shares of right answers before and after, which are None if there are only mean rewards."""
    share = held_out["measure"] == "accuracy"
    scores = {name: held_out[name] if share else None for name in ("before", "after")}
    return scores | {name: held_out[name] for name in ("tasks", "scored")}


def _other_trainers(summary: RunSummary) -> dict[str, dict[str, Any]]:
    """Return the figures of the other trainers on this log, by identity."""
    return {
        model: {
            "steps": len(steps),
            "trained": len({experience_id for step in steps.values() for experience_id in step.trained}),
            "reward": [[number, round(steps[number].reward_mean, 5)] for number in sorted(steps)],
            "loss": [[number, round(steps[number].loss, 5)] for number in sorted(steps)],
        }
        for model, steps in sorted(summary.other_trainers.items())
    }


def _staleness(steps: list[Step]) -> np.ndarray:
    """Return the staleness of all trained experiences that hold a token of the policy, int32 [N]."""
    staleness = np.concatenate([step.staleness for step in steps]) if steps else np.zeros(0, dtype=np.int32)
    return staleness[staleness >= 0]


def _dropped(summary: RunSummary, trained: set[str]) -> Counter[str]:
    """Count dropped experiences by cause, without those that processors filtered or that another copy trained."""
    return Counter(
        cause
        for experience_id, cause in summary.dropped.items()
        if experience_id not in trained and experience_id not in summary.filtered
    )


def _rate(summary: RunSummary) -> float:
    published_at = summary.possible_times
    if len(published_at) < 2:
        return 0.0
    seconds = (max(published_at) - min(published_at)) / 1000
    return len(published_at) / seconds if seconds else 0.0
