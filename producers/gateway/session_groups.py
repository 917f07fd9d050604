"""Names the groups and samples of sessions that agents open by themselves. Pure.

The name of a session decides its experience's id. ``chat-17`` is a group of its own: ``session-chat-17/0``. The
sessions of a group that was opened for several are ``q42~0``, ``q42~1``, …: ``group-q42/0``, ``group-q42/1``, …
The prefixes keep them apart from each other and from the groups of a conductor.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, NamedTuple

from producers.gateway.access import NAME
from producers.gateway.contract import GroupRequest
from producers.gateway.faults import RefusedError
from producers.gateway.fields import Fields
from producers.gateway.pieces import to_json
from rft.config import Config
from schemas.events import Task

SOURCE = "agents"
"""Task source of sessions that agents open."""
MAX_SAMPLES = 1024
MAX_TEXT_CHARS = 64 * 1024
"""Longest answer and metadata of a group."""
MAX_GROUP_CHARS = 190
_OF_GROUP = re.compile(r"(.+)~(\d{1,4})")


class SessionPlace(NamedTuple):
    """Says which sample of which group a session is."""

    group_id: str
    sample: int
    group: str | None
    """The name that the group was opened with; None for a session that is a group of its own."""

    @property
    def sample_id(self) -> str:
        """What rewards name it by."""
        return f"{self.group_id}/{self.sample}"


def place_of(session: str) -> SessionPlace:
    """Return the place of a session, which follows from its name."""
    found = _OF_GROUP.fullmatch(session)
    if found is None:
        return SessionPlace(f"session-{session}", 0, None)
    return SessionPlace(f"group-{found[1]}", int(found[2]), found[1])


def sessions_of(group: str, samples: int) -> list[str]:
    """Return the names of a group's sessions."""
    return [f"{group}~{sample}" for sample in range(samples)]


def parse_group(values: dict[str, Any]) -> GroupRequest:
    """Return the group that a body asks for. Raises RefusedError that names the field at fault."""
    body = Fields(values)
    body.only(("group", "samples", "answer", "metadata"))
    group = body.text("group") if body.has("group") else None
    if group is not None and (not NAME.fullmatch(group) or "~" in group or len(group) > MAX_GROUP_CHARS):
        raise RefusedError("group", f"must be 1 to {MAX_GROUP_CHARS} of the characters A-Z a-z 0-9 _ . : @ -")
    answer = body.text("answer") if body.has("answer") else None
    given = body.object("metadata")
    metadata = to_json(given.values) if given else "{}"
    for name, text in (("answer", answer or ""), ("metadata", metadata)):
        if len(text) > MAX_TEXT_CHARS:
            raise RefusedError(name, f"is longer than {MAX_TEXT_CHARS} characters")
    return GroupRequest(group, body.whole("samples", 1, MAX_SAMPLES) or 1, answer, metadata)


def session_task(config: Config, group_id: str, request: GroupRequest, now_ms: int) -> Task:
    """Return the task that stands for a group: no conductor has issued it, so it has no number."""
    rollout = config.rollout
    digest = hashlib.blake2b(f"{config.run.seed}/{group_id}".encode(), digest_size=4).digest()
    return Task(
        group_id=group_id,
        number=-1,
        split="train",
        source=SOURCE,
        prompt="",
        answer=request.answer,
        samples=request.samples,
        max_tokens=rollout.max_tokens,
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        seed=int.from_bytes(digest, "big") >> 1,
        min_version=0,
        issued_at=now_ms,
        metadata=request.metadata,
    )
