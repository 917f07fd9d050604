"""API keys name sessions, and none opens another's."""

from __future__ import annotations

import pytest

from producers.gateway.access import Access


def test_without_a_token_the_key_is_the_session() -> None:
    access = Access(None)
    assert access.session(access.key("group-1.2")) == "group-1.2"
    assert access.allows("anything", "group-1.2")
    assert access.is_token("")


@pytest.mark.parametrize("key", ["", "a b", "a/b", "../x", "a" * 201, "é"])
def test_a_key_that_is_no_name_names_no_session(key: str) -> None:
    assert Access(None).session(key) is None
    assert Access("secret").session(key) is None


def test_with_a_token_a_key_opens_its_own_session_only() -> None:
    access = Access("secret")
    key = access.key("one.1")
    assert key.startswith("one.1.")
    assert access.session(key) == "one.1"
    assert access.allows(key, "one.1")
    assert not access.allows(key, "one.2")
    assert not access.allows("one.1", "one.1")
    assert not access.is_token(key)
    forged = key.replace("one.1", "one.2", 1)
    assert access.session(forged) is None
    assert access.session("one.1") is None
    assert Access("other").session(key) is None


def test_the_token_opens_every_session_and_names_none() -> None:
    access = Access("secret")
    assert access.allows("secret", "one")
    assert access.is_token("secret")
    assert access.session("secret") is None
    assert not access.is_token("Secret")
