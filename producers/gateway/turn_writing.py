"""Lets the policy write the turns that a request asks for, without changing the conversations yet."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from producers.gateway.contract import ChatRequest
from producers.gateway.conversations import NumberedConversation
from rft.errors import RequestError
from rft.policy.base import Generation, Policy, Sampling
from rft.workflows.conversation import Prompt
from rft.workflows.seeded_policy import seed_of_call
from schemas.sessions import Turn


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """What the policy read and wrote for one choice of a request."""

    conversation: int
    """Number of the conversation."""
    extends: int
    """Number of the turn that it goes on from; BEGINS if there is none."""
    begins: bool
    """Whether it is the first turn of its conversation."""
    prompt: Prompt
    generation: Generation
    call: int
    """Which generation of the session it is."""


async def write_turns(
    policy: Policy,
    into: Sequence[NumberedConversation],
    request: ChatRequest,
    max_tokens: int,
    seed: int,
    calls: Sequence[int],
) -> list[Written]:
    """Return what the policy writes in each conversation. All generations have ended by the return.

    Args:
        policy: Writes.
        into: One conversation for each turn.
        request: Says how they are sampled.
        max_tokens: The most tokens of each turn.
        seed: That of the session.
        calls: For each turn, which generation of the session it is: its seed follows from that.

    Raises what :meth:`rft.workflows.conversation.Conversation.prompt` and the policy raise.
    """
    prompts = [
        one.conversation.prompt(
            max_tokens=max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            stop=request.stop,
            seed=seed_of_call(seed, call),
        )
        for one, call in zip(into, calls, strict=True)
    ]
    work = (policy.generate(prompt.tokens, prompt.sampling) for prompt in prompts)
    done: list[Any] = await asyncio.gather(*work, return_exceptions=True)
    for generation in done:
        if isinstance(generation, BaseException):
            raise generation
    return [
        Written(one.number, one.last, not one.taught, prompt, generation, call)
        for one, prompt, generation, call in zip(into, prompts, done, calls, strict=True)
    ]


def recorded_prompt(into: NumberedConversation, turn: Turn) -> Prompt:
    """Return what the policy has read for a turn that is on the log. Raises RequestError if it does not fit there."""
    before = len(into.conversation.tokens)
    if turn.extends != into.last or turn.tokens_before not in (0, before):
        raise RequestError(
            f"it extends turn {turn.extends} after {turn.tokens_before} tokens, not {into.last}, {before}"
        )
    sampling = Sampling(turn.max_tokens, turn.temperature, turn.top_p, turn.seed, turn.stop)
    return into.conversation.recorded_prompt(turn.prompt_tokens.tolist(), sampling, extends=turn.tokens_before > 0)
