"""`telemetry.listen` is an address, or an error that says how to write one."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from rft.config import TelemetryConfig


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("0.0.0.0:9464", ("0.0.0.0", 9464)),
        ("[::1]:65535", ("::1", 65535)),
        ("localhost:80", ("localhost", 80)),
        ("none", None),
    ],
)
def test_addresses_are_read(text, address):
    assert TelemetryConfig.model_validate({"listen": text}).address == address


def test_by_default_roles_are_served_on_loopback_on_a_free_port():
    assert TelemetryConfig().address == ("127.0.0.1", 0)


@pytest.mark.parametrize("text", ["", ":80", "host", "host:", "host:x", "host:-1", "host:65536", "::1:80", "host:٣"])
def test_what_is_no_address_is_refused_with_an_example(text):
    with pytest.raises(ValidationError, match=r"is no address: write host:port, such as 127\.0\.0\.1:0"):
        TelemetryConfig.model_validate({"listen": text})
