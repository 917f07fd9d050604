"""Remembers the histories of responses, so that a later one can continue them by ``previous_response_id``.

It is bounded and in memory. A client whose response is gone sends the whole history instead, as with ``store = false``:
the sessions keep the tokens, this store only the messages.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from producers.gateway.faults import RefusedError
from producers.gateway.pieces import to_json
from rft.workflows.messages import Message

MAX_RESPONSES = 20_000
MAX_CHARS = 256 * 1024 * 1024
"""Characters of all histories. What two have in common counts twice, though it takes memory once."""


class ResponseStore:
    """Is the store of one gateway. The least recently used response is forgotten first."""

    def __init__(self, max_responses: int = MAX_RESPONSES, max_chars: int = MAX_CHARS) -> None:
        self._max_responses = max_responses
        self._max_chars = max_chars
        self._kept: OrderedDict[tuple[str, str], tuple[tuple[Message, ...], int]] = OrderedDict()
        self._chars = 0

    def messages(self, session: str, response: str) -> tuple[Message, ...]:
        """Return the history that ended with ``response``. Raises RefusedError if this session has no such response."""
        try:
            kept, _ = self._kept[session, response]
        except KeyError as error:
            raise RefusedError(
                "previous_response_id",
                "this session has no such response (any more); send the whole history as input",
                code="previous_response_not_found",
            ) from error
        self._kept.move_to_end((session, response))
        return kept

    def keep(self, session: str, response: str, messages: Sequence[Message], previous: str | None) -> None:
        """Remember the history that ends with ``response`` and continues that of ``previous``, if there is one."""
        before, chars = self._kept.get((session, previous or ""), ((), 0))
        chars += sum(len(to_json(message)) for message in messages[len(before) :])
        self._kept[session, response] = (tuple(messages), chars)
        self._chars += chars
        while len(self._kept) > self._max_responses or (self._chars > self._max_chars and len(self._kept) > 1):
            _, (_, gone) = self._kept.popitem(last=False)
            self._chars -= gone
