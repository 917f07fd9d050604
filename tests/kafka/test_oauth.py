"""With OAUTHBEARER, all kinds of clients log in by tokens, and go on when these expire. Broker and JWTs are real."""

from __future__ import annotations

import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import token_providers
from oauth_node import OAuthNode
from token_server import CLIENT, SECRET, new_key

from infra.processes import last_lines, spawn, terminate
from rft.config import Config, LogConfig
from rft.config_sources import unmasked_environment
from rft.errors import BrokerError
from rft.log.clients import make_admin, make_consumer, make_producer
from rft.log.reader import EventReader
from rft.log.tokens import Token
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter

pytestmark = pytest.mark.kafka

EXCHANGE_S = 11.0
"""Longer than two sessions of the node and four tokens of the test."""


@pytest.fixture
def oauth_config(oauth_node: OAuthNode) -> Config:
    log = LogConfig(namespace=f"test-{uuid.uuid4().hex[:8]}", partitions=1)
    oauth_node.tokens.lifetime_s = 3600.0
    # The scope makes the configuration, and so its token, the test's own.
    oauth = oauth_node.tokens.settings(scope=log.namespace)["oauth"]
    return Config(broker=oauth_node.config(oauth=oauth), log=log)


def test_the_right_client_carries_events_through(oauth_node: OAuthNode, oauth_config: Config) -> None:
    ensure_topics(oauth_config)
    with EventWriter(oauth_config, "writer") as writer, EventReader(oauth_config, "reader", ["dlq"]) as reader:
        writer.send_bytes("dlq", b"secret", key=b"k")
        writer.flush()
        assert [e.value for e in reader.poll(5)] == [b"secret"]
    forms = [form for form in oauth_node.tokens.forms if form["scope"] == oauth_config.log.namespace]
    assert forms == [{"grant_type": "client_credentials", "scope": oauth_config.log.namespace}]


def exchange(config: Config, copied_to: str) -> None:
    """Write an event now and then for as long as tokens expire, and read each of them from ``copied_to``."""
    sent: list[bytes] = []
    received: list[bytes | None] = []
    with EventWriter(config, "writer") as writer, EventReader(config, "reader", [copied_to]) as reader:
        ends_at = time.monotonic() + EXCHANGE_S
        while time.monotonic() < ends_at:
            sent.append(str(len(sent)).encode())
            writer.send_bytes("experiences", sent[-1], key=b"k")
            writer.flush()
            received += [event.value for event in reader.poll(0.2)]
        deadline = time.monotonic() + 30
        while set(received) != set(sent) and time.monotonic() < deadline:
            received += [event.value for event in reader.poll(0.2)]
    assert received == sent


def test_tokens_that_expire_are_renewed_and_nothing_is_lost(oauth_node: OAuthNode, oauth_config: Config) -> None:
    oauth_node.tokens.lifetime_s, before = 3.0, len(oauth_node.tokens.issued)
    ensure_topics(oauth_config)
    started = time.monotonic()
    exchange(oauth_config, "experiences")
    issued = len(oauth_node.tokens.issued) - before
    assert 3 <= issued <= 2 + (time.monotonic() - started) / 2, "each is renewed after 2.4 s"


def test_a_faust_worker_goes_on_when_its_tokens_expire(
    oauth_node: OAuthNode, oauth_config: Config, tmp_path: Path
) -> None:
    oauth_node.tokens.lifetime_s = 3.0
    ensure_topics(oauth_config)
    settings = tmp_path / "config.json"
    settings.write_text(oauth_config.model_dump_json())
    assert SECRET not in settings.read_text()
    env = os.environ | unmasked_environment(oauth_config)
    worker = spawn(
        [sys.executable, Path(__file__).with_name("faust_echo.py"), settings, tmp_path], tmp_path / "log", env
    )
    try:
        exchange(oauth_config, "dlq")
        assert worker.poll() is None
    except AssertionError:
        print("\n".join(last_lines(tmp_path / "log", 60)))
        raise
    finally:
        terminate(worker, 15)
    log = (tmp_path / "log").read_text()
    assert not [token for token in [SECRET, *oauth_node.tokens.issued] if token in log]


def test_an_authorization_server_that_is_away_is_waited_for(oauth_node: OAuthNode, oauth_config: Config) -> None:
    """Also for longer than a token lives. It is asked about once a second meanwhile, however often clients connect."""
    tokens = oauth_node.tokens
    tokens.lifetime_s = 3.0
    ensure_topics(oauth_config)
    with EventWriter(oauth_config, "writer") as writer, EventReader(oauth_config, "reader", ["dlq"]) as reader:
        writer.send_bytes("dlq", b"before", key=b"k")
        writer.flush()
        assert [event.value for event in reader.poll(10)] == [b"before"]
        asked, tokens.down = len(tokens.forms), True
        time.sleep(7)
        writer.send_bytes("dlq", b"meanwhile", key=b"k")
        assert reader.poll(1) == []
        asked, tokens.down = len(tokens.forms) - asked, False
        writer.flush()
        assert [event.value for event in reader.poll(20)] == [b"meanwhile"]
    assert 3 <= asked <= 12


@pytest.mark.parametrize("make", [make_producer, make_consumer, make_admin])
def test_a_wrong_token_gives_one_clear_error(oauth_node: OAuthNode, make: Any) -> None:
    server = oauth_node.tokens
    wrong = {
        "signed by another key": lambda: Token(server.sign(key=new_key()), 60.0, principal="mallory"),
        "for another audience": lambda: Token(server.sign(audience="other"), 60.0, principal="mallory"),
        "expired": lambda: Token(server.sign(lifetime_s=-60.0), 60.0, principal="mallory"),
        "not a JWT": lambda: Token("abc", 60.0, principal="mallory"),
    }
    for answer in wrong.values():
        started = time.monotonic()
        with pytest.raises(
            BrokerError, match=r"does not accept the token of mallory from broker\.token_provider"
        ) as caught:
            make(Config(broker=oauth_node.config(**token_providers.script(answer))), "me")
        assert time.monotonic() - started < 3
        assert "\n" not in str(caught.value)
        assert answer().value.split(".")[-1] not in str(caught.value)


def test_a_wrong_client_secret_is_named_and_not_shown(oauth_node: OAuthNode) -> None:
    wrong = oauth_node.tokens.settings(client_secret="hunter2")["oauth"]
    with pytest.raises(BrokerError, match=r"refuses a token \(401: invalid_client .*CLIENT_SECRET") as caught:
        make_admin(Config(broker=oauth_node.config(oauth=wrong)), "me")
    assert "hunter2" not in str(caught.value)


def test_a_mechanism_that_the_broker_does_not_offer_is_named(oauth_node: OAuthNode) -> None:
    changes = {"sasl_mechanism": "PLAIN", "token_provider": None, "sasl_username": CLIENT, "sasl_password": "x"}
    with pytest.raises(BrokerError, match="does not offer PLAIN but OAUTHBEARER"):
        make_admin(Config(broker=oauth_node.config(**changes)), "me")
