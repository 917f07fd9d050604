"""Waits for a broker that is away. All calls of a process follow one policy.

A role waits for as long as ``broker.outage_s`` allows, by default without end. It logs what it waits for, and ends its
waits soon after it is asked to stop. A command does not wait: its operator sees the error and can repeat it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from kafka.errors import KafkaError

from rft.errors import BrokerError, OutageError, OutageLimitError

T = TypeVar("T")

OUTAGE_LIMIT_S = 60.0
"""How long a process that is not a role tolerates failures of a client that worked: longer than a broker's restart."""
OUTAGE_PAUSE_S = 0.2
STOP_GRACE_S = 5.0
"""How long a role that is asked to stop goes on waiting: what it finishes then is not done again by the next start."""
LOG_AFTER_S = 2.0
"""Shorter waits are not worth a line: connections break for a moment."""
LOG_EVERY_S = 60.0

logger = logging.getLogger("rft")


def is_outage(error: Exception) -> bool:
    """Return whether an error says that the broker does not answer now, but may later."""
    return isinstance(error, OutageError) or (isinstance(error, KafkaError) and bool(error.retriable))


def broker_error(failure: str, error: Exception, refusal: type[BrokerError] = BrokerError) -> BrokerError:
    """Return the error to raise for one of a client: OutageError if the broker may answer later, else a ``refusal``.

    ``failure`` begins its message, such as ``cannot read rft.tasks.v1``.
    """
    return (OutageError if is_outage(error) else refusal)(f"{failure}: {error}")


@dataclass(slots=True)
class _Policy:
    """How this process waits."""

    waits: bool = False
    limit_s: float = 0.0
    """0 has no limit."""
    stop: threading.Event | None = None
    stop_seen_at: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    active: dict[int, tuple[str, float]] = field(default_factory=dict)
    """What cannot be done now, and since when."""
    logged_at: float = 0.0


_policy = _Policy()
_here = threading.local()
"""Of each thread: ``asks_once`` is set within :func:`asking_once`."""


def wait_for_broker(limit_s: float, stop: threading.Event) -> None:
    """From now on, let this process wait for the broker for up to ``limit_s`` (0: without end), or until ``stop``."""
    _policy.waits, _policy.limit_s, _policy.stop, _policy.stop_seen_at = True, limit_s, stop, None


def waits_for_broker() -> bool:
    """Return whether this process waits for the broker, as roles do."""
    return _policy.waits


class Wait(NamedTuple):
    """Something that cannot be done now because the broker is away."""

    failure: str
    seconds: float
    """How long it has lasted."""

    def __str__(self) -> str:
        return f"waits for the broker since {self.seconds:.0f} s: {self.failure}"


def longest_wait() -> Wait | None:
    """Return the wait for the broker that has lasted longest; None while this process does not wait for it."""
    with _policy.lock:
        if not _policy.active:
            return None
        failure, since = min(_policy.active.values(), key=lambda one: one[1])
    return Wait(failure, time.monotonic() - since)


@contextlib.contextmanager
def asking_once() -> Iterator[None]:
    """Within this block, let questions of this thread fail at once if the broker is away, also in a role.

    For questions that need no answer, asked by a thread that has other work.
    """
    before = getattr(_here, "asks_once", False)
    _here.asks_once = True
    try:
        yield
    finally:
        _here.asks_once = before


class Outage:
    """Follows one long-lived client through outages: its calls raise, and succeed again after it has reconnected.

    Not thread-safe.
    """

    def __init__(
        self, failure: str, may_pass: Callable[[Exception], bool] = is_outage, limit_s: float = OUTAGE_LIMIT_S
    ) -> None:
        """Begin with a client that works.

        Args:
            failure: Begins the error's message, such as ``cannot read rft.tasks.v1``.
            may_pass: Returns whether another try may help after an error.
            limit_s: How long a process that is not a role tries again.
        """
        self._failure = failure
        self._may_pass = may_pass
        self._limit_s = limit_s
        self._since: float | None = None

    def failed(self, error: Exception) -> None:
        """Pause, then return so that the caller tries again.

        Raises BrokerError if ``error`` cannot pass; OutageLimitError when a role has waited for ``broker.outage_s``;
        OutageError when it was asked to stop, or when another process has tried for ``limit_s``.
        """
        if not self._may_pass(error):
            self.end()
            raise BrokerError(f"{self._failure}: {error}") from error
        now = time.monotonic()
        if self._since is None:
            self._since = now
        waited = now - self._since
        if _policy.waits:
            self._wait_as_role(error, now, waited)
        elif waited > self._limit_s:
            raise OutageError(f"{self._failure} for {self._limit_s:g} s: {error}") from error
        time.sleep(OUTAGE_PAUSE_S)

    def succeeded(self) -> None:
        """Note that the client works: the next failure is a first one."""
        if self._since is None:
            return
        waited = time.monotonic() - self._since
        if waited >= LOG_AFTER_S:
            logger.info("the broker answers again after %.0f s", waited)
        self.end()

    def _wait_as_role(self, error: Exception, now: float, waited: float) -> None:
        if _policy.stop is not None and _policy.stop.is_set():
            if _policy.stop_seen_at is None:
                _policy.stop_seen_at = now
            if now - _policy.stop_seen_at >= STOP_GRACE_S:
                self.end()
                raise OutageError(f"{self._failure}: the broker is away ({error})") from error
        if _policy.limit_s and waited >= _policy.limit_s:
            self.end()
            raise OutageLimitError(
                f"{self._failure} for {_policy.limit_s:g} s: {error}. Bring the broker back and start the run again, "
                "or raise broker.outage_s (0: wait for as long as the run lasts)"
            ) from error
        with _policy.lock:
            assert self._since is not None
            _policy.active[id(self)] = (self._failure, self._since)
            due = waited >= LOG_AFTER_S and now - _policy.logged_at >= LOG_EVERY_S
            if due:
                _policy.logged_at = now
        if due:
            logger.warning("waits for the broker since %.0f s: %s: %s", waited, self._failure, error)

    def end(self) -> None:
        """Forget the outage: the client works again, or is not used any more."""
        self._since = None
        with _policy.lock:
            _policy.active.pop(id(self), None)
            if not _policy.active:
                _policy.logged_at = 0.0


def wait_out(failure: str, call: Callable[[], T], may_pass: Callable[[Exception], bool] = is_outage) -> T:
    """Return what ``call`` returns. In a role, call again while the broker is away; elsewhere, raise its error at once.

    ``failure`` begins the message of an error. Raises as :meth:`Outage.failed` does, and what ``call`` raises.
    """
    outage = Outage(failure, may_pass)
    try:
        while True:
            try:
                result = call()
            except (KafkaError, OutageError) as error:
                if not (_policy.waits and may_pass(error)) or getattr(_here, "asks_once", False):
                    raise
                outage.failed(error)
            else:
                outage.succeeded()
                return result
    finally:
        outage.end()


class ProgressWatch:
    """Notices that a client brings nothing any more, although it raises no error.

    kafka-python's ``poll`` returns nothing while the broker is away. So before this counts as a fault, the broker is
    asked something: in a role, the question waits for the broker.
    """

    def __init__(self, limit_s: float, ask: Callable[[], object], fault: Callable[[], str]) -> None:
        """Start to watch.

        Args:
            limit_s: Seconds without progress after which the broker is asked.
            ask: Asks the broker, and returns when it answers. It may make the client begin anew.
            fault: Returns the message of the error.
        """
        self._limit_s = limit_s
        self._ask = ask
        self._fault = fault
        self._moved_at = time.monotonic()
        self._asked = False

    def moved(self) -> None:
        """Note progress."""
        self._moved_at = time.monotonic()
        self._asked = False

    def check(self) -> None:
        """Raise BrokerError if the broker answers and nothing has come for ``limit_s``, twice in a row."""
        if time.monotonic() - self._moved_at < self._limit_s:
            return
        if self._asked or not _policy.waits:
            raise BrokerError(self._fault())
        self._ask()
        self._asked = True
        self._moved_at = time.monotonic()
