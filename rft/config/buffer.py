"""``[buffer]``: which groups the trainer trains first, how often, and in which mixture."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rft.config.section import Section

Source = Literal["rollout", "replay", "demonstration", "preference"]
"""Where a group of a batch comes from: its kind, or ``replay`` for a group of rollouts that was trained before."""


class BufferConfig(Section):
    mix: dict[Source, float] = {}
    """Shares of each step's groups by source: ``rollout``, ``replay`` (rollouts that were trained before, up to
    ``reuse`` times), ``demonstration``, ``preference``, e.g. ``{ rollout = 0.75, demonstration = 0.25 }``. A step
    waits for rollouts, and for the first demonstrations and preferences, which are used again and again. It does not
    wait for groups to replay. Kinds without a share are not trained (cause ``unwanted``). Empty: groups of all kinds,
    by priority."""
    reuse: int = Field(default=1, ge=1)
    """How often a group may be trained. Without ``mix`` (in the mode ``train``) these are epochs: groups that were
    trained least often come first, in a new order each time."""
    priority: str = "processor"
    """Which groups come first: ``processor`` (by the event's own priority, see ``processor.priority``), ``recency``
    (newest weight version), ``staleness`` (oldest), ``reward_variance``, ``difficulty`` (lowest mean reward), or
    ``package.module:function``, which returns a number for the group's rewards, oldest weight version and task
    number."""
    recency_half_life: float | None = Field(default=None, gt=0)
    """Number of weight versions after which a priority counts half. By default priorities do not decay."""

    too_stale: Literal["drop", "keep", "hold"] = "drop"
    """What becomes of the slowest rollouts, whose tokens are staler than ``trainer.max_staleness`` when they come.
    ``drop``: their groups are dropped, cause ``stale``. ``keep``: they are trained. The algorithm then needs a weight
    of each token that accounts for its staleness and is bounded: ``algorithm.correction`` ``tis`` or ``mis``,
    ``algorithm.rejection`` ``token``, or one of the losses ``clipped`` (its ``dual_clip`` is 2 if it is not set),
    ``cispo``, ``sapo``, ``topr`` and ``rec``.
    ``hold``: before they become too stale, the trainer waits for them with its next step. It then takes the stalest
    groups first; ``priority`` decides among those of the same version."""
    hold_s: float = Field(default=60.0, gt=0)
    """With ``hold``: how long a step waits. Groups that come later may be dropped, and no step waits for them again."""

    @model_validator(mode="after")
    def _consistent(self) -> BufferConfig:
        if self.mix and (min(self.mix.values()) < 0 or sum(self.mix.values()) <= 0):
            raise ValueError("mix: shares must not be negative, and at least one must be above 0")
        if self.mix.get("replay") and self.reuse < 2:
            raise ValueError("mix.replay needs reuse = 2 or more: reuse counts the first training too")
        return self

    def shares(self, groups: int) -> dict[str, int]:
        """Return how many of a step's ``groups`` each source gives, by largest remainder; empty without ``mix``."""
        total = sum(self.mix.values())
        exact = {name: groups * share / total for name, share in self.mix.items()}
        counts = {name: int(value) for name, value in exact.items()}
        order = sorted(exact, key=lambda name: (counts[name] - exact[name], name))
        for name in order[: groups - sum(counts.values())] if exact else ():
            counts[name] += 1
        return counts  # type: ignore[return-value]

    def uses(self, kind: str) -> int | None:
        """Return how often a group of that kind may be trained; None means without limit."""
        return None if self.mix and kind != "rollout" else self.reuse
