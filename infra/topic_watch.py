"""Watches the topics while a role runs, and ends the role when they are not those that it began with."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from rft.config import Config
from rft.errors import BrokerError, OutageError, TopicChangedError
from rft.log.clients import make_admin
from rft.log.topic_identity import check_topics

CHECK_EVERY_S = 15.0
"""A change is noticed well within a minute, also when a first look fails."""
FIRST_LOOK_S = 5.0
"""How long a role waits to know the topics that it begins with. If the broker is away, it begins without."""
LAST_LOOK_S = 5.0
"""How long a role that has failed waits for a last look."""
GRACE_S = 20.0
"""Time for a role to stop by itself. A client that reads a topic that is gone may never return."""

logger = logging.getLogger("rft")


class TopicWatch:
    """A thread that looks at the topics. Use it as a context around the role's work.

    When they have changed it sets ``stop``. Leaving the context then raises TopicChangedError, whatever else the role
    raises: that is only a consequence. A role that does not stop within ``GRACE_S`` is ended by ``end``.
    """

    def __init__(self, config: Config, stop: threading.Event, end: Callable[[TopicChangedError], None]) -> None:
        self._config = config
        self._stop = stop
        self._end = end
        self._closed = threading.Event()
        self._looked = threading.Event()
        self._change: TopicChangedError | None = None
        self._looks_again = False
        self._admin: KafkaAdminClient | None = None
        self._thread = threading.Thread(target=self._watch, name="topic-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._looked.wait(FIRST_LOOK_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What the role has met may be a consequence of a change that was not noticed yet.
        self._looks_again = isinstance(error, Exception) and not isinstance(error, OutageError)
        self._closed.set()
        if self._looks_again:
            self._thread.join(LAST_LOOK_S)
        if self._change is not None:
            raise self._change from error

    def _watch(self) -> None:
        try:
            while not self._closed.is_set():
                self._look()
                self._looked.set()
                self._closed.wait(CHECK_EVERY_S)
            if self._looks_again:
                self._look()
        except TopicChangedError as change:
            self._end_role(change)
        finally:
            self._looked.set()
            self._disconnect()

    def _look(self) -> None:
        try:
            if self._admin is None:
                self._admin = make_admin(self._config, "topic-watch")
            check_topics(self._config, self._admin)
        except TopicChangedError:
            raise
        except (BrokerError, KafkaError) as error:
            # The broker is away, which the role's own clients report.
            logger.debug("cannot look at the topics: %s", error)
            self._disconnect()

    def _end_role(self, change: TopicChangedError) -> None:
        self._change = change
        logger.warning("the topics have changed; this role stops")
        self._stop.set()
        if not self._closed.wait(GRACE_S):
            self._end(change)

    def _disconnect(self) -> None:
        if self._admin is not None:
            with contextlib.suppress(KafkaError):
                self._admin.close()
            self._admin = None
