"""Tokens are asked for off the caller's thread, kept until shortly before they expire, and faults name the provider."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import token_providers

from rft.config import BrokerConfig
from rft.errors import BrokerError, ConfigError, OutageError
from rft.log.tokens import MAX_HUNG, Token, TokenSource, token_source
from rft.retry import Deadline


def source(answer: Callable[[], object], *, oauth: dict[str, Any] | None = None, **changes: Any) -> TokenSource:
    return TokenSource(broker(**token_providers.script(answer, **(oauth or {})), **changes))


def broker(**settings: Any) -> BrokerConfig:
    return BrokerConfig(sasl_mechanism="OAUTHBEARER", **settings)


def calls(tokens: TokenSource) -> list[str]:
    """Return the name of the thread of each call of the provider."""
    return token_providers.threads(tokens._broker)


def numbered(lifetime_s: float) -> Callable[[], Token]:
    """Return a provider of the tokens t1, t2, …"""
    count = iter(range(1, 1000))
    return lambda: Token(f"t{next(count)}", lifetime_s)


def test_a_token_is_asked_for_once_and_on_a_thread_of_its_own() -> None:
    tokens = source(numbered(3600))
    values: list[str] = []
    threads = [threading.Thread(target=lambda: values.append(tokens.token().value)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == ["t1"] * 8
    assert calls(tokens) == ["token-provider"]


def test_a_token_in_use_is_renewed_before_it_expires_and_nobody_waits_for_that() -> None:
    renewing, release = threading.Event(), threading.Event()
    script = [lambda: Token("first", 3.0), lambda: renewing.set() or (release.wait(30) and Token("second", 60.0))]
    tokens = source(lambda: script.pop(0)())
    assert [tokens.token().value for _ in range(2)] == ["first"] * 2
    assert renewing.wait(30)
    assert tokens.token().value == "first"
    release.set()
    deadline = Deadline(30)
    while tokens.token().value == "first":
        assert not deadline.passed
    assert tokens.token().value == "second"


def test_a_token_that_nobody_uses_is_renewed_no_more() -> None:
    tokens = source(numbered(0.2))
    tokens.token()
    time.sleep(1.2)
    assert len(calls(tokens)) <= 2
    assert tokens.token().value == f"t{len(calls(tokens))}"


def test_a_renewal_that_fails_is_tried_again_while_the_old_token_serves(caplog: pytest.LogCaptureFixture) -> None:
    script: list[Any] = [Token("first", 2.0), RuntimeError("down"), Token("second", 60.0)]

    def answer() -> object:
        step = script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    tokens = source(answer)
    tokens.token()
    seen: list[str] = []
    ends = Deadline(4.0)
    while "second" not in seen and not ends.passed:
        try:
            seen.append(tokens.token().value)
        except OutageError:  # the first is older than 1.9 s, and the second comes after 2.6 s
            seen.append("none")
        time.sleep(0.02)
    assert list(dict.fromkeys(seen)) == ["first", "none", "second"]
    assert "cannot renew the token of the broker: broker.token_provider = 'token_providers:scripted'" in caplog.text


FAULTS: dict[str, tuple[Callable[[], object], type[BrokerError], str]] = {
    "raises": (lambda: 1 / 0, BrokerError, r"failed: ZeroDivisionError: division by zero"),
    "cannot reach its server": (
        lambda: Path("/no/such/socket").read_text(),
        OutageError,
        r"failed: FileNotFoundError",
    ),
    "no token": (lambda: "ey.ey", BrokerError, r"returned a str, not a rft\.log\.tokens\.Token"),
    "expired": (lambda: Token("x", -5.0), BrokerError, r"returned a token that expired 5 s ago.*seconds from now"),
    "no lifetime": (lambda: Token("x", float("nan")), BrokerError, r"returned a token with lifetime_s = nan, not a"),
    "a lifetime as text": (lambda: Token("x", "60"), BrokerError, r"returned a token with lifetime_s = '60', not a"),
    "empty": (lambda: Token("", 5.0), BrokerError, r"returned a token that is empty or holds blanks"),
    "injects": (lambda: Token("x\x01host=evil", 5.0), BrokerError, r"returned a token that .*control characters"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_names_the_provider_and_what_is_wrong(fault: str) -> None:
    answer, kind, message = FAULTS[fault]
    with pytest.raises(BrokerError, match=f"broker.token_provider = 'token_providers:scripted' {message}") as caught:
        source(answer).token()
    assert caught.type is kind


def test_a_provider_that_hangs_costs_its_time_limit_and_others_are_tried() -> None:
    release = threading.Event()
    script = [lambda: release.wait(30), lambda: Token("good", 60.0)]
    tokens = source(lambda: script.pop(0)(), token_timeout_s=0.3)
    started = time.monotonic()
    with pytest.raises(OutageError, match=r"did not return within 0\.3 s \(broker\.token_timeout_s\)"):
        tokens.token()
    assert time.monotonic() - started < 2
    assert tokens.token().value == "good"
    release.set()


def test_a_provider_that_always_hangs_does_not_pile_up_threads() -> None:
    release = threading.Event()
    tokens = source(lambda: release.wait(30), token_timeout_s=0.05)
    for _ in range(3 * MAX_HUNG):
        with pytest.raises(OutageError):
            tokens.token()
    assert len(calls(tokens)) <= MAX_HUNG + 1
    release.set()


def test_after_a_fault_the_provider_is_left_alone_for_a_moment() -> None:
    tokens = source(lambda: 1 / 0)
    for _ in range(50):
        with pytest.raises(BrokerError):
            tokens.token()
    assert len(calls(tokens)) == 1


def test_no_secret_is_in_an_error_or_a_representation(caplog: pytest.LogCaptureFixture) -> None:
    script: list[Any] = [Token("ey.first", 0.2), RuntimeError("ey.first of hunter2 is refused")]

    def answer() -> object:
        step = script[0] if len(script) == 1 else script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    tokens = source(answer, oauth={"client_secret": "hunter2"})
    tokens.token()
    time.sleep(0.3)
    with pytest.raises(BrokerError, match="is refused") as caught:
        tokens.token()
    shown = (
        f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r} {caplog.text} {Token('ey.x', 1)!r}"
    )
    assert "ey." not in shown
    assert "hunter2" not in shown


def test_one_configuration_has_one_source() -> None:
    settings = token_providers.script(lambda: Token("x", 60.0))
    assert token_source(broker(**settings)) is token_source(broker(**settings))
    assert token_source(broker(**settings)) is not token_source(broker(**settings, token_timeout_s=9.0))


def test_a_provider_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match=r"broker\.token_provider = 'client_credential' is unknown \(did you mean"):
        TokenSource(broker(token_provider="client_credential"))
    with pytest.raises(ConfigError, match=r"has no 'scriptd'; did you mean 'scripted'"):
        TokenSource(broker(token_provider="token_providers:scriptd"))
