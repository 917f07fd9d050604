"""Keeps the token that logs us in to the broker: asks a provider for it, and renews it before it expires.

A provider is a function ``provide(broker: BrokerConfig) -> Token``. It may take its time, because it is called on a
thread of its own. It raises what it likes; an OSError or OutageError says that it may succeed later.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rft.config import BrokerConfig
from rft.errors import BrokerError, OutageError, first_line
from rft.plugins import USER_FAILURES, resolve
from rft.retry import Deadline

RENEW_AT = 0.8
"""Part of a token's life after which it is renewed. kafka-python logs in again after 85 to 95 % of a session's life,
and finds a new token then."""
USABLE_UNTIL = 0.95
"""Part of its life for which it is used: it has to reach the broker before it expires."""
RETRY_S = 1.0
"""Pause after a call that failed, so that connections that are tried again do not ask all the time."""
_EARLY_S = 0.05
"""A timer may be early by this."""
MAX_HUNG = 4
"""A call that ran past its deadline is left alone and another is made. If so many hang, no other is made."""

logger = logging.getLogger("rft")


@dataclass(frozen=True, slots=True)
class Token:
    """What a provider returns."""

    value: str = field(repr=False)
    """The bearer token."""
    lifetime_s: float
    """Seconds from now until it expires."""
    principal: str | None = None
    """Who logs in by it, for error messages."""
    extensions: Mapping[str, str] = field(default_factory=dict)
    """SASL extensions to send with it."""


TokenProvider = Callable[[BrokerConfig], Token]


@dataclass(slots=True, eq=False)
class _Call:
    """A call of the provider that runs."""

    thread: threading.Thread
    started_at: float = field(default_factory=time.monotonic)


class TokenSource:
    """The token of one configuration, for all clients of the process. Thread-safe."""

    def __init__(self, broker: BrokerConfig) -> None:
        """Raises ConfigError if ``broker.token_provider`` is no function."""
        assert broker.token_provider is not None
        self._broker = broker
        # What a user's function returns is checked.
        self._provide: Callable[[BrokerConfig], object] = resolve(
            "broker.token_provider", broker.token_provider, _SHIPPED
        )
        self._changed = threading.Condition()
        self._token: Token | None = None
        self._renew_at = self._usable_until = -math.inf
        self._failure: BrokerError | None = None
        self._failed_at = -math.inf
        self._call: _Call | None = None
        self._hung: list[_Call] = []
        self._asked = False
        """Whether anybody asked since the last renewal began: tokens that nobody uses are not renewed."""

    def token(self) -> Token:
        """Return a token that has not expired. Waits for the provider only if there is none.

        Raises BrokerError that names the provider: OutageError if it did not answer in ``broker.token_timeout_s``, or
        if it has worked before, so that it may do so again.
        """
        with self._changed:
            self._asked = True
            if not self._usable():
                self._wait_for_token()
            assert self._token is not None
            return self._token

    def _usable(self) -> bool:
        return time.monotonic() < self._usable_until

    def _wait_for_token(self) -> None:
        asked_at = time.monotonic()
        deadline = Deadline(self._broker.token_timeout_s)
        if self._failure is not None and asked_at - self._failed_at < RETRY_S:
            raise type(self._failure)(str(self._failure))
        self._begin_call()
        while not self._usable():
            if self._failure is not None and self._failed_at >= asked_at:
                raise type(self._failure)(str(self._failure))
            if not self._changed.wait(deadline.remaining()) and deadline.passed:
                raise OutageError(
                    f"{self._name} did not return within {self._broker.token_timeout_s:g} s "
                    "(broker.token_timeout_s). Give its requests a shorter timeout, or check what it waits for"
                )

    @property
    def _name(self) -> str:
        return f"broker.token_provider = '{self._broker.token_provider}'"

    def _begin_call(self) -> None:
        """Call the provider on a new thread unless a call runs that has not passed its deadline."""
        if self._call is not None:
            if time.monotonic() - self._call.started_at < self._broker.token_timeout_s:
                return
            self._hung = [call for call in [*self._hung, self._call] if call.thread.is_alive()]
            if len(self._hung) >= MAX_HUNG:
                return
        call = _Call(threading.Thread(target=lambda: self._run(call), name="token-provider", daemon=True))
        self._call = call
        call.thread.start()

    def _run(self, call: _Call) -> None:
        outcome = self._ask()
        with self._changed:
            if self._call is not call:
                return  # it ran past its deadline, and another call has begun
            self._call = None
            now = time.monotonic()
            if isinstance(outcome, Token):
                self._token, self._failure = outcome, None
                self._renew_at = call.started_at + RENEW_AT * outcome.lifetime_s
                self._usable_until = call.started_at + USABLE_UNTIL * outcome.lifetime_s
                self._renew_in(self._renew_at - now)
            else:
                self._failure, self._failed_at = outcome, now
                if now < self._usable_until:
                    logger.warning("cannot renew the token of the broker: %s; trying again", outcome)
                    self._asked = True
                    self._renew_in(RETRY_S)
            self._changed.notify_all()

    def _renew_in(self, seconds: float) -> None:
        timer = threading.Timer(min(max(seconds, 0.0), threading.TIMEOUT_MAX), self._renew)
        timer.daemon = True
        timer.start()

    def _renew(self) -> None:
        with self._changed:
            # A newer token may have come since the timer was set, and has a timer of its own.
            if self._asked and time.monotonic() >= self._renew_at - _EARLY_S:
                self._asked = False
                self._begin_call()

    def _ask(self) -> Token | BrokerError:
        """Call the provider. Its exception may hold secrets, so it is not chained to the error."""
        try:
            token = self._provide(self._broker)
        # A provider is a user's code, which may raise anything.
        except USER_FAILURES as error:
            text = str(error) if isinstance(error, BrokerError) else f"{type(error).__name__}: {first_line(error)}"
            return self._refused(f"{self._name} failed: {text}", may_pass=isinstance(error, OSError | OutageError))
        if not isinstance(token, Token):
            return self._refused(f"{self._name} returned a {type(token).__name__}, not a rft.log.tokens.Token")
        if not token.value.isprintable() or not token.value or " " in token.value:
            return self._refused(f"{self._name} returned a token that is empty or holds blanks or control characters")
        if not isinstance(token.lifetime_s, int | float) or math.isnan(token.lifetime_s):
            return self._refused(f"{self._name} returned a token with lifetime_s = {token.lifetime_s!r}, not a number")
        if token.lifetime_s <= 0:
            return self._refused(
                f"{self._name} returned a token that expired {-token.lifetime_s:g} s ago. Check Token.lifetime_s, "
                "which is in seconds from now, and the clock"
            )
        return token

    def _refused(self, message: str, *, may_pass: bool = False) -> BrokerError:
        secrets = [self._token.value] if self._token else []
        if self._broker.oauth.client_secret:
            secrets.append(self._broker.oauth.client_secret.get_secret_value())
        for secret in filter(None, secrets):
            message = message.replace(secret, "**********")
        return (OutageError if may_pass or self._token else BrokerError)(message)


_sources: list[tuple[BrokerConfig, TokenSource]] = []
_sources_lock = threading.Lock()


def token_source(broker: BrokerConfig) -> TokenSource:
    """Return the process's token source for this configuration. Raises ConfigError if the provider is no function."""
    with _sources_lock:
        for known, source in _sources:
            if known == broker:
                return source
        source = TokenSource(broker)
        _sources.append((broker, source))
        return source


def _client_credentials(broker: BrokerConfig) -> Token:
    # Only those who use it wait for the import of an HTTP client.
    from rft.log.client_credentials import request_token

    return request_token(broker.oauth)


_SHIPPED: Mapping[str, TokenProvider] = {"client_credentials": _client_credentials}
