"""Tells the operator of dead letters: each cause is a note with a count, and the log holds the first ones."""

from __future__ import annotations

import logging

from rft.stream.actions import DeadLetter, Received
from rft.telemetry.notes import NOTED, one_line, role_notes

logger = logging.getLogger(__name__)

LOGGED_FAILURES = 20
"""Failed rewards logged one by one; afterwards every hundredth."""


def note_dead_letter(letter: DeadLetter, event: Received, failed: int) -> None:
    """Count a dead letter by its cause. ``failed`` is the number of experiences so far that could not be scored."""
    if letter.stage != "score":
        text = f"dead letter of {letter.source}, {letter.stage}: {letter.error}"
        if role_notes().add("warning", text) == 1:
            logger.warning("%s (further ones are only counted; rft dlq lists them)", one_line(text), extra=NOTED)
        return
    role_notes().add("error", f"no reward: {letter.error}")
    if failed <= LOGGED_FAILURES or failed % 100 == 0:
        group = (event.key or b"").decode("utf-8", "replace")
        text = f"a sample of {group} is filtered as score_failed ({failed} so far): {letter.error}"
        logger.warning("%s", text, extra=NOTED)
