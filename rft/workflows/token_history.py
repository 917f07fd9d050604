"""Keeps the exact tokens of a conversation while it grows. Pure.

A model's chat template renders the whole conversation each time. Only what comes after the policy's last turn is
tokenized; before it stand the tokens that the policy read and wrote (tokens in, tokens out). If the template renders
earlier parts otherwise than before, such as without their thinking, the policy would read another text: then the tokens
so far are one row, and the conversation goes on in another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from rft.policy.base import Generation
from rft.workflows.trajectory import Trajectory
from schemas.events import NOT_WRITTEN

STAND_IN = "\u2045turn\u2046"
"""Stands for a turn's text where only the template's own words around it are wanted."""


@dataclass(slots=True)
class TokenRow:
    """The tokens of a conversation as far as no earlier part of it was rewritten."""

    prompt: str
    """What the template rendered before the first turn was generated."""
    rendered: str = ""
    """What it rendered before the last one."""
    tokens: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    """Index of each turn in it, in the conversation."""
    response: str = ""
    """The text of the last turn."""
    finish_reason: str = "stop"
    sampled: tuple[float, float] | None = None
    """Temperature and top_p of its turns: an experience states one of each."""

    def read(self, tokens: list[int]) -> None:
        """Append tokens that the policy did not write."""
        self.tokens += tokens
        self.mask += [0] * len(tokens)
        self.logprobs += [0.0] * len(tokens)
        self.versions += [NOT_WRITTEN] * len(tokens)

    def wrote(self, turn: int, text: str, generation: Generation) -> None:
        """Append a turn of the policy."""
        self.tokens += generation.tokens.tolist()
        self.mask += [1] * len(generation.tokens)
        self.logprobs += generation.logprobs.tolist()
        self.versions += generation.versions.tolist()
        self.turns.append(turn)
        self.response = text
        self.finish_reason = generation.finish_reason

    def context(self) -> TokenRow:
        """Return a row that goes on from here and teaches nothing of what was written so far."""
        nothing = TokenRow(self.prompt, self.rendered)
        nothing.read(self.tokens)
        return nothing

    def trajectory(self) -> Trajectory:
        """Return the row to learn from."""
        return Trajectory(
            prompt=self.prompt,
            response=self.response,
            tokens=np.array(self.tokens, np.int32),
            action_mask=np.array(self.mask, np.uint8),
            logprobs=np.array(self.logprobs, np.float32),
            versions=np.array(self.versions, np.int32),
            finish_reason=self.finish_reason,
            temperature=self.sampled[0] if self.sampled else None,
            top_p=self.sampled[1] if self.sampled else None,
        )


def text_after_turn(
    before: str, body: str, end: str, rendered: str, render_stand_in: Callable[[], str | None]
) -> str | None:
    """Return the text that follows the policy's last turn; None if the template rewrote what was before.

    Args:
        before: What the template rendered before the turn was generated.
        body: The turn's text, special tokens spelled out, without its end token.
        end: The text of its end token; empty if it has none.
        rendered: What the template renders now, the turn included.
        render_stand_in: Renders the same with :data:`STAND_IN` instead of the turn's text; None if it cannot.
    """
    if not rendered.startswith(before):
        return None
    rest = rendered[len(before) :]
    if rest.startswith(body):
        return rest[len(body) :].removeprefix(end)
    # The template may trim the turn or write a call's JSON in its own way. That is the same text, and the policy goes
    # on from what it wrote itself. Leaving something out is not.
    stand_in = render_stand_in()
    if stand_in is None or not stand_in.startswith(before + STAND_IN):
        return None
    after = stand_in[len(before) + len(STAND_IN) :]
    if not rest.endswith(after) or _bare(rest[: len(rest) - len(after)]) != _bare(body):
        return None
    return after.removeprefix(end)


def _bare(text: str) -> str:
    return "".join(text.split())
