"""Says whether a run learned anything: the held-out score before and after, and what speaks against it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from consumers.report.measures import score_text
from consumers.report.reducer import RunSummary, Step
from rft.config import Config
from rft.evaluation.estimators import standard_error
from rft.evaluation.tally import Tally

NOISE = 2.0
"""A change of fewer standard errors is called noise."""
MANY = 0.5
"""Share of steps or experiences from which a fault is worth a warning."""
FAILURES = ("score_failed", "rollout_failed")


def held_out_figures(before: Tally | None, after: Tally | None) -> dict[str, Any]:
    """Return the score of the first held-out set before and after.

    ``measure`` is ``accuracy``, or ``mean reward`` if a reward that decides about an answer lies outside 0 to 1.
    ``noise`` is the standard error of the change: over the tasks of both evaluations, of each task's change.
    """
    found = [tally for tally in (before, after) if tally]
    share = all(tally.bounded for tally in found)
    first, last = (None if tally is None else _score(tally, share=share) for tally in (before, after))
    noise = None
    if before is not None and after is not None and first is not None and last is not None:
        earlier, later = before.task_scores(share=share), after.task_scores(share=share)
        noise = round(standard_error([later[task] - earlier[task] for task in earlier if task in later]), 5)
    return {
        "measure": "accuracy" if share else "mean reward",
        "before": first,
        "after": last,
        "noise": noise,
        "tasks": min((len(tally.tasks) for tally in found), default=0),
        "scored": all(tally.scored for tally in found),
    }


def moved(held_out: dict[str, Any]) -> bool | None:
    """Return whether the held-out score changed beyond noise; None if it is not known before and after."""
    before, after, noise = held_out["before"], held_out["after"], held_out["noise"]
    if before is None or after is None or noise is None:
        return None
    return abs(after - before) > NOISE * noise and after != before


def change_text(held_out: dict[str, Any]) -> str:
    """Return ``held-out accuracy: 34.8% before, 79.6% after (500 tasks)``; empty if one of them is not known."""
    before, after = held_out["before"], held_out["after"]
    if before is None or after is None:
        return ""
    share = held_out["measure"] == "accuracy"
    scores = f"{score_text(before, share=share)} before, {score_text(after, share=share)} after"
    return f"held-out {held_out['measure']}: {scores} ({held_out['tasks']} tasks)"


def learning_warnings(
    summary: RunSummary, steps: Sequence[Step], held_out: dict[str, Any], config: Config, *, finished: bool
) -> list[str]:
    """Return what an operator must know before they take the run for a success; empty if nothing speaks against it."""
    return [
        *_gradient_warnings(steps),
        *(_held_out_warnings(summary, held_out, config) if finished and steps else []),
        *_failure_warnings(summary),
    ]


def _gradient_warnings(steps: Sequence[Step]) -> list[str]:
    idle = [step for step in steps if step.without_gradient]
    if not steps or len(idle) < MANY * len(steps):
        return []
    broken = sum(step.skipped for step in idle)
    which = f"none of the {len(steps)} steps" if len(idle) == len(steps) else f"{len(idle)} of {len(steps)} steps"
    if broken > len(idle) / 2:
        return [f"{which} changed the weights: gradients were not finite. Lower trainer.learning_rate."]
    verb = "had a gradient, so the weights did not change" if len(idle) == len(steps) else "had no gradient"
    rewards = {step.reward_mean for step in idle if step.reward_std == 0.0}
    if len(rewards) == 1 and all(step.reward_std == 0.0 for step in idle):
        why = f"every reward was {rewards.pop():g}"
    else:
        why = "within each group all rewards were equal"
    advice = "Choose tasks that the model solves sometimes, a reward that tells answers apart, or more rollout.samples."
    return [f"{which} {verb}: {why}. {advice}"]


def _held_out_warnings(summary: RunSummary, held_out: dict[str, Any], config: Config) -> list[str]:
    before, after = held_out["before"], held_out["after"]
    if moved(held_out) is not False:
        return []
    if held_out["measure"] == "accuracy" and before == after and before in (0.0, 1.0):
        if before == 1.0:
            return ["every held-out answer got full marks before and after: this set cannot show progress."]
        return ["no held-out answer got full marks before or after: this set cannot show progress."]
    share = held_out["measure"] == "accuracy"
    points = f"{(after - before) * 100:+.1f} points" if share else f"{after - before:+.3f}"
    noise = f"{held_out['noise'] * 100:.1f}" if share else f"{held_out['noise']:.3f}"
    return [
        f"the held-out {held_out['measure']} changed by {points}, with a standard error of {noise}: that is no change "
        "beyond noise. Evaluate on more tasks, or train for longer."
    ]


def _failure_warnings(summary: RunSummary) -> list[str]:
    causes = Counter(summary.filtered.values())
    rollouts = len(summary.experience_ids - summary.evaluated_ids)
    return [
        f"{causes[cause]:,} of {rollouts:,} rollouts for training were filtered as {cause}."
        for cause in FAILURES
        if causes[cause] >= MANY * rollouts > 0
    ]


def _score(tally: Tally, *, share: bool) -> float | None:
    if not tally.scored:
        return None
    scores = tally.task_scores(share=share)
    return round(fmean(scores.values()), 5) if scores else 0.0
