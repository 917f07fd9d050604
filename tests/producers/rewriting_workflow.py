"""A conversation whose chat template shows the policy nothing but the last message: each turn begins another row."""

from __future__ import annotations

from rft.workflows.base import Outcome
from rft.workflows.conversation import Conversation
from schemas.events import Task

TURNS = 3
TEMPLATE = "{% for message in messages %}{% if loop.last %}{{ message.content }}>{% endif %}{% endfor %}"


async def rewriting(task: Task, conversation: Conversation) -> Outcome:
    for turn in range(TURNS):
        conversation.user(f"question {turn}")
        await conversation.generate(max_tokens=2)
    return Outcome(reward=0.5, rewards={"style": 1.0}, turn_rewards={1: 0.25})
