"""The thread that reads ``members`` and tells which explorers generate for gateways."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from producers.gateway.explorer_choice import ExplorerChoice
from producers.gateway.explorer_keys import ExplorerKeys
from rft.config import Config
from rft.errors import MissingRangeError
from rft.log.reader import EventReader
from rft.log.records import CountedRejects, read_records
from rft.telemetry.activity import ThreadPulse
from schemas.events import Member

POLL_S = 0.2

log = logging.getLogger("rft")


class ExplorerWatch:
    """Follows the announcements of explorers from now on: each of them comes again within seconds."""

    def __init__(
        self,
        config: Config,
        client_id: str,
        secret: str,
        choice: ExplorerChoice,
        call: Callable[[Callable[[], None]], object],
    ) -> None:
        """Connect. Raises BrokerError.

        Args:
            config: The configuration.
            client_id: Our name in the broker's logs.
            secret: What explorers prove themselves with.
            choice: Is told what changes.
            call: Calls a function where ``choice`` lives. Thread-safe.
        """
        self._keys = ExplorerKeys(secret)
        self._choice = choice
        self._call = call
        self._reader = EventReader(config, f"{client_id}-members", ["members"], from_end=True)
        self._rejects = CountedRejects()
        self._strangers: set[str] = set()
        self._open = threading.Event()
        self._thread = threading.Thread(target=self._run, name="explorer-watch", daemon=True)
        self.pulse = ThreadPulse()
        """Beats with each turn of the thread's loop."""
        self.error: Exception | None = None
        """What ended the thread, if it was not ``close``."""

    def start(self) -> None:
        """Begin to follow."""
        self._open.set()
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Stop."""
        self._open.clear()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while self._open.is_set():
                self.pulse.beat()
                self._poll()
        # The role must end with this thread: the owner raises the error.
        except Exception as error:
            self.error = error
        finally:
            self._reader.close()

    def _poll(self) -> None:
        try:
            events = self._reader.poll(POLL_S)
        except MissingRangeError as error:
            self._reader.seek(error.entity, error.partition, error.end)
            return
        for member in read_records(events, Member, self._rejects.reject):
            self._call(lambda member=member: self._saw(member))  # type: ignore[misc]

    def _saw(self, member: Member) -> None:
        if member.state != "here":
            self._choice.gone(member.member_id)
        elif not member.generate_url or member.version < 0:
            return
        elif self._keys.proves(member.generate_url, member.generate_proof):
            self._choice.announced(member.member_id, member.generate_url, member.stats, time.monotonic())
        elif member.member_id not in self._strangers and len(self._strangers) < 100:
            self._strangers.add(member.member_id)
            log.warning(
                "%s announces %s without the secret of this gateway, so it is not asked. Give gateway.token_env of "
                "explorers and gateways the same secret",
                member.member_id[:200],
                member.generate_url[:200],
            )
