"""Defines what an agent needs to reach its session."""

from __future__ import annotations

from dataclasses import dataclass

from producers.gateway.session import Session


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session, and how an agent reaches it."""

    name: str
    api_key: str
    base_url: str
    """For clients of OpenAI's protocols."""
    anthropic_base_url: str
    """For clients of Anthropic's."""
    session: Session
