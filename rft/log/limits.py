"""How large a message may be, in one place for topics, producers and consumers."""

from __future__ import annotations

from rft.config import LogConfig

MIB = 1024 * 1024
OVERHEAD_BYTES = 64 * 1024
"""Room for a record's key and headers (a dead letter's among them) and for batch framing."""


def message_limit(log: LogConfig) -> int:
    """Bytes that a topic takes in one message.

    More than ``max_message_bytes``, so that an event too large for us is still received, named and kept as a dead
    letter; its producer, in whatever language, would otherwise get only a refusal that it may overlook.
    """
    return max(4 * log.max_message_bytes, 16 * MIB) + OVERHEAD_BYTES
